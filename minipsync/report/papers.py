"""The papers' tables from record files: what `evaluate` left on disk, averaged over seeds, compared.

    runs = load_runs("results/records")
    print(to_markdown(report("domain_generalisation", runs, "mini")))

A row stands for one setting of a method on one data set (see runs.py). Accuracies are percent, differences
are points, intervals are of 95 %.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from ..data.mini import TRANSFER
from ..data.own import HALVES, split_half
from ..evaluation.protocols import OOD, harmonic_mean
from ..evaluation.record_format import as_json
from ..settings import did_you_mean
from .differences import ablation, latency, paired
from .published import PRINTED, beside, joined, mean, printed_averages, published, split_label
from .runs import Group, Rows, Run, group_runs, load_runs, spread

__all__ = ["TABLES", "Run", "load_runs", "report"]

TABLES = {
    "domain_generalisation": "imagenet and its shifted relatives v2, sketch, a, r",
    "pug": "PUG-ImageNet: the data sets pug_…",
    "cross_dataset": "prompts from ImageNet on the ten transfer sets",
    "base_to_novel": "the data sets …_base and …_novel: base, novel and their harmonic mean",
    "ablation": "methods in two or more settings on one data set",
    "steps": "runs that differ in steps alone",
    "views": "runs that differ in n_views alone",
    "latency": "time per image by method and data set",
    "paired": "every pair of methods on the same images, and pooled over data sets",
}
# Rows that were printed for settings other than the method's own; and our own settings that nobody printed.
AS_PRINTED = {"CoOp": ("coop", {"n_ctx": 4, "init": "a photo of a"}), "TPT+CoOp": ("tpt", {"start": "coop"}),
              "TPT+CoCoOp": ("tpt", {"start": "cocoop"})}
NOT_PRINTED = {"coop": "coop [n_ctx=16]"}
BACKBONES = {"RN50/openai": {"domain_generalisation": "tpt_rn50", "cross_dataset": "cross_dataset_rn50"}}


def report(name: str, runs: Sequence[Run], benchmark: str) -> pd.DataFrame:
    """The table `name`, one of TABLES, from those of `runs` (see `load_runs`) that belong to a benchmark.

    benchmark: "mini", "full", or "own": data of one's own.

    Runs that differ only in the seed of their prompts are averaged. Column `seeds` has their number, std is
    the population's over them, and the interval resamples classes (evaluation/resampling.py); `of` is the
    number of images that were asked for. Settings that are not the method's own stand in its name (runs.py),
    and so does a CLIP that is not OpenAI's ViT-B/16. A printed number stands beside runs with its settings,
    CLIP and data set, or a sample of it. Data sets of mini are labelled "mini …".

    attrs["left_out"] says what was left out: runs of other benchmarks, records without counterpart, pictures
    that a data set is without or that could not be read; "" if nothing was. Raises ValueError for an unknown
    table or benchmark, and where no run belongs in it."""
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}, expected one of: {', '.join(TABLES)}."
                         f"{did_you_mean(name, TABLES)}")
    if benchmark not in ("mini", "full", "own"):
        raise ValueError(f'benchmark={benchmark!r}: expected "mini", "full" or "own"')
    own, notes = [run for run in runs if run.benchmark == benchmark], []
    if others := len(runs) - len(own):
        notes.append(f"{others} run(s) of other benchmarks than {benchmark}")
    table = MAKERS[name](name, own, benchmark, notes)
    if table is None:
        there: dict[str, set[str]] = {}
        for run in own:
            there.setdefault(run.method, set()).add(run.dataset)
        said = "; ".join(f"{method} on {', '.join(sorted(sets))}" for method, sets in there.items())
        raise ValueError(f"no run belongs in table {name!r} ({TABLES[name]}) of the {benchmark} benchmark; "
                         f"there is {said or 'no run of it'}"
                         + (f"; left out: {'; '.join(notes)}" if notes else ""))
    table.attrs["left_out"] = "; ".join(notes)
    return table


# ---- accuracies beside the printed ones -------------------------------------------------------------
def _accuracies(name: str, runs: list[Run], benchmark: str, notes: list[str]) -> pd.DataFrame | None:
    wanted = [d for d in published(name)["dataset"].unique() if not d.endswith("average")]
    averages = {"average": wanted}
    if name == "domain_generalisation":
        wanted, averages = ["imagenet", *OOD], {"ood_average": list(OOD)}
    elif name == "cross_dataset" and benchmark == "mini":
        wanted, averages = list(TRANSFER), {"average": list(TRANSFER)}
    here = [run for run in runs if run.dataset.removesuffix(" (partial)") in wanted]
    found = [run for run in here if run.facts.get("trained_on") in (None, "", "imagenet")]
    if others := len(here) - len(found):
        notes.append(f"{others} run(s) with prompts that were not learned on imagenet")
    tables: dict[str, Rows] = {}
    for g in group_runs(found, notes):
        row, table = _named(g, name, benchmark)
        tables.setdefault(table, []).append(row)
    made = []
    for table in sorted(tables, key=lambda table: not table.endswith("_list")):
        more = averages if benchmark == "mini" else averages | printed_averages(table)
        part = _beside(tables[table], table, benchmark, more)
        made.append(part[part["dataset"] == "imagenet"] if table.endswith("_list") else part)
    return pd.concat(made, ignore_index=True) if made else None


def _named(group: Group, table: str, benchmark: str) -> tuple[dict[str, Any], str]:
    """The group's row, named as a paper's row of the same setting, and the table that has such rows."""
    row, unusual = group.row(), group.unusual()
    if not unusual:
        row["method"] = NOT_PRINTED.get(row["method"], row["method"])
    for name, (method, settings) in AS_PRINTED.items():
        if method == group.method and unusual == settings and not group.other_differences():
            row["method"] = name
    model = group.facts.get("model") or "CLIP unknown"
    if benchmark != "full":
        return row, table
    if model in BACKBONES and table in BACKBONES[model]:
        return row, BACKBONES[model][table]
    if model != "ViT-B-16/openai":
        row["method"] = f"{PRINTED.get(row['method'], row['method'])} ({model})"
    source = table == "domain_generalisation" and row["dataset"] == "imagenet"
    return row, f"{table}_list" if source else table       # ImageNet itself was printed in another list


def _beside(rows: Rows, table: str, benchmark: str, averages: dict[str, list[str]]) -> pd.DataFrame:
    both = beside(pd.DataFrame(rows), table, benchmark, averages).astype({"of": "Int64", "seeds": "Int64"})
    return both.assign(std=100 * both["std"])[["method", "dataset", "published", "ours", "std", "low", "high",
                                               "n", "of", "seeds", "verdict"]]


# ---- base to novel ----------------------------------------------------------------------------------
def _base_to_novel(_: str, runs: list[Run], benchmark: str, notes: list[str]) -> pd.DataFrame | None:
    here = [run for run in runs if split_label(run.dataset)[1]]
    own = [run for run in here
           if run.facts.get("trained_on") in (None, "", f"{split_half(run.about['dataset'])[0]}_base")]
    if others := len(here) - len(own):
        notes.append(f"{others} run(s) on a half with prompts that were not learned on its base half")
    halves: dict[tuple[str, str], dict[str, Group]] = {}
    for g in group_runs(own, notes):
        label = _named(g, "base_to_novel", benchmark)[0]["method"]
        stem, half = split_label(g.dataset)
        halves.setdefault((label, stem), {})[half] = g
    rows: Rows = []
    parts: dict[str, dict[str, Rows]] = {}
    for (label, stem), found in halves.items():
        if pair := _same_seeds(label, stem, [found.get(half) for half in HALVES], notes):
            each = [g.row() | {"method": label, "dataset": f"{stem}_{half}"}
                    for g, half in zip(pair, HALVES, strict=True)]
            parts.setdefault(label, {})[stem] = each
            per_seed = [harmonic_mean(*ab) for ab in zip(*(g.right.mean() for g in pair), strict=True)]
            both = joined(label, f"{stem}_hm", harmonic_mean, each)
            rows += [*each, both | {"std": spread(per_seed)}]
    complete = {"imagenet", *printed_averages("cross_dataset")["average"]}
    for label, stems in parts.items():
        if len(stems) > 1:                                # the printed averages are those of all 11
            whole = benchmark == "full" and set(stems) == complete
            name = "average" if whole else f"average of {len(stems)}"
            each = [joined(label, f"{name}_{half}", mean, part) for half, part in
                    zip(HALVES, zip(*stems.values(), strict=True), strict=True)]
            rows += [*each, joined(label, f"{name}_hm", harmonic_mean, each)]
    return _wide(rows, benchmark) if rows else None


def _same_seeds(label: str, stem: str, pair: list[Group | None], notes: list[str]) -> list[Group]:
    """Both halves with the seeds that both have, in one order; [] where there is none."""
    seeds = [{as_json([run.config.get("seed"), run.about.get("prompts")]): run for run in g.runs} if g else {}
             for g in pair]
    both = sorted(set(seeds[0]) & set(seeds[1]))
    if missing := sum(map(len, seeds)) - 2 * len(both):
        notes.append(f"{missing} run(s) of {label} on {stem}, without one of that seed on the other half")
    return [dataclasses.replace(g, runs=[own[k] for k in both], right=g.right[[own[k].key for k in both]])
            for g, own in zip(pair, seeds, strict=True) if g] if both else []


def _wide(rows: Rows, benchmark: str) -> pd.DataFrame:
    """One row for each method and data set: base, novel and hm beside each other."""
    tables: dict[str, Rows] = {"base_to_novel": [], "base_to_novel_imagenet": []}
    for row in rows:
        tables["base_to_novel" + "_imagenet" * row["dataset"].startswith("imagenet_")].append(row)
    long = pd.concat([_beside(part, name, benchmark, {}) for name, part in tables.items() if part],
                     ignore_index=True)
    long[["dataset", "half"]] = long["dataset"].str.rsplit("_", n=1, expand=True).to_numpy()
    order = long[["method", "dataset"]].drop_duplicates()
    wide = long.pivot(index=["method", "dataset"], columns="half").reindex(pd.MultiIndex.from_frame(order))
    halves = (*HALVES, "hm")
    columns = {"seeds": ("seeds", "base")}
    columns |= {name.format(half): (value, half) for half in halves
                for name, value in (("{}", "ours"), ("{}_std", "std"))}
    columns |= {f"{half}_published": ("published", half) for half in halves}
    columns |= {f"{half}_{end}": (end, half) for half in halves for end in ("low", "high")}
    columns |= {f"n_{half}": ("n", half) for half in HALVES}
    columns |= {f"{half}_verdict": ("verdict", half) for half in halves if benchmark == "full"}
    return pd.DataFrame({name: wide[column] for name, column in columns.items()}).reset_index()


MAKERS: dict[str, Callable[[str, list[Run], str, list[str]], pd.DataFrame | None]] = {
    "domain_generalisation": _accuracies, "pug": _accuracies, "cross_dataset": _accuracies,
    "base_to_novel": _base_to_novel, "ablation": ablation, "steps": ablation, "views": ablation,
    "latency": latency, "paired": paired}
