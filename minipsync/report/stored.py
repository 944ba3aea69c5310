"""Tables that were measured once and lie in the repository (results/mini), as notebooks show them.

    table, pairs = stored("domain_generalisation"), stored("domain_generalisation_paired")
    accuracies(table)              # a line for each method, a column for each data set
    against(pairs, "zero_shot")    # differences to one method
"""

from pathlib import Path

import pandas as pd

NONE = "stored tables are of the mini benchmark, in a clone of the repository; here there is none"
FOLDER = Path(__file__).resolve().parents[2] / "results/mini"


def stored(name: str, benchmark: str = "mini") -> pd.DataFrame | None:
    """The table results/mini/NAME.csv; None for another benchmark, or where the repository is not there (a
    package that was installed without it)."""
    file = FOLDER / f"{name}.csv"
    return pd.read_csv(file) if benchmark == "mini" and file.is_file() else None


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """"61.2  (57.0 to 65.3)": accuracy in percent with its 95 % interval, means over seeds (of the intervals'
    ends too, than which that of a mean is no wider); a line for each method, a column for each data set."""
    means = table.groupby(["method", "dataset"], sort=False)[["accuracy", "low", "high"]].mean().reset_index()
    return _wide(means, "method", "{:.1f}  ({:.1f} to {:.1f})", "accuracy")


def against(pairs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """"+2.1  (+0.3 to +3.9)": differences to the method `reference` in points with their 95 % intervals."""
    own = pairs[pairs["b"] == reference]
    if own.empty:
        raise ValueError(f"reference={reference!r}: expected one of {', '.join(pairs['b'].unique())}")
    return _wide(own, "a", "{:+.1f}  ({:+.1f} to {:+.1f})", "difference").rename_axis(f"minus {reference}")


def _wide(rows: pd.DataFrame, line: str, form: str, value: str) -> pd.DataFrame:
    """Cells of text, lines and columns in the order in which they come."""
    numbers = 100 * rows[[value, "low", "high"]]
    cells = rows.assign(cell=[form.format(*each) for each in numbers.itertuples(index=False)])
    wide = cells.pivot(index=line, columns="dataset", values="cell")
    return wide.loc[rows[line].unique(), rows["dataset"].unique()]
