"""What notebooks 05 and 06 show and have no time to measure: `python -m benchmarks.tpt_sweeps tpt`.

    tpt                 zero-shot, CoOp, TPT from both, and means of views without tuning; five data sets
    tpt_sweeps          TPT from words: other numbers of views, shares of them, steps and rates; sketch and r
    promptalign_sweeps  PromptAlign: each loss alone, other weights, blocks and steps; sketch and r

Every other setting is the one that `val` chose. Nothing is chosen from these tables: they show what a setting
does. Records as in mini_tables, so a run that was stopped goes on.
"""

import argparse
from pathlib import Path

import pandas as pd

import minipsync as mp

from .choose_settings import WORDS
from .mini_tables import differences, write


def tpt(bench, data):
    """(label, method) for every row; so do the others."""
    yield "zero_shot", bench.build("zero_shot", data)
    yield "coop", bench.build("coop", data, **WORDS, prompt_seed=1)
    yield "mean of the confident views", bench.build("confident_views", data)
    yield "mean of all views", bench.build("confident_views", data, selection=1.0)
    yield "tpt", bench.build("tpt", data)
    yield "tpt + coop", bench.build("tpt", data, start="coop", prompt_seed=1)


def tpt_sweeps(bench, data):
    def tuned(**settings):
        return bench.build("tpt", data, **settings)

    yield "zero_shot", bench.build("zero_shot", data)
    for name, values in {"n_views": (8, 16, 32, 64, 128), "selection": (.02, .1, .25, 1.),
                         "steps": (1, 2, 4, 8), "lr": (5e-3, 4e-2, .1, .3)}.items():
        for value in values:
            yield f"{name} = {value:g}", tuned(**{name: value})


def promptalign_sweeps(bench, data):
    def tuned(**settings):
        return bench.build("promptalign", data, **settings)

    yield "maple", bench.build("maple", data)
    yield "entropy + alignment", tuned()
    yield "entropy", tuned(weight=0.0)
    yield "alignment", tuned(entropy=False)
    for value in (1., 100., 1000.):
        yield f"weight = {value:g}", tuned(weight=value)
    for first, last in ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (0, 1), (0, 4)):
        blocks = f"block {first}" if first == last else f"blocks {first} to {last}"
        yield blocks, tuned(align_from=first, align_to=last + 2)
    for value in (1, 2, 3):
        yield f"steps = {value}", tuned(steps=value)


# table: its rows, data sets, images of each, and the row that the others are compared with
TABLES = {"tpt": (tpt, ("imagenet", "v2", "sketch", "r", "a"), 120, "zero_shot"),
          "tpt_sweeps": (tpt_sweeps, ("sketch", "r"), 60, "zero_shot"),
          "promptalign_sweeps": (promptalign_sweeps, ("sketch", "r"), 60, "maple")}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", choices=TABLES)
    p.add_argument("--limit", type=int, help="images per data set")
    p.add_argument("--records", type=Path, default=Path("build/records"))
    args = p.parse_args()
    variants, datasets, limit, reference = TABLES[args.table]
    bench, rows, records = mp.benchmark("mini"), [], {}
    for name in datasets:
        data = bench.dataset(name)
        for label, method in variants(bench, data):
            result = mp.evaluate(method, data, args.limit or limit, args.records,
                                 progress=False)
            rows.append({**result.row(), "method": label, "confidence": result.records["confidence"].mean()})
            records[label, name] = {0: result.records}
            print(f"{label}: {result}", flush=True)
    average = {"average": list(datasets)}
    write(bench, args.table, pd.DataFrame(rows), differences(records, [reference], average))


if __name__ == "__main__":
    main()
