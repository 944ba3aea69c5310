"""Measure the tables of results/mini: `python -m benchmarks.mini_tables domain_generalisation`.

    domain_generalisation   every method on imagenet, v2, sketch, r, a and c; seeds of prompts: see ONE_SEED
    long_tail               the same on long-tailed samples of v2, sketch and r (--seeds 1)
    cross_dataset           prompts of imagenet on the ten transfer sets (--seeds 1)
    pug                     prompts of imagenet on the ten sweeps of one factor each (--seeds 1)
    promptsync_ablation     PromptSync* with subsets of its three losses, and with each part alone (--seeds 1)
    promptsync_sources      PromptSync* with prototypes and source batches of other sources (--seeds 1)
    base_to_novel           what is learned on the base half of transfer sets, on both halves, three seeds
    maple_ablation          the same: MaPLe less deep, not coupled, prompts in one encoder

Every image is a record under --records, so a run that was stopped goes on, and several processes can share
the work: start one per core with other --rows, --datasets or --seeds. One with all of them comes last; it
only reads, and writes the table. Times in the tables are those of the processes that measured.
"""

import argparse
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import pandas as pd
import torch

import minipsync as mp
from minipsync.data.mini import PUG, TRANSFER
from minipsync.evaluation import resampling
from minipsync.evaluation.prompts import learned
from minipsync.evaluation.protocols import OOD, SEEDS
from minipsync.evaluation.results import verdict
from minipsync.methods.ivlp import LANGUAGE_ONLY, VPT
from minipsync.report.differences import adjusted

from .choose_settings import SIXTY_WORDS, WORDS

OUT = Path(__file__).resolve().parent.parent / "results/mini"
LOSSES = ("entropy", "alignment", "discrimination")
FEW_SHOT_SETS = ("animals", "vehicles", "signs", "instruments", "dishes")
ENTROPY_ALONE = "entropy with PromptSync's views"
LONG_TAILED = ("v2_longtail", "sketch_longtail", "r_longtail")      # a has too few pictures of its classes
PUGS = tuple(f"pug_{factor}" for factor in PUG)
SAME_CLASSES = {"imagenet", *OOD, "c", *LONG_TAILED}

# Several seeds of prompts: on the papers' shifted sets, and everywhere for what takes milliseconds an image.
# Of the slowest rows the first seed alone is measured.
CHEAP, ONE_SEED = ("coop", "maple", "nearest_mean", "tip_adapter"), ("promptsync", "tpt + coop")

# label of a row: method and settings. Prompts of imagenet, for each seed, where a method takes some
METHODS = {
    "zero_shot": ("zero_shot", {}), "coop": ("coop", WORDS), "maple": ("maple", {}), "tpt": ("tpt", {}),
    "tpt + coop": ("tpt", {"start": "coop"}), "maple_tpt": ("maple_tpt", {}),
    "promptalign": ("promptalign", {}), "promptsync_star": ("promptsync_star", {}),
    "promptsync": ("promptsync", {}),
    ENTROPY_ALONE: ("promptsync_star", {"alignment": False, "discrimination": False}),
    "confident_views": ("confident_views", {}), "nearest_mean": ("nearest_mean", {}),
    "tip_adapter": ("tip_adapter", {}), "ensemble of 80": ("zero_shot", {"ensemble": "80"})}
FROM_PICTURES = ("nearest_mean", "tip_adapter")           # of the source: features that are kept, not shipped
NO_PROMPTS = ("zero_shot", "confident_views")
TRANSFERRED = {label: METHODS[label] for label in (
    "zero_shot", "coop", "maple", "tpt", "maple_tpt", "promptalign", "promptsync_star")}
ABLATION = {"none (MaPLe)": ("maple", {})} | {
    " + ".join(on): ("promptsync_star", {loss: loss in on for loss in LOSSES})
    for k in (1, 2, 3) for on in combinations(LOSSES, k)} | {
    f"all three, {part} prototypes only": ("promptsync_star", {"parts": (part,)})
    for part in ("text", "vision", "cls")}
# the source of prototypes and source batches, where the prompts are always those of imagenet. val: the same
# classes by another hand; animals: 43 other classes
SOURCES = {"none (MaPLe)": ("maple", {}), ENTROPY_ALONE: METHODS[ENTROPY_ALONE],
           "imagenet, 16 a class": ("promptsync_star", {}),
           "imagenet, 1 a class": ("promptsync_star", {"shots": 1}),
           "val, 16 a class": ("promptsync_star", {}), "animals, 16 a class": ("promptsync_star", {})}
# trained on the base half, as bench.settings says for "METHOD.fit"
BASE_TO_NOVEL = {"zero_shot": ("zero_shot", {}), "coop": ("coop", WORDS),
                 "coop, 60 words": ("coop", SIXTY_WORDS),
                 "cocoop": ("cocoop", {}), "maple": ("maple", {}), "ivlp": ("ivlp", {})}
MAPLE_ABLATION = {"zero_shot": ("zero_shot", {}), "maple": ("maple", {}),
                  "maple, depth 2": ("maple", {"depth": 2}), "maple, depth 1": ("maple", {"depth": 1}),
                  "not coupled": ("ivlp", {"depth_text": 3, "depth_vision": 3}),
                  "text only": ("ivlp", LANGUAGE_ONLY), "vision only": ("ivlp", VPT)}
# table: its rows, data sets, the rows that all are compared with, images of each set (0: all)
TABLES = {
    "domain_generalisation": (METHODS, ("imagenet", *OOD, "c"),
                              ("zero_shot", "confident_views", "maple", "maple_tpt", ENTROPY_ALONE), 200),
    "long_tail": (METHODS, LONG_TAILED, ("zero_shot", "maple", ENTROPY_ALONE), 100),
    "cross_dataset": (TRANSFERRED, tuple(TRANSFER), ("zero_shot", "maple", "maple_tpt"), 60),
    "pug": (TRANSFERRED, PUGS, ("zero_shot", "maple", "maple_tpt"), 60),
    "promptsync_ablation": (ABLATION, ("sketch", "r"), ("none (MaPLe)",), 60),
    "promptsync_sources": (SOURCES, ("v2", "r"),
                           ("none (MaPLe)", ENTROPY_ALONE, "imagenet, 16 a class"), 100),
    "base_to_novel": (BASE_TO_NOVEL, FEW_SHOT_SETS, ("zero_shot", "coop", "maple"), 0),
    "maple_ablation": (MAPLE_ABLATION, FEW_SHOT_SETS, ("zero_shot", "maple"), 0)}
AVERAGES = {"domain_generalisation": {"ood_average": list(OOD)},
            "long_tail": {"average": list(LONG_TAILED)}, "promptsync_sources": {"average": ["v2", "r"]},
            "cross_dataset": {"average": list(TRANSFER)}, "pug": {"average": list(PUGS)}}


def from_source(bench, variants: dict, names, args) -> Iterator:
    """(label, seed of the prompts, Result) on test sets; what takes no prompts has the seed 0 alone."""
    train = bench.dataset("imagenet", "train")
    for each in names:
        stem = each.removesuffix("_longtail")
        data = bench.dataset(stem) if stem == each else bench.long_tailed(stem, args.limit)
        for label, (name, settings) in variants.items():
            alone = name in NO_PROMPTS or (name == "tpt" and "start" not in settings)
            seeds = args.seeds if stem in OOD and label not in ONE_SEED or label in CHEAP else args.seeds[:1]
            for seed in (0,) if alone else seeds:
                if name in FROM_PICTURES:
                    method = bench.build(name, data, load=False, seed=seed, **settings)
                    learned(method, train, args.prompts, progress=False)
                else:
                    prompts = {} if alone else {"prompt_seed": seed}
                    method = bench.build(name, data, source=args.source, **prompts, **settings)
                limit = args.limit if stem == each else None
                yield label, seed, mp.evaluate(method, data, limit, args.records, progress=False)


def other_sources(bench, variants: dict, names, args) -> Iterator:
    """The same with prototypes and source batches of the source that a label begins with."""
    sources = {"val": bench.dataset("val", scenes=16), "animals": bench.dataset("animals", "train")}
    found: dict = {}                               # what is known of a source does not depend on the test set
    for each in names:
        data = bench.dataset(each)
        for label, (name, settings) in variants.items():
            method = bench.build(name, data, source=args.source, prompt_seed=args.seeds[0], **settings)
            if (stem := label.split(",")[0]) in sources:
                found[stem] = method.prepare(sources[stem], found=found.get(stem), progress=False).source
            yield label, args.seeds[0], mp.evaluate(method, data, args.limit, args.records, progress=False)


def few_shot(bench, variants: dict, names, args) -> Iterator:
    """The same on both halves of transfer sets, of what is learned on the base half."""
    for each in names:
        train, *test = (bench.dataset(f"{each}_{half}", split) for half, split in (
            ("base", "train"), ("base", "test"), ("novel", "test")))
        for label, (name, settings) in variants.items():
            for seed in (0,) if name == "zero_shot" else args.seeds:
                own = settings if name == "zero_shot" else {**settings, "seed": seed}
                method = mp.build(name, bench.own_clip, train.class_names, **own)
                if method.recipe:
                    recipe = bench.settings(f"{name}.fit", train.name)
                    learned(method, train, args.prompts, progress=False, **recipe)
                for half in test:
                    method.set_class_names(half.class_names)
                    yield label, seed, mp.evaluate(method, half, args.limit, args.records, progress=False)


def averages_of(table: str, sets: list[str]) -> dict[str, list[str]]:
    """The averages of a table: the papers' four shifted sets; for halves, all base and all novel ones."""
    halves = {f"average_{half}": [d for d in sets if d.endswith(f"_{half}")] for half in ("base", "novel")}
    return AVERAGES.get(table, {name: members for name, members in halves.items() if members})


def gaps(a: dict[int, pd.DataFrame], b: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Columns gap (a minus b) and label, of the images that both have. a, b: records by the seed of prompts.

    Each is the mean over the seeds that both have; over all of its own where one of them takes no prompts."""
    both = a.keys() & b.keys()
    right = [pd.concat([x[seed] for seed in both or x]).groupby("image")["correct"].mean() for x in (a, b)]
    labels = pd.concat(a.values()).groupby("image")["label"].first()
    return pd.DataFrame({"gap": right[0] - right[1], "label": labels}).dropna()


def differences(records: dict, references, averages: dict[str, list[str]]) -> pd.DataFrame:
    """Every row against each of `references`, on every data set and on averages that count data sets equally.

    records: {(label, data set): {seed: records}}. averages: name -> data sets. An image is one
    observation, the mean of its seeds; classes are resampled, those that data sets share jointly. p is
    adjusted (`adjusted`) for all averages that are compared with one reference, which are what a table says,
    and by themselves for all single data sets.
    """
    labels, sets = (list(dict.fromkeys(key[i] for key in records)) for i in (0, 1))
    shared = set(sets) <= SAME_CLASSES or set(sets) <= set(PUGS)
    rows: dict[tuple[str, bool], list[dict]] = {}
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
            rows.setdefault((reference, name in averages), []).append({
                "a": label, "b": reference, "dataset": name, "n": len(rows_of), "classes": classes.nunique(),
                "difference": d.difference, "low": d.low, "high": d.high, "p": d.p,
                "verdict": verdict(d.low, d.high)})
    return pd.DataFrame([row for family in rows.values() for row in adjusted(family)])


def write(bench, name: str, table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Write a table and its differences to results/mini, with the CLIP and the versions that they are of."""
    facts = {"backbone": bench.own_clip.fingerprint, "minipsync": mp.__version__,
             "torch": torch.__version__.split("+")[0]}
    OUT.mkdir(parents=True, exist_ok=True)
    for file, rows in ((f"{name}.csv", table), (f"{name}_paired.csv", pairs)):
        rows.assign(**facts).round(4).to_csv(OUT / file, index=False)
        print(f"written: {file}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", choices=TABLES)
    p.add_argument("--datasets", nargs="+", help="default: those of the table")
    p.add_argument("--rows", nargs="+", help="labels of rows; default: all")
    p.add_argument("--limit", type=int, help="images per data set, 0 = all; default: that of the table")
    p.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of prompts")
    p.add_argument("--prompts", type=Path, default=Path("build/prompts"), help="folder of what is trained")
    p.add_argument("--source", type=Path, default=Path("build/source"), help="of statistics and prototypes")
    p.add_argument("--records", type=Path, default=Path("build/records"))
    args = p.parse_args()
    variants, names, references, limit = TABLES[args.table]
    args.limit = (limit if args.limit is None else args.limit) or None
    bench, rows, records = mp.benchmark("mini"), [], {}
    measure = {"base_to_novel": few_shot, "maple_ablation": few_shot,
               "promptsync_sources": other_sources}.get(args.table, from_source)
    wanted = {label: variants[label] for label in args.rows or variants}
    for label, seed, result in measure(bench, wanted, args.datasets or names, args):
        rows.append({**result.row(), "method": label, "seed": seed})
        records.setdefault((label, result.dataset), {})[seed] = result.records
        print(f"{label}, seed {seed}: {result}", flush=True)
    if args.rows or args.datasets:
        return
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    pairs = differences(records, references, averages_of(args.table, sets))
    write(bench, args.table, pd.DataFrame(rows), pairs)


if __name__ == "__main__":
    main()
