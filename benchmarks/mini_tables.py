"""Measure the tables of results/mini: `python -m benchmarks.mini_tables domain_generalisation`.

    domain_generalisation   every method of notebook 07 on imagenet, v2, sketch, r and a
    promptsync_ablation     PromptSync* with every subset of its three losses, and with each part alone
    base_to_novel           what is learned on the base half of transfer sets, on both halves, three seeds
    maple_ablation          the same: MaPLe less deep, not coupled, prompts in one encoder

Every image is a record under --records, so a run that was stopped goes on, and several processes can share
the work: start one per core with other --datasets. For base to novel one with all of them comes last; it only
reads, and writes the table. Times in the tables are those of one such process.
"""

import argparse
import math
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch

import minipsync as mp
from minipsync.evaluation.prompts import learned
from minipsync.evaluation.protocols import SEEDS, average
from minipsync.evaluation.results import verdict
from minipsync.methods.ivlp import LANGUAGE_ONLY, VPT

from .choose_settings import SIXTY_WORDS, WORDS

OUT = Path(__file__).resolve().parent.parent / "results/mini"
METHODS = ("zero_shot", "maple", "maple_tpt", "promptalign", "promptsync_star", "promptsync")
LOSSES = ("entropy", "alignment", "discrimination")


def domain_generalisation(bench, data):
    """(label, method, test set) for every row."""
    for name in METHODS:
        yield name, bench.build(name, data), data


def promptsync_ablation(bench, data):
    for k in range(len(LOSSES) + 1):
        for on in combinations(LOSSES, k):
            if not on:
                yield "none (MaPLe)", bench.build("maple", data), data
            else:
                switches = {loss: loss in on for loss in LOSSES}
                yield " + ".join(on), bench.build("promptsync_star", data, **switches), data
    for part in ("text", "vision", "cls"):
        method = bench.build("promptsync_star", data, parts=(part,))
        yield f"all three, {part} prototypes only", method, data


# base to novel: label of a row, method and settings, trained as bench.settings says for RECIPES or "… .fit"
BASE_TO_NOVEL = {"zero_shot": ("zero_shot", {}), "coop": ("coop", WORDS),
                 "coop, 60 words": ("coop", SIXTY_WORDS),
                 "cocoop": ("cocoop", {}), "maple": ("maple", {}), "ivlp": ("ivlp", {})}
MAPLE_ABLATION = {"zero_shot": ("zero_shot", {}), "maple": ("maple", {}),
                  "maple, depth 2": ("maple", {"depth": 2}), "maple, depth 1": ("maple", {"depth": 1}),
                  "not coupled": ("ivlp", {"depth_text": 3, "depth_vision": 3}),
                  "text only": ("ivlp", LANGUAGE_ONLY), "vision only": ("ivlp", VPT)}
RECIPES = {"coop, 60 words": "coop.fit, 60 words"}
FEW_SHOT_SETS = ("animals", "vehicles", "signs")   # the other transfer sets: --datasets


# table: its rows, data sets, rows that the others are compared with on the same images, images of each set
TABLES = {"domain_generalisation": (domain_generalisation, ("imagenet", "v2", "sketch", "r", "a"),
                                    ("maple", "maple_tpt", "promptsync"), 400),
          "promptsync_ablation": (promptsync_ablation, ("sketch", "r"), ("none (MaPLe)",), 120),
          "base_to_novel": (BASE_TO_NOVEL, FEW_SHOT_SETS, ("zero_shot", "coop", "maple"), 0),
          "maple_ablation": (MAPLE_ABLATION, FEW_SHOT_SETS, ("zero_shot", "maple"), 0)}


def gaps(a: list[pd.DataFrame], b: list[pd.DataFrame]) -> pd.DataFrame:
    """Columns gap and label of the images that both have: a minus b, each the mean over its records (seeds)."""
    right = [pd.concat(x).groupby("image")["correct"].mean() for x in (a, b)]
    labels = pd.concat(a).groupby("image")["label"].first()
    return pd.DataFrame({"gap": right[0] - right[1], "label": labels}).dropna()


def differences(records: dict, references, averages: dict[str, list[str]]) -> pd.DataFrame:
    """Every row against each of `references`, on every data set and on averages that count data sets equally.

    records: {(label, data set): [records of each seed]}. averages: name -> data sets. An image is one
    observation, the mean of its seeds; classes are resampled, those that data sets share jointly; p is
    adjusted for all comparisons of the table (`adjusted`).
    """
    labels, sets = (list(dict.fromkeys(key[i] for key in records)) for i in (0, 1))
    shared = set(sets) <= SAME_CLASSES
    rows = []
    for reference, label in product(references, labels):
        found = {d: gaps(records[label, d], records[reference, d]) for d in sets
                 if label != reference and (label, d) in records and (reference, d) in records}
        for name, members in {**{d: [d] for d in found}, **averages}.items():
            parts = [found[d].assign(set="" if shared else d, weight=1 / len(found[d]))
                     for d in members if d in found]
            if len(parts) != len(members) or not parts:
                continue
            rows_of = pd.concat(parts)
            classes = rows_of["set"] + " " + rows_of["label"].astype(str)
            d = resampling.paired(rows_of["gap"], classes, rows_of["weight"])
            rows.append({"a": label, "b": reference, "dataset": name, "n": len(rows_of),
                         "classes": classes.nunique(), "difference": d.difference, "low": d.low,
                         "high": d.high, "p": d.p, "verdict": verdict(d.low, d.high)})
    return pd.DataFrame(adjusted(rows))


def write(path: Path, table: pd.DataFrame, keep=True) -> None:
    """Put the rows into the file at `path`; those of other data sets with the same CLIP stay if `keep`."""
    if keep and path.exists():
        old = pd.read_csv(path)
        old = old[(old.backbone == table.backbone[0]) & ~old.dataset.isin(table.dataset)]
        table = pd.concat([old, table])
    path.parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(path, index=False)
    print(f"written: {path.name}")


# ---- base to novel -----------------------------------------------------------------------------------
def halves(bench, name: str, split: str):
    """Base and novel half, with the names that `protocols.base_to_novel` gives them."""
    return [bench.dataset(f"{name}_{half}", split) for half in ("base", "novel")]


def few_shot(bench, variants: dict, each: str, args):
    """(label, training seed, Result) for both halves of the data set `each`; zero-shot has seed 0."""
    clip, (train, _), test = bench.clip(), halves(bench, each, "train"), halves(bench, each, "test")
    for label, (name, settings) in variants.items():
        for seed in (0,) if name == "zero_shot" else args.seeds:
            own = settings if name == "zero_shot" else {**settings, "seed": seed}
            method = mp.build(name, clip, train.class_names, **own)
            if method.recipe:
                recipe = bench.settings(RECIPES.get(label, f"{name}.fit"), each)
                learned(method, train, args.prompts, progress=False, **recipe)
            for half in test:
                method.set_class_names(half.class_names)
                yield label, seed, mp.evaluate(method, half, args.limit, args.records,
                                                  sample_seed=args.sample_seed,
                                               progress=False)


def measure_few_shot(bench, table: str, datasets, args) -> None:
    """Write `table` and its paired differences, if `datasets` has all of its data sets; print the averages
    over seeds and data sets."""
    variants, everything, references, _ = TABLES[table]
    common = {"backbone": bench.clip().fingerprint, "minipsync": mp.__version__,
              "torch": torch.__version__.split("+")[0]}
    rows, wide, results = [], [], []
    for each in datasets:
        for label, seed, result in few_shot(bench, variants, each, args):
            results.append((label, seed, result))
            rows.append({**result.row(), "method": label, "seed": seed, **common})
            print(f"{label}, seed {seed}: {result}", flush=True)
    for base, novel in zip(rows[::2], rows[1::2], strict=True):
        wide.append({"method": base["method"], "dataset": base["dataset"].removesuffix("_base"),
                     "seed": base["seed"], "n_base": base["n"], "base": base["accuracy"],
                     "n_novel": novel["n"], "novel": novel["accuracy"]})
    if set(datasets) >= set(everything):
        pairs = pd.concat([paired_over_seeds(results, reference) for reference in references])
        write(OUT / f"{table}_paired.csv", pairs.assign(**common).reset_index(drop=True), keep=False)
        write(OUT / f"{table}.csv", pd.DataFrame(rows), keep=False)
    means = average(pd.DataFrame(wide))
    print(means.loc[means["dataset"] == "average", ["method", "base", "novel", "hm"]].round(4).to_string())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", choices=TABLES)
    p.add_argument("--datasets", nargs="+", help="default: those of the table")
    p.add_argument("--limit", type=int, help="images per data set, 0 = all; default: that of the table")
    p.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of training, base to novel")
    p.add_argument("--prompts", type=Path, default=Path("build/prompts"), help="folder of what is trained")
    p.add_argument("--sample-seed", type=int, default=0, help="of the choice of images")
    p.add_argument("--records", type=Path, default=Path("build/records"))
    args = p.parse_args()
    variants, datasets, references, limit = TABLES[args.table]
    bench, rows, results = mp.benchmark("mini"), [], {}
    args.limit = (limit if args.limit is None else args.limit) or None
    if isinstance(variants, dict):
        return measure_few_shot(bench, args.table, args.datasets or datasets, args)
    for name in args.datasets or datasets:
        data = bench.dataset(name)
        for label, method, test_set in variants(bench, data):
            result = mp.evaluate(method, test_set, args.limit, args.records, sample_seed=args.sample_seed,
                                 progress=False)
            rows.append({**result.row(), "method": label, "backbone": method.clip.fingerprint,
                         "minipsync": mp.__version__, "torch": torch.__version__.split("+")[0]})
            results.setdefault(test_set.name, []).append((label, result))
            print(f"{label}: {result}", flush=True)
    write(OUT / f"{args.table}_paired.csv",
          all_pairs(results, references).assign(backbone=rows[0]["backbone"]))
    write(OUT / f"{args.table}.csv", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
