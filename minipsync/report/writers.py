"""A table (any DataFrame) as text, Markdown, CSV or LaTeX."""

from typing import Any

import pandas as pd


def to_text(table: pd.DataFrame, digits: int = 2) -> str:
    """Aligned columns for a terminal."""
    return _cells(table, digits).to_string(index=False)


def to_markdown(table: pd.DataFrame, digits: int = 2) -> str:
    """A Markdown table; columns of numbers stand right. An index of names becomes the first column."""
    cells = _cells(table, digits)
    lines = [list(cells.columns), ["---:" if number else "---" for number in _numeric(table)],
             *cells.to_numpy().tolist()]
    escape = str.maketrans({"|": r"\|", "\n": " ", "\r": " "})
    return "\n".join("| " + " | ".join(cell.translate(escape) for cell in line) + " |" for line in lines)


def to_csv(table: pd.DataFrame) -> str:
    """Comma-separated, every digit kept, absent values empty."""
    return _flat(table).to_csv(index=False, lineterminator="\n")


def to_latex(table: pd.DataFrame, digits: int = 2) -> str:
    """A tabular for the package booktabs, special characters escaped (pandas does it by torch's jinja2)."""
    align = "".join("r" if number else "l" for number in _numeric(table))
    return _cells(table, digits).to_latex(index=False, escape=True, column_format=align)


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with its index as columns, unless that only counts rows; names of columns as text."""
    counts = table.index.names == [None] and pd.api.types.is_integer_dtype(table.index)
    flat = table.reset_index(drop=counts)
    names = [" ".join(filter(None, map(str, n))) if isinstance(n, tuple) else str(n) for n in flat.columns]
    return flat.set_axis(names, axis=1)


def _numeric(table: pd.DataFrame) -> list[bool]:
    """Which columns are numbers, the index among them."""
    return [pd.api.types.is_numeric_dtype(kind) for kind in _flat(table).dtypes]


def _cells(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Every cell as text: floats with `digits` decimals, absent values as a dash."""
    def text(value: Any) -> str:
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return "–"
        return f"{value:.{digits}f}" if pd.api.types.is_float(value) else str(value)
    return _flat(table).map(text)
