"""Measure the tables of results/mini: `python -m benchmarks.mini_tables domain_generalisation`.

    domain_generalisation   every method of notebook 07 on imagenet, v2, sketch, r and a
    promptsync_ablation     PromptSync* with every subset of its three losses, and with each part alone
    base_to_novel           zero-shot and 16-shot CoOp, learned on the base half of the classes

Every image is a record under --records, so a run that was stopped goes on, and several processes can share
the work: start one per core with other --datasets. Times in the tables are those of one such process.
"""

import argparse
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch

import minipsync as mp

OUT = Path(__file__).resolve().parent.parent / "results/mini"
METHODS = ("zero_shot", "maple", "maple_tpt", "promptalign", "promptsync_star", "promptsync")
LOSSES = ("entropy", "alignment", "discrimination")


def build(bench, name, data, **settings):
    """The method with the settings chosen for mini and the shipped prompts."""
    method = mp.build(name, bench.clip(), data.class_names, **{**bench.settings(name), **settings})
    return method if name == "zero_shot" else method.load()


def domain_generalisation(bench, data):
    """(label, method, test set) for every row."""
    for name in METHODS:
        yield name, build(bench, name, data), data


def promptsync_ablation(bench, data):
    for k in range(len(LOSSES) + 1):
        for on in combinations(LOSSES, k):
            if not on:
                yield "none (MaPLe)", build(bench, "maple", data), data
            else:
                switches = {loss: loss in on for loss in LOSSES}
                yield " + ".join(on), build(bench, "promptsync_star", data, **switches), data
    for part in ("text", "vision", "cls"):
        method = build(bench, "promptsync_star", data, parts=(part,))
        yield f"all three, {part} prototypes only", method, data


def base_to_novel(bench, data):
    halves = dict(zip(("base", "novel"), data.halves(), strict=True))
    train, _ = bench.dataset(data.name, "train").halves()
    coop = mp.build("coop", bench.clip(), train.class_names).fit(train)
    for name, half in halves.items():
        half.name = f"{data.name}_{name}"
        yield "zero_shot", mp.build("zero_shot", bench.clip(), half.class_names), half
        yield "coop", coop.set_class_names(half.class_names), half


# table: its rows, its data sets, and the row that the others are compared with on the same images
TABLES = {"domain_generalisation": (domain_generalisation, ("imagenet", "v2", "sketch", "r", "a"), "maple"),
          "promptsync_ablation": (promptsync_ablation, ("sketch", "r"), "none (MaPLe)"),
          "base_to_novel": (base_to_novel, ("animals", "vehicles", "clothing"), "zero_shot")}


def paired(results, reference: str) -> pd.DataFrame:
    """Every row against `reference`; results: (label, Result) of one or several data sets."""
    records = {}
    for label, result in results:
        records.setdefault(label, []).append(result.records)
    records = {label: pd.concat(parts) for label, parts in records.items()}
    return pd.DataFrame([{**mp.compare(records[label], records[reference]).row(), "a": label, "b": reference}
                         for label in records if label != reference])


def write(path: Path, table: pd.DataFrame) -> None:
    """Put the rows into the file at `path`; those of other data sets with the same mini CLIP stay."""
    if path.exists():
        old = pd.read_csv(path)
        old = old[(old.backbone == table.backbone[0]) & ~old.dataset.isin(table.dataset)]
        table = pd.concat([old, table])
    path.parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(path, index=False)
    print(f"written: {path.name}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", choices=TABLES)
    p.add_argument("--datasets", nargs="+", help="default: those of the table")
    p.add_argument("--limit", type=int, default=120, help="images per data set; 0 = all")
    p.add_argument("--seed", type=int, default=0, help="of the choice of images")
    p.add_argument("--records", type=Path, default=Path("build/records"))
    args = p.parse_args()
    variants, datasets, reference = TABLES[args.table]
    bench, rows, results = mp.benchmark("mini"), [], {}
    for name in args.datasets or datasets:
        data = bench.dataset(name)
        for label, method, test_set in variants(bench, data):
            result = mp.evaluate(method, test_set, args.limit or None, args.records, seed=args.seed)
            rows.append({**result.row(), "method": label, "backbone": method.clip.fingerprint,
                         "minipsync": mp.__version__, "torch": torch.__version__.split("+")[0]})
            results.setdefault(test_set.name, []).append((label, result))
            print(f"{label}: {result}", flush=True)
    pairs = [paired(each, reference).assign(dataset=name) for name, each in results.items()]
    pooled = paired(sum(results.values(), []), reference).assign(dataset=" + ".join(results))
    both = pd.concat([*pairs, pooled] if len(results) > 1 else pairs).assign(backbone=rows[0]["backbone"])
    write(OUT / f"{args.table}_paired.csv", both.reset_index(drop=True))
    write(OUT / f"{args.table}.csv", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
