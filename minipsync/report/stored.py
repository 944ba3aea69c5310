"""Tables that were measured once and lie in the repository (results/mini), as notebooks show them.

    table, pairs = stored("domain_generalisation"), stored("domain_generalisation_paired")
    accuracies(table)              # a line for each method, a column for each data set
    against(pairs, "zero_shot")    # differences to one method
    beside(table)                  # the papers' numbers, and ours in columns of their own
    beside(halves_averaged(stored("base_to_novel")), table="base_to_novel", datasets=AVERAGES)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..data.own import split_half
from ..evaluation.protocols import OOD, harmonic_mean
from .published import PRINTED, published

NONE = "stored tables are of the mini benchmark, in a clone of the repository; here there is none"
AVERAGES = ("average_base", "average_novel", "average_hm")           # of base and novel classes
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


def halves_averaged(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of data sets "…_base" and "…_novel" -> their AVERAGES: means over seeds, then over data sets, and
    the harmonic mean of the two. Columns method, dataset, accuracy (fractions), for `beside`."""
    rows = table.assign(half=[split_half(name)[1] for name in table["dataset"]])
    means = rows.groupby(["method", "dataset", "half"], sort=False)["accuracy"].mean().reset_index()
    wide = means.pivot_table(index="method", columns="half", values="accuracy", sort=False)
    wide["hm"] = [harmonic_mean(*both) for both in wide[["base", "novel"]].to_numpy()]
    return pd.DataFrame([(method, f"average_{half}", value) for method, row in wide.iterrows()
                         for half, value in row.items()], columns=["method", "dataset", "accuracy"])


def beside(ours: pd.DataFrame, label: str = "mini", table: str = "domain_generalisation",
           datasets: Sequence[str] = OOD, printed: Mapping[str, str] = PRINTED) -> pd.DataFrame:
    """Accuracies in percent: those that papers print, and ours (means over seeds) under `label`, never in one
    column. A line for each method of `ours` that has a published number or, where none has, for all.

    ours:     columns method (our names), dataset, accuracy (fractions), as tables and `Result.row` give them
    table:    one of `published.TABLES`. datasets: its columns to show
    printed:  {our name of a method: that of the paper}

    A number that is not there is NaN. Raises ValueError for an unknown table.
    """
    paper = published(table).pivot(index="method", columns="dataset", values="value")
    means = 100 * ours.pivot_table(index="method", columns="dataset", values="accuracy", sort=False)
    both = {"published, ViT-B/16": paper.reindex([printed.get(name, name) for name in means.index]
                                                 ).set_axis(means.index), label: means}
    sides = {name: side.reindex(columns=[*datasets]) for name, side in both.items()}
    known = sides["published, ViT-B/16"].notna().any(axis=1)
    return pd.concat({name: side[known | ~known.any()] for name, side in sides.items()}, axis=1)


def _wide(rows: pd.DataFrame, line: str, form: str, value: str) -> pd.DataFrame:
    """Cells of text, lines and columns in the order in which they come."""
    numbers = 100 * rows[[value, "low", "high"]]
    cells = rows.assign(cell=[form.format(*each) for each in numbers.itertuples(index=False)])
    wide = cells.pivot(index=line, columns="dataset", values="cell")
    return wide.loc[rows[line].unique(), rows["dataset"].unique()]
