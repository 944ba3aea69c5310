"""The papers' three protocols, over any benchmark: base to novel, cross-dataset, domain generalisation.

    table = base_to_novel(bench, "coop", ["animals", "vehicles"], seeds=(1, 2, 3))
    average(table)                            # over seeds, then over data sets; H of the averages

Rules: METHODS 3.5 and 3.6. Prompts are learned once for each method, training set and seed (`learned`).
"""

import pandas as pd

from ..data.own import HALVES
from ..methods import REGISTRY, build, prompt_files
from ..methods.with_source import SourceMethod, find_or_prepare
from .evaluate import evaluate
from .prompts import learned
from .results import wilson

SEEDS = (1, 2, 3)
OOD = ("v2", "sketch", "a", "r")


def harmonic_mean(base, novel):
    """H = 2 B N / (B + N) of two accuracies (CoCoOp, arXiv:2203.05557, table 1); 0 where both are 0."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


# ---- protocols --------------------------------------------------------------------------------------
def base_to_novel(bench, name, datasets, seeds=SEEDS, *, folder=None, records=None, limit=None, recipe=None,
                  progress=True, **settings):
    """Learn on the base half of every data set, test on its base and on its novel half, each among its own
    classes only (METHODS 3.5): columns method, dataset, seed, n_base, base, n_novel, novel, hm.

    bench, name: a benchmark and what `build` calls the method; settings go to `build`, `recipe` to `fit`,
    where they replace the benchmark's own. A method that tunes at test time starts from the prompts that it
    accepts; what nothing is trained for has one row, seed 0, zero_shot with the data set's first template.
    folder: of prompts (see `learned`); records, limit: see `evaluate`. Accuracies are fractions.
    """
    clip, rows = bench.clip(), []
    for each in datasets:
        trained, own = _what_trains(name, clip, {**bench.settings(name, f"{each}_base"), **settings})
        halves = [bench.dataset(f"{each}_{half}") for half in HALVES]
        train = bench.dataset(f"{each}_base", "train") if trained else None
        first = {"template": halves[0].templates[0]} if name == "zero_shot" else {}
        for seed in seeds if trained else (0,):
            prompts = _trained(bench, trained, clip, train, seed, folder, recipe, progress, own)
            base, novel = (
                evaluate(_start_from(prompts, train, bench, name, clip, half, first | settings, folder), half,
                         limit, records, progress=progress) for half in halves)
            rows.append({"method": name, "dataset": each, "seed": seed, "n_base": base.n,
                         "base": base.accuracy, "n_novel": novel.n, "novel": novel.accuracy,
                         "hm": harmonic_mean(base.accuracy, novel.accuracy)})
    return pd.DataFrame(rows)


def from_source(bench, name, datasets=OOD, seeds=SEEDS, *, source="imagenet", folder=None, records=None,
                limit=None, recipe=None, progress=True, **settings):
    """Learn on `source`, test on other data sets with the learned context and their class names (METHODS
    3.6): columns method, dataset, seed, n, accuracy, low, high, ece.

    With v2, sketch, a and r it is domain generalisation, with the transfer sets cross-dataset transfer. The
    rest as in `base_to_novel`; a method that tunes at test time starts from the prompts that it accepts.
    """
    clip, rows = bench.clip(), []
    trained, own = _what_trains(name, clip, settings)
    train = bench.dataset(source, "train") if trained else None
    for seed in seeds if trained else (0,):
        prompts = _trained(bench, trained, clip, train, seed, folder, recipe, progress, own)
        for each in datasets:
            data = bench.dataset(each)
            method = _start_from(prompts, train, bench, name, clip, data, settings, folder)
            result = evaluate(method, data, limit, records, progress=progress)
            rows.append({**result.row(), "seed": seed})
    return pd.DataFrame(rows).drop(columns=["seconds_per_image", "skipped", "found", "left_out"])


def _trained(bench, name, clip, train, seed, folder, recipe, progress, settings):
    """The method `name` with prompts learned on `train`; None where nothing is to be learned."""
    if name is None:
        return None
    recipe = recipe or bench.settings(f"{name}.fit", train.name)
    return learned(build(name, clip, train.class_names, **settings, seed=seed), train, folder,
                   progress=progress, **recipe)


def _what_trains(name, clip, settings):
    """Name and settings of the method whose prompts `name` starts from: its own, another's, or (None, {})."""
    method = build(name, clip, ["thing"], **settings)
    for other in method.accepts:                           # promptalign can be fitted, as MaPLe is
        fields, c = REGISTRY[other].Config.__dataclass_fields__, method.config
        shape = {k: getattr(c, k) for k in ("n_ctx", "depth", "init") if hasattr(c, k)}
        if other == "ivlp":                                # which has settings of its own for each encoder
            shape |= {"n_text": c.n_ctx, "n_vision": c.n_ctx, "depth_text": c.depth, "depth_vision": c.depth}
        return other, {k: v for k, v in shape.items() if k in fields}
    return (None, {}) if method.recipe is None else (name, settings)


def _start_from(prompts, train, bench, name, clip, data, settings, folder):
    """The method for the classes of `data`, with the learned prompts if there are any; what it keeps of its
    source goes to `folder`, too, and is found there the next time."""
    if prompts is not None and prompts.name == name:
        return prompts.set_class_names(data.class_names)
    method = build(name, clip, data.class_names, **{**bench.settings(name, data.name), **settings})
    if prompts is None:
        return method
    prompt_files.hand_over(prompts, method)
    if isinstance(method, SourceMethod):
        find_or_prepare(method, train, folder)
    return method


# ---- averages ---------------------------------------------------------------------------------------
def average(table):
    """One row per method and data set, averaged over seeds, and one "average" over the data sets.

    Takes what `base_to_novel` or `from_source` gave, or several of them in one DataFrame. For each accuracy:
    its mean over seeds, `…_std`, the population standard deviation over seeds (Dassl's), and `…_low`,
    `…_high`, the 95 % Wilson interval for the n test images; hm is that of the averaged base and novel
    (METHODS 3.5). The average over data sets has no interval: `results.compare` is for that.
    """
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
    overall = means.groupby("method", sort=False)[list(columns)].mean().reset_index()
    counts = means.groupby("method", sort=False)[["seeds"]].min().reset_index(drop=True)
    both = pd.concat([means, pd.concat([overall, counts], axis=1).assign(dataset="average")])
    if "base" in columns:
        both["hm"] = [harmonic_mean(*pair) for pair in both[["base", "novel"]].to_numpy()]
    return both.sort_values("method", key=lambda names: names.map(list(means["method"]).index),
                            kind="stable").reset_index(drop=True)
