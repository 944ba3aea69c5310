"""Numbers that papers print, and ours beside them.

    published("domain_generalisation")                        # method, dataset, value in percent, source
    side_by_side(results, "domain_generalisation", "full")    # published | ours, 95 % interval, n, verdict

minipsync/report/published/*.csv holds every number that was seen in print, and where. A misprint has status
"typo": it is kept so that nobody takes it for a number, hidden unless asked for, and never compared with.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from ..data.own import split_half
from ..evaluation.protocols import OOD
from ..evaluation.resampling import class_interval
from ..evaluation.results import Result, verdict
from ..settings import did_you_mean

TABLES = {
    "domain_generalisation": "Four shifted ImageNets, ViT-B/16, accuracy in %",
    "domain_generalisation_list": "ImageNet and four shifted ones, ViT-B/16, accuracy in %, a second source",
    "tpt_rn50": "ImageNet and four shifted ones, ResNet-50, accuracy in %",
    "pug": "PUG-ImageNet, ViT-B/16, accuracy in %",
    "cross_dataset": "Ten data sets, prompts from ImageNet, ViT-B/16, accuracy in %",
    "cross_dataset_rn50": "Ten data sets, prompts from ImageNet, ResNet-50, accuracy in %",
    "base_to_novel": "Base and novel classes, averages of 11 data sets, ViT-B/16, accuracy in %",
    "base_to_novel_promptsrc": "Base and novel classes, averages of 11 data sets, as PromptSRC gives them",
    "base_to_novel_imagenet": "Base and novel classes of ImageNet, ViT-B/16, accuracy in %",
    "promptalign_ablation": "PromptAlign's losses on ImageNet-A, ViT-B/16, accuracy in %",
    "coop_log": "CoOp's example log, Caltech101, ResNet-50, accuracy in %",
    "zero_shot_openclip": "Zero-shot, ViT-B/16, open_clip's own templates, accuracy in %: a loose check",
    "zero_shot_notebook": "Zero-shot, ViT-B/32, 80 templates, ImageNetV2, accuracy in %",
    "claimed_gains": "Gains that papers claim, in points: not accuracies",
    "claimed_counts": "How many data sets papers count: not accuracies",
}
# what the papers call our methods
PRINTED = {"zero_shot": "CLIP", "coop": "CoOp", "cocoop": "CoCoOp", "maple": "MaPLe", "ivlp": "IVLP",
           "tpt": "TPT", "maple_tpt": "MaPLe+TPT", "promptalign": "PromptAlign", "promptsync": "PromptSync",
           "promptsync_star": "PromptSync*"}
NEEDED = ["method", "dataset", "accuracy", "low", "high", "n"]
COLUMNS = ["method", "dataset", "published", "ours", "low", "high", "n", "verdict"]


# ---- published numbers ------------------------------------------------------------------------------
def published(table: str | None = None, typos: bool = False) -> pd.DataFrame:
    """What was printed: columns table, method, dataset, value (percent), source, note, status.

    table: one of TABLES, or None for all. typos: whether to show the rows with status "typo" too.
    Data sets have our names. "ood_average" is the mean of v2, sketch, a and r, "average" that of the row's
    data sets, "…_hm" the harmonic mean of base and novel. Raises ValueError for an unknown table."""
    rows = _published()
    if table is not None:
        if table not in TABLES:
            raise ValueError(f"unknown table {table!r}, expected one of: {', '.join(TABLES)}."
                             f"{did_you_mean(table, TABLES)}")
        rows = rows[rows["table"] == table]
    return rows[typos | (rows["status"] != "typo")].reset_index(drop=True)


@cache
def _published() -> pd.DataFrame:
    """All rows of minipsync/report/published/*.csv, in the order of TABLES."""
    files = sorted((f for f in resources.files(__package__).joinpath("published").iterdir()
                    if f.name.endswith(".csv")), key=lambda f: f.name)
    parts = [pd.read_csv(f.open(encoding="utf-8"), keep_default_na=False) for f in files]
    rows = pd.concat(parts).astype({"value": float})
    return rows.sort_values("table", key=lambda names: names.map(list(TABLES).index), kind="stable")


def printed_averages(table: str) -> dict[str, list[str]]:
    """The averages over data sets that a printed table has, and the data sets of each."""
    names = published(table)["dataset"].unique()
    parts = {"ood_average": list(OOD), "average": [name for name in names if not name.endswith("average")]}
    return {name: parts[name] for name in names if name in parts}


# ---- ours beside them -------------------------------------------------------------------------------
def side_by_side(results: Result | list[Result] | pd.DataFrame, table: str,
                 benchmark: str | None = None) -> pd.DataFrame:
    """The published table with our results: columns method, dataset, published, ours, low, high, n, verdict.

    results:   a `Result`, a list of them, or a DataFrame with method (our name or the printed one), dataset,
               accuracy, low, high (fractions) and n, as in results/mini/*.csv; one row per method and dataset
    benchmark: "full" puts ours beside the published value of the same data set. "mini" keeps ours in rows of
               their own, labelled "mini …": a mini number has no published one

    published, ours, low and high are percent, low and high the ends of a 95 % interval. verdict: "higher" or
    "lower" (ours), "not told apart" where the published value lies in our interval. An average is added
    where we have all its parts, see `joined`. Raises ValueError for results that do not belong in the table.
    """
    good = [name for name in TABLES if not name.startswith("claimed")]
    if table not in good:
        raise ValueError(f"table={table!r}: expected a table of accuracies, one of: {', '.join(good)}."
                         f"{did_you_mean(table, good)}")
    if benchmark not in ("full", "mini"):
        raise ValueError(f'benchmark={benchmark!r}: expected "full", where the results were measured on the '
                         'papers\' data sets, or "mini", which never stands in their columns')
    rows = _checked(results, benchmark)
    both = beside(rows, table, benchmark, printed_averages(table))
    if benchmark == "full" and not (both["published"].notna() & both["ours"].notna()).any():
        got, want = (" on ".join(", ".join(each[name].unique()) for name in ("method", "dataset"))
                     for each in (rows, published(table)))
        raise ValueError(f"no result belongs in table {table!r}: got {got}; expected some of {want}")
    return both[COLUMNS]


def beside(rows: pd.DataFrame, table: str, benchmark: str, averages: Mapping[str, Sequence[str]]
           ) -> pd.DataFrame:
    """The published table with `rows` of ours and their averages, as `side_by_side` gives it; nothing is
    refused, and further columns of `rows` are kept.

    averages: the data sets of each average that is added for a method that has all of them."""
    targets = published(table)[["method", "dataset", "value"]].rename(columns={"value": "published"})
    rows, more = rows.replace({"method": PRINTED}), []
    for label, own in rows.groupby("method", sort=False):
        parts = {row["dataset"]: row for row in own.to_dict("records")}
        more += [joined(label, name, mean, [parts[d] for d in sets]) for name, sets in averages.items()
                 if name not in parts and set(sets) <= set(parts)]
    ours = pd.concat([rows, pd.DataFrame(more, columns=rows.columns).astype(rows.dtypes)] if more else [rows])
    ours = ours.rename(columns={"accuracy": "ours"})
    ours[["ours", "low", "high"]] *= 100.0
    if benchmark == "mini":
        ours["dataset"] = "mini " + ours["dataset"]
    both = targets.merge(ours, on=["method", "dataset"], how="outer")
    gaps = both[["low", "high"]].sub(both["published"], axis=0).itertuples(index=False)
    both["verdict"] = [verdict(low, high, "higher", "lower") if low == low else "" for low, high in gaps]
    for name in ("dataset", "method"):                    # as printed; what only we have comes last
        order = pd.unique(pd.concat([targets[name], ours[name]])).tolist()
        both = both.sort_values(name, key=lambda names, order=order: names.map(order.index), kind="stable")
    return both.astype({"n": "Int64"}).reset_index(drop=True)


def joined(label: str, dataset: str, f: Callable[..., float], rows: Sequence[Mapping[str, Any]]
           ) -> dict[str, Any]:
    """The row for f(accuracy, accuracy, …), with its 95 % interval.

    For the mean of data sets whose `observations` are known, classes are resampled, each with its images of
    all the data sets. Else the samples count as independent, as base and novel classes are, and the interval
    is MOVER's (Zou and Donner, Statistics in Medicine 27, 2008): what each end of each interval changes in f
    is squared and added. n is a sum, and so is `of`; `seeds` is the smallest."""
    values, ends = [row["accuracy"] for row in rows], {}
    for end, sign in (("low", -1), ("high", 1)):
        moved = [f(*values[:i], row[end], *values[i + 1:]) - f(*values) for i, row in enumerate(rows)]
        ends[end] = min(max(f(*values) + sign * math.hypot(*moved), 0.0), 1.0)
    if f is mean and all(isinstance(row.get("observations"), pd.DataFrame) for row in rows):
        known = pd.concat([row["observations"].assign(weight=1 / len(row["observations"])) for row in rows])
        _, ends["low"], ends["high"] = class_interval(known["right"], known["class"], known["weight"])
    counts = {name: count(row[name] for row in rows)
              for name, count in (("n", sum), ("of", sum), ("seeds", min)) if name in rows[0]}
    return {"method": label, "dataset": dataset, "accuracy": f(*values), "std": math.nan, **ends, **counts}


def mean(*values: float) -> float:
    """The mean of some numbers, as `joined` takes it."""
    return sum(values) / len(values)


def label_of(dataset: str, origin: str | None) -> str:
    """How tables call a data set: one's own is "own NAME", an incomplete copy "NAME (partial)"."""
    return {"own": f"own {dataset}", "partial": f"{dataset} (partial)"}.get(origin or "", dataset)


def split_label(label: str) -> tuple[str, str]:
    """"dtd_base (partial)" -> ("dtd (partial)", "base"); the half of a whole data set is ""."""
    partial = " (partial)" * label.endswith(" (partial)")
    stem, half = split_half(label.removesuffix(partial))
    return stem + partial, half


def _checked(results: Result | list[Result] | pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The columns NEEDED of our results, data sets as tables call them; ValueError for unsuitable ones."""
    if not isinstance(results, pd.DataFrame):
        results = pd.DataFrame([r.row() for r in (results if isinstance(results, list) else [results])])
    lacking = [name for name in NEEDED if name not in results]
    if lacking or results.empty:
        raise ValueError(f"results: expected rows with {', '.join(NEEDED)}; "
                         + (f"{', '.join(lacking)} missing" if lacking else "there are none"))
    origins = next((results[name] for name in ("origin", "benchmark") if name in results),
                   pd.Series("", index=results.index)).fillna("")
    said = set(origins) - {""}
    if said - {benchmark, *["partial"] * (benchmark == "full")}:
        raise ValueError(f"benchmark={benchmark!r}, but the results say {', '.join(sorted(said))}; "
                         "mini numbers and those of one's own data never stand in a column of the papers' "
                         "data sets: pass the results of one benchmark, under its own name")
    rows = results[NEEDED].assign(dataset=list(map(label_of, results["dataset"], origins)))
    rows = rows.replace({"method": PRINTED}).reset_index(drop=True)
    twice = rows[rows.duplicated(["method", "dataset"])]
    if len(twice):
        raise ValueError(f"results: {twice['method'].iloc[0]} on {twice['dataset'].iloc[0]} comes more than "
                         "once; expected one row each: choose one seed and setting, or pool them first")
    for name in ("accuracy", "low", "high"):
        bad = rows.loc[~rows[name].between(0, 1), name]
        if len(bad):
            raise ValueError(f"results: {name}={bad.iloc[0]}: expected a fraction in [0, 1]; divide percent "
                             "by 100")
    return rows
