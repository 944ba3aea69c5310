"""The papers' three protocols, over any benchmark: base to novel, cross-dataset, domain generalisation.

    table = base_to_novel(bench, "coop", ["animals", "vehicles"], seeds=(1, 2, 3))
    average(table)                            # over seeds, then over data sets; H of the averages

The rules are in METHODS 3.5 and 3.6. Prompts are learned once for each method, training set and seed:
`learned` loads those that the package ships or that an earlier run kept, and trains only what is not there.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ..clip.encoders import Clip
from ..data.dataset import Dataset
from ..data.own import HALVES
from ..files.paths import expand
from ..methods import REGISTRY, build, prompt_files
from ..methods.base import Method
from ..settings import replace_settings
from ..training import learned_pictures
from .evaluate import evaluate
from .results import wilson

SEEDS = (1, 2, 3)
OOD = ("v2", "sketch", "a", "r")


def harmonic_mean(base: float, novel: float) -> float:
    """H = 2 B N / (B + N) of two accuracies (CoCoOp, arXiv:2203.05557, table 1); 0 where both are 0."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


# ---- prompts ----------------------------------------------------------------------------------------
def learned(method: Method, train_set: Dataset, folder: str | Path | None = None, *, progress: bool = True,
            **recipe: Any) -> Method:
    """`method` with prompts trained on `train_set`: loaded if this training was done before, else fitted.

    folder: where to keep prompts and look for them, beside those of the package; None: nothing is kept.
    recipe: fields of `TrainConfig` that differ from the paper's.
    A file's name stands for everything that training depends on (method, config, recipe, images, classes,
    backbone), so a changed setting trains anew. A run that was killed goes on from its checkpoint in
    `folder`. Returns `method`."""
    name = prompt_file(method, train_set, **recipe)
    for place in [folder, prompt_files.SHIPPED] if folder else [prompt_files.SHIPPED]:
        if (file := expand(place) / name).is_file():
            return method.load(file)
    checkpoint = expand(folder) / f"{name}.training" if folder else None
    method.fit(train_set, checkpoint=checkpoint, progress=progress, **recipe)
    if checkpoint is not None:
        method.save(checkpoint.with_suffix(""))
        checkpoint.unlink(missing_ok=True)
    return method


def prompt_file(method: Method, train_set: Dataset, **recipe: Any) -> str:
    """The file name of prompts of `method` trained on `train_set` with `recipe` (see `learned`)."""
    if method.recipe is None:
        raise TypeError(f"{method.name} is not trained; expected a method with a recipe, as coop or maple")
    clip: Any = method.clip
    config = replace_settings(method.recipe, {"seed": method.config.seed} | recipe, f"{method.name}.fit")
    free = ("workers", "cache_mb", "save_every")                  # these change no prompt
    facts = {"config": asdict(method.config), "backbone": clip.fingerprint,
             "precision": clip.precision, "classes": method.class_names,
             "recipe": {k: v for k, v in asdict(config).items() if k not in free},
             "images": [learned_pictures(train_set, config.shots, config.seed),
                        *map(train_set.image_id, range(len(train_set)))]}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
    shots = "all" if config.shots is None else config.shots
    name = re.sub(r"[^\w.-]+", "_", train_set.name)
    return f"{method.name}_{name}_{shots}shots_seed{config.seed}_{key}.safetensors"


# ---- protocols --------------------------------------------------------------------------------------
def base_to_novel(bench: Any, name: str, datasets: Iterable[str], seeds: Iterable[int] = SEEDS, *,
                  folder: str | Path | None = None, records: str | Path | None = None,
                  limit: int | None = None, recipe: dict[str, Any] | None = None, progress: bool = True,
                  **settings: Any) -> pd.DataFrame:
    """Learn on the base half of every data set; test on its base and its novel half, each among its own
    classes only (METHODS 3.5). Columns: method, dataset, seed, n_base, base, n_novel, novel, hm.

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
            base, novel = (evaluate(start(half, first), half, limit, records, progress=progress)
                           for half in halves)
            rows.append({"method": name, "dataset": each, "seed": seed, "n_base": base.n,
                         "base": base.accuracy, "n_novel": novel.n, "novel": novel.accuracy,
                         "hm": harmonic_mean(base.accuracy, novel.accuracy)})
    return pd.DataFrame(rows)


def from_source(bench: Any, name: str, datasets: Iterable[str] = OOD, seeds: Iterable[int] = SEEDS, *,
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


def _trained(bench: Any, name: str, source: str, seeds: Iterable[int], folder: str | Path | None,
             recipe: dict[str, Any] | None, progress: bool, settings: dict[str, Any]
             ) -> Iterator[tuple[int, Callable[[Dataset, dict[str, Any]], Method]]]:
    """For each seed: it, and a function that makes the method for a data set, with prompts learned on the
    data set `source` and with some more settings of least weight."""
    clip = bench.clip()
    trained, own = _what_trains(name, clip, bench.settings(name, source) | settings)

    def build_for(data: Dataset, more: dict[str, Any]) -> Method:
        return build(name, clip, data.class_names, **{**bench.settings(name, data.name), **more, **settings})

    if trained is None:
        yield 0, build_for
        return
    train = bench.dataset(source, "train")
    recipe = recipe or bench.settings(f"{trained}.fit", train.name)
    for seed in seeds:
        prompts = learned(build(trained, clip, train.class_names, **own, seed=seed), train, folder,
                          progress=progress, **recipe)

        def start(data: Dataset, more: dict[str, Any], prompts: Method = prompts) -> Method:
            if trained == name:
                return prompts.set_class_names(data.class_names)
            method = prompt_files.hand_over(prompts, build_for(data, more))
            if method.keeps:
                method.use_source(folder, train)
                if folder and method.find_source(folder) is None:    # not there yet, nor in the package
                    getattr(method, method.keeps).keep(folder)
            return method

        yield seed, start


def _what_trains(name: str, clip: Clip, settings: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Name and settings of the method whose prompts `name` starts from: its own, another's, or (None, {})."""
    kind = REGISTRY.get(name)
    if kind is not None and kind.recipe is None and not kind.accepts:
        return None, {}
    method = build(name, clip, ["thing"], **settings)
    for other in method.accepts:                           # promptalign can be fitted, as MaPLe is
        fields, c = vars(REGISTRY[other].Config()), method.config
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
    and `…_high`, the 95 % Wilson interval of the mean for the n test images. hm is that of the averaged base
    and novel (METHODS 3.5). The average over data sets has no interval: `results.compare` is for that."""
    columns = {"base": "n_base", "novel": "n_novel"} if "base" in table else {"accuracy": "n"}
    rows = []
    for (method, dataset), part in table.groupby(["method", "dataset"], sort=False):
        row = {"method": method, "dataset": dataset, "seeds": len(part)}
        for value, count in columns.items():
            n, mean = int(part[count].iloc[0]), float(part[value].mean())
            low, high = wilson(mean * n, n)
            row |= {value: mean, f"{value}_std": float(part[value].std(ddof=0)), f"{value}_low": low,
                    f"{value}_high": high, count: n}
        rows.append(row)
    means = pd.DataFrame(rows)
    overall = means.groupby("method", sort=False).agg({"seeds": "min"} | dict.fromkeys(columns, "mean"))
    both = pd.concat([means, overall.reset_index().assign(dataset="average")])
    if "base" in columns:
        both["hm"] = [harmonic_mean(*pair) for pair in both[["base", "novel"]].to_numpy()]
    order = list(overall.index)
    return both.sort_values("method", key=lambda names: names.map(order.index), kind="stable",
                            ignore_index=True)
