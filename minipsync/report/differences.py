"""Tables of what differs: settings of a method, time per image, every pair of methods on the same images."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..data.own import HALVES
from ..evaluation import resampling
from ..evaluation.record_format import as_json
from ..evaluation.results import NOT_TOLD_APART, Result, verdict
from .published import mean, published, split_label
from .runs import Group, Rows, Run, as_text, defaults, group_runs

ONLY = {"ablation": None, "steps": "steps", "views": "n_views"}         # the setting that a table is about
LOSSES = {"entropy + alignment": {}, "entropy": {"weight": 0}, "alignment": {"entropy": False}}
PERCENT = ("accuracy", "std", "low", "high", "difference", "diff_low", "diff_high")


def ablation(name: str, runs: list[Run], benchmark: str, notes: list[str]) -> pd.DataFrame | None:
    """A row for each setting, and what it gains over the default one, or over the first."""
    only, rows = ONLY[name], []
    families: dict[str, list[Group]] = {}
    for g in group_runs(runs, notes):
        if only is None or only in g.settings:
            rest = {k: v for k, v in g.settings.items() if k != only} if only else {}
            families.setdefault(as_json([g.method, g.dataset, rest]), []).append(g)
    fields: dict[str, None] = {}
    for family in families.values():
        if len(family) == 1:
            continue
        first, varied = family[0], (only,) if only else family[0].differ
        fields |= dict.fromkeys(varied)
        default = defaults(first.method, first.runs[0].about["dataset"],
                           "mini" if benchmark == "mini" else "full")
        reference = next((g for g in family if all(as_json(g.settings.get(f)) == as_json(default[f])
                                                   for f in varied if f in default)), first)
        for g in family:
            gain = {"verdict": "reference"} if g is reference else _difference([(g, reference)]) or {}
            rows.append(g.row() | {f: _cell(g.settings.get(f)) for f in varied} | {
                "method": g.label(but=only) if only else g.method, "difference": gain.get("difference"),
                "diff_low": gain.get("low"), "diff_high": gain.get("high"), "p": gain.get("p"),
                "verdict": gain.get("verdict", ""),
                "published": _printed_ablation(g) if benchmark == "full" else None})
    printed = ["published"] * any(row["published"] is not None for row in rows)
    return _plain(adjusted(rows), benchmark, [
        "method", "dataset", *fields, *printed, "accuracy", "std", "low", "high", "n", "of", "seeds",
        "difference", "diff_low", "diff_high", "p", "p_holm", "verdict"])


def _printed_ablation(group: Group) -> float | None:
    """The printed accuracy (percent) of PromptAlign with these of its losses, or None."""
    if (group.method, group.dataset, group.facts.get("model")) != ("promptalign", "a", "ViT-B-16/openai"):
        return None
    losses = next((name for name, settings in LOSSES.items() if group.unusual() == settings), None)
    rows = published("promptalign_ablation")
    return next(iter(rows.loc[rows["method"] == losses, "value"]), None)


def _cell(value: object) -> object:
    return value if isinstance(value, (int, float)) else as_text(value)


def latency(_: str, runs: list[Run], benchmark: str, notes: list[str]) -> pd.DataFrame | None:
    """Mean time in `predict` over the images, and over seeds; on whatever machine made the records."""
    rows = [g.row() | {"ms_per_image": 1000 * mean(*(run.result.seconds_per_image for run in g.runs))}
            for g in group_runs(runs, notes)]
    return _plain(rows, benchmark, ["method", "dataset", "ms_per_image", "n", "of", "seeds"])


def paired(_: str, runs: list[Run], benchmark: str, notes: list[str]) -> pd.DataFrame | None:
    """Every pair of settings on each data set, and pooled; halves of data sets are pooled apart."""
    groups = {(g.label(), g.dataset): g for g in group_runs(runs, notes)}
    labels, names = (dict.fromkeys(key[i] for key in groups) for i in (0, 1))
    rows: Rows = []
    for b, a in combinations(labels, 2):
        pairs = {d: (groups[a, d], groups[b, d]) for d in sorted(names)
                 if (a, d) in groups and (b, d) in groups}
        found = {d: _difference([pair]) for d, pair in pairs.items()}
        notes += [f"{a} and {b} on {d}: no image, or not the class list, in common"
                  for d in found if not found[d]]
        for half in ("", *HALVES):                        # a half is part of its set: never both in one pool
            shared = [d for d in pairs if found[d] and half == split_label(d)[1]]
            if len(shared) > 1:
                name = f"pooled {half} ({len(shared)})" if half else f"pooled ({len(shared)})"
                found[name] = _difference([pairs[d] for d in shared])
        rows += [row | {"a": a, "b": b, "dataset": d} for d, row in found.items() if row]
    return _plain(adjusted(rows), benchmark, ["a", "b", "dataset", "n", "classes", "difference", "low",
                                              "high", "p", "p_holm", "verdict", "seeds_a", "seeds_b"])


def adjusted(rows: Rows) -> Rows:
    """Rows with `p_holm`: p adjusted for all the comparisons of the table. What is not below 0.05 then is not
    told apart, whatever its own interval. A row without p is no comparison."""
    known = [row for row in rows if row["p"] is not None]
    for row, p in zip(known, resampling.holm([row["p"] for row in known]), strict=True):
        row["p_holm"] = p
        if p >= resampling.LEVEL and row["verdict"] in ("better", "worse"):
            row["verdict"] = NOT_TOLD_APART
    return rows


def observations(results: Sequence[Result], class_names: Sequence[str] = ()) -> pd.DataFrame:
    """Columns right and class, a line for each image that all of `results` have: one method, a seed each.

    An image is one observation, the mean of its seeds, so that three seeds do not make three images of it.
    class_names: of the data set, where its classes are to be one with those of other sets by name, not by
    number. Raises ValueError for no result."""
    if not results:
        raise ValueError("there is no result; expected at least one seed")
    right = [r.records.set_index("image")["correct"].astype(float) for r in results]
    found = pd.concat(right, axis=1, join="inner").mean(axis=1)
    labels = results[0].records.set_index("image")["label"]
    names = dict(enumerate(class_names)) if len(class_names) else {label: label for label in labels}
    return pd.DataFrame({"right": found, "class": labels.reindex(found.index).map(names)})


class Difference(NamedTuple):
    """One method minus another on n images of so many classes: fractions, with the 95 % interval and p."""

    n: int
    classes: int
    difference: float
    low: float
    high: float
    p: float
    verdict: str


def difference(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], equally: bool = False
               ) -> Difference | None:
    """The first minus the second of each pair of `observations`, over all images that both have.

    equally: whether all pairs weigh the same; else all images do. Classes are resampled; those of one name in
    several pairs are one class each. None where a pair has no image in common."""
    gaps = [(a["right"] - b["right"]).dropna() for a, b in pairs]
    if not all(map(len, gaps)):
        return None
    classes = pd.concat([a["class"].reindex(gap.index) for gap, (a, _) in zip(gaps, pairs, strict=True)])
    weights = np.concatenate([np.full(len(gap), 1 / len(gap) if equally else 1.0) for gap in gaps])
    mean, low, high, p = resampling.paired(pd.concat(gaps).to_numpy(), classes.to_numpy(), weights)
    return Difference(len(classes), classes.nunique(), mean, low, high, p, verdict(low, high))


def pooled(a: Mapping[str, Sequence[Result]], b: Mapping[str, Sequence[Result]],
           class_names: Mapping[str, Sequence[str]]) -> Difference:
    """a minus b over several data sets: every data set weighs the same, and so does every image of one.

    a, b:        {data set: its results, one for each seed}
    class_names: {data set: names of its classes}; classes of one name are one class, as in `v2` and `sketch`

    Raises ValueError where a and b are not of the same data sets, or not of the same images.
    """
    if set(a) != set(b):
        raise ValueError(f"a is of {', '.join(a)} and b of {', '.join(b)}; expected the same data sets")
    return _whole({name: (observations(own, class_names[name]), observations(b[name], class_names[name]))
                   for name, own in a.items()})


def minus(a: Sequence[Result], b: Sequence[Result]) -> Difference:
    """a minus b, two methods on one data set, a result for each seed; ValueError for different images."""
    return _whole({f"{a[0].method} minus {b[0].method}": (observations(a), observations(b))})


def _whole(pairs: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Difference:
    """`difference` of pairs that must be of the same images, each pair with the same weight."""
    for name, (first, second) in pairs.items():
        if set(first.index) != set(second.index):
            raise ValueError(f"{name}: results of different images; evaluate both with one limit and "
                             "sample_seed")
    found = difference(list(pairs.values()), equally=True)
    if found is None:
        raise ValueError(f"{', '.join(pairs)}: no image; expected at least one")
    return found


def _difference(pairs: Sequence[tuple[Group, Group]]) -> dict[str, Any] | None:
    """`difference` of groups as a row of a table; None, too, where two groups have not one class list."""
    if any(a.settings["classes"] != b.settings["classes"] for a, b in pairs):
        return None
    found = difference([(a.observations(), b.observations()) for a, b in pairs])
    counts = {f"seeds_{side}": min(len(pair[i].runs) for pair in pairs) for i, side in enumerate("ab")}
    return found._asdict() | counts if found else None


def _plain(rows: Rows, benchmark: str, columns: list[str]) -> pd.DataFrame | None:
    """A table without printed numbers: fractions become percent, data sets of mini say so."""
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    kinds = {"integer": "Int64", "floating": float, "mixed-integer-float": float, "empty": float}
    for name in columns:                                  # whole numbers stay whole where some are absent
        table[name] = table[name].astype(kinds.get(pd.api.types.infer_dtype(table[name]), object))
        if name in PERCENT:
            table[name] = 100 * table[name]
    if benchmark == "mini":
        table["dataset"] = "mini " + table["dataset"]
    return table
