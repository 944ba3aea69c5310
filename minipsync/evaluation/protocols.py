"""The papers' three protocols, over any benchmark: base to novel, cross-dataset, domain generalisation.

    table = base_to_novel(bench, "coop", ["animals", "vehicles"], seeds=(1, 2, 3))
    average(table)                            # over seeds, then over data sets; H of the averages

The rules are in METHODS 3.5 and 3.6. Prompts are learned once for each method, training set and seed
(`prompts.learned`).
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..clip.encoders import Clip
from ..data.dataset import Dataset
from ..data.own import HALVES
from ..methods import REGISTRY, build, prompt_files
from ..methods.base import Method
from ..methods.with_source import SourceMethod, find_or_prepare
from .benchmark import Benchmark
from .evaluate import evaluate
from .prompts import learned

SEEDS = (1, 2, 3)
OOD = ("v2", "sketch", "a", "r")


def harmonic_mean(base: float, novel: float) -> float:
    """H = 2 B N / (B + N) of two accuracies (CoCoOp, arXiv:2203.05557, table 1); 0 where both are 0."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


# ---- protocols --------------------------------------------------------------------------------------
def base_to_novel(bench: Benchmark, name: str, datasets: Iterable[str], seeds: Iterable[int] = SEEDS, *,
                  folder: str | Path | None = None, records: str | Path | None = None,
                  limit: int | None = None, recipe: dict[str, Any] | None = None, progress: bool = True,
                  **settings: Any) -> pd.DataFrame:
    """Learn on the base half of every data set; test on its base and its novel half, each among its own
    classes only (METHODS 3.5). Columns: method, dataset, seed, hm, and n_base, base, base_low, base_high, so
    for novel.

    bench, name:    a benchmark, and what `build` calls the method
    folder:         of prompts, and of what a method keeps of its source (see `learned`)
    records, limit: see `evaluate`
    recipe:         settings of training in place of the benchmark's own
    settings:       of the method, before the benchmark's own

    A method that tunes at test time starts from prompts of the method that it accepts. A method that nothing
    is trained for has one row, seed 0; zero_shot takes the data set's first template. Accuracies are
    fractions."""
    rows = []
    for each in datasets:
        halves = [bench.dataset(f"{each}_{half}") for half in HALVES]
        first = {"template": halves[0].templates[0]} if name == "zero_shot" else {}
        for seed, start in _trained(bench, name, f"{each}_base", seeds, folder, recipe, progress, settings):
            found = {kind: evaluate(start(half, first), half, limit, records, progress=progress)
                     for kind, half in zip(HALVES, halves, strict=True)}
            row: dict[str, Any] = {"method": name, "dataset": each, "seed": seed}
            for kind, result in found.items():
                row |= {f"n_{kind}": result.n, kind: result.accuracy, f"{kind}_low": result.interval[0],
                        f"{kind}_high": result.interval[1]}
            rows.append(row | {"hm": harmonic_mean(row["base"], row["novel"])})
    return pd.DataFrame(rows)


def from_source(bench: Benchmark, name: str, datasets: Iterable[str] = OOD, seeds: Iterable[int] = SEEDS, *,
                source: str = "imagenet", folder: str | Path | None = None,
                records: str | Path | None = None, limit: int | None = None,
                recipe: dict[str, Any] | None = None, progress: bool = True, **settings: Any) -> pd.DataFrame:
    """Learn on `source`; test on other data sets with the learned context and their class names (METHODS
    3.6). Columns: method, dataset, seed, n, accuracy, low, high, ece.

    With v2, sketch, a and r this is domain generalisation, with the transfer sets cross-dataset transfer. The
    rest is as in `base_to_novel`."""
    rows = [evaluate(start(data, {}), data, limit, records, progress=progress).row() | {"seed": seed}
            for seed, start in _trained(bench, name, source, seeds, folder, recipe, progress, settings)
            for data in map(bench.dataset, datasets)]
    return pd.DataFrame(rows)[["method", "dataset", "seed", "n", "accuracy", "low", "high", "ece"]]


def _trained(bench: Benchmark, name: str, source: str, seeds: Iterable[int], folder: str | Path | None,
             recipe: dict[str, Any] | None, progress: bool, settings: dict[str, Any]
             ) -> Iterator[tuple[int, Callable[[Dataset, dict[str, Any]], Method]]]:
    """For each seed: it, and a function that makes the method for a data set, with prompts learned on the
    data set `source` and with `more` settings, which `settings` overrule."""
    clip = bench.own_clip
    trained, own = _what_trains(name, clip, bench.settings(name, source) | settings)

    def build_for(data: Dataset, more: dict[str, Any]) -> Method:
        return bench.build(name, data, load=False, **{**more, **settings})

    if trained is None:
        yield 0, build_for
        return
    train = bench.dataset(source, "train")
    recipe = recipe or bench.settings(f"{trained}.fit", train.name)
    for seed in seeds:
        prompts = learned(bench.build(trained, train, load=False, **own, seed=seed), train, folder,
                          progress=progress, **recipe)

        def start(data: Dataset, more: dict[str, Any], prompts: Method = prompts) -> Method:
            if trained == name:
                return prompts.set_class_names(data.class_names)
            method = build_for(data, more)
            prompt_files.hand_over(prompts, method)
            if isinstance(method, SourceMethod):
                find_or_prepare(method, train, folder)
            return method

        yield seed, start


def _what_trains(name: str, clip: Clip, settings: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Name and settings of the method whose prompts `name` starts from: its own, another's, or (None, {})."""
    kind = REGISTRY.get(name)
    if kind is not None and kind.recipe is None and not kind.accepts:
        return None, {}
    method = build(name, clip, ["thing"], **settings)
    for other in method.accepts:                           # promptalign can be fitted, as MaPLe is
        fields, c = REGISTRY[other].Config.model_fields, method.config
        shape = {k: getattr(c, k) for k in ("n_ctx", "depth", "init") if hasattr(c, k)}
        if other == "ivlp":                                # which has settings of its own for each encoder
            shape |= {"n_text": c.n_ctx, "n_vision": c.n_ctx, "depth_text": c.depth, "depth_vision": c.depth}
        return other, {k: v for k, v in shape.items() if k in fields}
    return (None, {}) if method.recipe is None else (name, settings)


# ---- averages ---------------------------------------------------------------------------------------
def average(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method and data set, averaged over seeds, and one "average" over the data sets.

    Takes what `base_to_novel` or `from_source` gave, or several of them in one DataFrame. Columns, for each
    accuracy: its mean over seeds; `…_std`, the population standard deviation over seeds (Dassl's); `…_low`
    and `…_high`, the mean of the seeds' 95 % intervals, than which that of a mean over seeds is no wider. hm
    is that of the averaged base and novel (METHODS 3.5). The average over data sets has no interval:
    `results.compare` is for that."""
    columns = {"base": "n_base", "novel": "n_novel"} if "base" in table else {"accuracy": "n"}
    rows = []
    for (method, dataset), part in table.groupby(["method", "dataset"], sort=False):
        row = {"method": method, "dataset": dataset, "seeds": len(part)}
        for value, count in columns.items():
            ends = ("low", "high") if value == "accuracy" else (f"{value}_low", f"{value}_high")
            row |= {value: float(part[value].mean()), f"{value}_std": float(part[value].std(ddof=0)),
                    f"{value}_low": float(part[ends[0]].mean()), f"{value}_high": float(part[ends[1]].mean()),
                    count: int(part[count].iloc[0])}
        rows.append(row)
    means = pd.DataFrame(rows)
    overall = means.groupby("method", sort=False).agg({"seeds": "min"} | dict.fromkeys(columns, "mean"))
    both = pd.concat([means, overall.reset_index().assign(dataset="average")])
    if "base" in columns:
        both["hm"] = [harmonic_mean(*pair) for pair in both[["base", "novel"]].to_numpy()]
    order = list(overall.index)
    return both.sort_values("method", key=lambda names: names.map(order.index), kind="stable",
                            ignore_index=True)
