"""Published numbers, ours beside them, and tables as text, Markdown, CSV and LaTeX.

    published("domain_generalisation")                        # method, dataset, value in percent, source
    side_by_side(results, "domain_generalisation", "full")    # published | ours, 95 % interval, n, verdict
    to_markdown(side_by_side(results, "domain_generalisation", "mini"))

minipsync/report/published/*.csv holds every number that was seen in print, with where. A misprint has status
"typo": it is kept so that nobody takes it for a number, hidden unless asked for, and never compared with.
"""

import math
from functools import cache
from importlib import resources
from itertools import product

import pandas as pd

from ..clip.encoders import load_clip
from ..evaluation.protocols import OOD

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
PRINTED = {"zero_shot": "CLIP", "coop": "CoOp", "cocoop": "CoCoOp", "maple": "MaPLe", "ivlp": "IVLP",
           "tpt": "TPT", "maple_tpt": "MaPLe+TPT", "promptalign": "PromptAlign", "promptsync": "PromptSync",
           "promptsync_star": "PromptSync*"}
NEEDED = ["method", "dataset", "accuracy", "low", "high", "n"]
COLUMNS = ["method", "dataset", "published", "ours", "low", "high", "n", "verdict"]


# ---- published numbers ------------------------------------------------------------------------------
def published(table=None, typos=False) -> pd.DataFrame:
    """What was printed: columns table, method, dataset, value (percent), source, note, status.

    table: one of TABLES, or None for all; typos: show the rows with status "typo" too. Data sets have our
    names; "ood_average" is the mean of v2, sketch, a and r, "average" that of the row's data sets, "…_hm" the
    harmonic mean of base and novel. Raises ValueError for an unknown table, with the list of good ones."""
    rows = _published()
    if table is not None:
        if table not in TABLES:
            raise ValueError(f"unknown table {table!r}, expected one of: {', '.join(TABLES)}")
        rows = rows[rows["table"] == table]
    return rows[typos | (rows["status"] != "typo")].reset_index(drop=True)


@cache
def _published():
    """All rows of minipsync/report/published/*.csv, in the order of TABLES."""
    files = sorted((f for f in resources.files(__package__).joinpath("published").iterdir()
                    if f.name.endswith(".csv")), key=lambda f: f.name)
    parts = [pd.read_csv(f.open(encoding="utf-8"), keep_default_na=False) for f in files]
    rows = pd.concat(parts).astype({"value": float})
    return rows.sort_values("table", key=lambda names: names.map(list(TABLES).index), kind="stable")


# ---- ours beside them -------------------------------------------------------------------------------
def side_by_side(results, table, benchmark=None) -> pd.DataFrame:
    """The published table with our results: columns method, dataset, published, ours, low, high, n, verdict.

    results:   a `Result`, a list of them, or a DataFrame with method (our name or the printed one), dataset,
               accuracy, low, high (fractions) and n, as in results/mini/*.csv; one row per method and dataset
    benchmark: "full" puts ours beside the published value of the same data set; "mini" keeps ours in rows of
               their own, labelled "mini …": a mini number has no published one

    published, ours, low and high are percent, low and high a 95 % interval. verdict: "tie" where the
    published value lies in our interval, else "higher" or "lower" (ours). An average is added where we have
    all its parts: the mean of their accuracies, its interval by MOVER (Zou and Donner, Statistics in Medicine
    27, 2008). Raises ValueError for results that do not belong in the table."""
    good = [name for name in TABLES if not name.startswith("claimed")]
    if table not in good:
        raise ValueError(f"table={table!r}: expected a table of accuracies, one of: {', '.join(good)}")
    ours, targets = _ours(results, benchmark), published(table)
    targets = targets[["method", "dataset", "value"]].rename(columns={"value": "published"})
    ours = pd.concat([ours, *_averages(ours, targets["dataset"].unique())], ignore_index=True)
    if benchmark == "mini":
        ours["dataset"] = "mini " + ours["dataset"]
    both = targets.merge(ours, on=["method", "dataset"], how="outer", indicator="from")
    if benchmark == "full" and "both" not in set(both["from"]):
        have, want = (" on ".join(", ".join(rows[name].unique()) for name in ("method", "dataset"))
                      for rows in (ours, targets))
        raise ValueError(f"no result belongs in table {table!r}: got {have}; expected some of {want}")
    both["verdict"] = [_verdict(*row) for row in both[["published", "low", "high"]].to_numpy(dtype=float)]
    both["n"] = both["n"].astype("Int64")
    for name in ("dataset", "method"):                    # as printed; what only we have comes last
        order = pd.unique(pd.concat([targets[name], ours[name]])).tolist()
        both = both.sort_values(name, key=lambda names, order=order: names.map(order.index), kind="stable")
    return both[COLUMNS].reset_index(drop=True)


def _ours(results, benchmark):
    """Our rows: method as printed, dataset, ours, low, high in percent, n; every reason to refuse them."""
    if benchmark not in ("full", "mini"):
        raise ValueError(f'benchmark={benchmark!r}: expected "full", where the results were measured on the '
                         'papers\' data sets, or "mini", which never stands in their columns')
    if not isinstance(results, pd.DataFrame):
        results = pd.DataFrame([r.row() for r in (results if isinstance(results, list) else [results])])
    lacking = [name for name in NEEDED if name not in results]
    if lacking or results.empty:
        raise ValueError(f"results: expected rows with {', '.join(NEEDED)}; "
                         + (f"{', '.join(lacking)} missing" if lacking else "there are none"))
    measured_on = set(results["benchmark"]) if "benchmark" in results else set()
    if "backbone" in results and (results["backbone"] == load_clip("mini").fingerprint).any():
        measured_on.add("mini")
    if measured_on - {benchmark}:
        raise ValueError(f"benchmark={benchmark!r}, but the results say {', '.join(sorted(measured_on))}; "
                         "mini numbers never stand in a column of the papers' data sets: pass the results of "
                         "one benchmark, under its own name")
    rows = results[NEEDED].rename(columns={"accuracy": "ours"}).reset_index(drop=True)
    rows["method"] = rows["method"].map(lambda name: PRINTED.get(name, name))
    twice = rows[rows.duplicated(["method", "dataset"])]
    if len(twice):
        raise ValueError(f"results: {twice['method'].iloc[0]} on {twice['dataset'].iloc[0]} comes more than "
                         "once; expected one row each: choose one seed and setting, or pool them first")
    for name in ("ours", "low", "high"):
        bad = rows.loc[~rows[name].between(0, 1), name]
        if len(bad):
            raise ValueError(f"results: {'accuracy' if name == 'ours' else name}={bad.iloc[0]}: expected a "
                             "fraction in [0, 1]; divide percent by 100")
        rows[name] = 100.0 * rows[name]
    return rows


def _averages(ours, names):
    """Rows for the averages among the data sets `names`, for every method that has all the parts."""
    parts = {"ood_average": list(OOD), "average": [name for name in names if not name.endswith("average")]}
    for average, method in product([name for name in names if name in parts], ours["method"].unique()):
        rows = ours[ours["method"] == method].set_index("dataset")
        if average not in rows.index and set(parts[average]) <= set(rows.index):
            rows = rows.loc[parts[average]]
            mean, k = rows["ours"].mean(), len(rows)
            down, up = (math.sqrt(((rows["ours"] - rows[end]) ** 2).sum()) / k for end in ("low", "high"))
            yield pd.DataFrame([{"method": method, "dataset": average, "ours": mean, "low": mean - down,
                                 "high": mean + up, "n": rows["n"].sum()}])


def _verdict(value, low, high):
    if math.isnan(value) or math.isnan(low):
        return ""
    return "tie" if low <= value <= high else "higher" if low > value else "lower"
