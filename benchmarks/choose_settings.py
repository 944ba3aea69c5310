"""Choose the settings of mini on its validation domain: `python -m benchmarks.choose_settings`.

The papers' settings are the defaults. Another one takes their place only where it is shown to be needed:
where it is better than the paper's on `val` with a p below 0.05, adjusted for all trials of the method. `val`
(family noto-v1) is in no training set and in no table of results; no test domain is read here. Every
test-time method has the same budget: as many trials, with as many views. PromptSync is searched in its fast
version, PromptSync*, and takes the same values; its points that are open are among the trials, and our choice
of them stands first.

Each trial is a row of results/mini/settings.csv, with its difference from the first: accuracy, interval and p
resample classes. Rows are made from records, so a killed search goes on. What was chosen goes to
minipsync/assets/mini/settings.json.

    python -m benchmarks.choose_settings maple.fit coop.fit
    python -m data_scripts.train_mini_prompts
    python -m benchmarks.choose_settings tpt maple_tpt promptalign promptsync_star

in this order, as the test-time methods tune the prompts that training makes.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

import minipsync as mp
from minipsync.data.mini import ASSETS
from minipsync.evaluation.prompts import learned
from minipsync.evaluation.resampling import LEVEL, holm

OUT = Path(__file__).resolve().parent.parent / "results/mini/settings.csv"
WORDS = {"init": "a photo of a", "n_ctx": 4}
SIXTY_WORDS = {"init": " ".join(15 * ["a photo of a"]), "n_ctx": 60}
VIEWS = 63                                         # beside the image itself, for every test-time method
HALF_CROPS = {"crop_scale": (0.3, 1.0)}
# what to try instead of the paper's settings, one thing at a time; seven for every test-time method
TRIALS: dict[str, list[dict]] = {
    "tpt": [{"lr": 1.5e-3}, {"lr": 1.5e-2}, {"lr": 5e-2}, {"steps": 4}, {"selection": 0.2}, HALF_CROPS,
            {"augmix": True}],
    "maple_tpt": [{"lr": 4e-3}, {"lr": 1.2e-2}, {"lr": 0.12}, {"steps": 2}, {"selection": 0.2}, HALF_CROPS,
                  {"augmix": True}],
    "promptalign": [{"lr": 4e-3}, {"lr": 1.2e-2}, {"lr": 0.12}, {"weight": 10.0}, {"weight": 1000.0},
                    HALF_CROPS, {"augmix": True}],
    "promptsync_star": [{"lr": 1.5e-3}, {"lr": 1.5e-2}, {"lr": 4e-2}, {"lambda_a": 0.3}, {"lambda_d": 0.2},
                        {"p_bar_of": "views and image"}, {"background": 0.0, "corruption": 0.0}],
    "maple.fit": [{"lr": 2.6e-4}, {"lr": 7.8e-4}, {"lr": 7.8e-3}, {"lr": 2.6e-2}],
    "coop.fit": [{"lr": 2e-4}, {"lr": 6e-4}, {"lr": 6e-3}, {"lr": 2e-2}]}
TEST_TIME = [name for name in TRIALS if not name.endswith(".fit")]


def result(bench, name: str, settings: dict, data, args):
    """The `Result` of a method with `settings` on `args.limit` images of `val`."""
    if name in TEST_TIME:
        method = bench.build(name, data, source=args.source, **{"n_views": VIEWS} | settings)
    else:
        train, trained = bench.dataset("imagenet", "train"), name.removesuffix(".fit")
        own = WORDS if trained == "coop" else {}
        method = mp.build(trained, bench.own_clip, train.class_names, seed=1, **own)
        method = learned(method, train, args.prompts, progress=False, **settings)
    return mp.evaluate(method, data, args.limit if name in TEST_TIME else None, args.records, progress=False)


def search(bench, name: str, data, args) -> list[dict]:
    """A row for the paper's settings and for each trial, with `p` adjusted for all trials."""
    trials = [{}, *TRIALS[name]]
    results = [result(bench, name, settings, data, args) for settings in trials]
    rows = []
    for settings, found in zip(trials, results, strict=True):
        gain = mp.compare(found, results[0])
        own = {name: found.row()[name] for name in ("dataset", "n", "accuracy", "low", "high", "ece")}
        rows.append({"method": name, "settings": json.dumps(settings), **own, "difference": gain.difference,
                     "diff_low": gain.interval[0], "diff_high": gain.interval[1], "p": gain.p})
        print(f"{name} {settings}: {found.accuracy:.3f}; {gain}", flush=True)
    for row, p in zip(rows[1:], holm([row["p"] for row in rows[1:]]), strict=True):
        row["p_holm"] = p
    better = [row for row in rows[1:] if row["difference"] > 0 and row["p_holm"] < LEVEL]
    chosen = max(better, key=lambda row: row["difference"], default=rows[0])
    for row in rows:
        row["chosen"] = row is chosen
    return rows


def keep(name: str, rows: list[dict], backbone: str) -> None:
    """Put the rows into settings.csv and the chosen settings, if they are not the paper's, into
    settings.json."""
    table = pd.DataFrame(rows).assign(backbone=backbone)
    if OUT.exists():
        old = pd.read_csv(OUT)
        table = pd.concat([old[(old.backbone == backbone) & (old.method != name)], table])
    table.round(4).to_csv(OUT, index=False)
    file = ASSETS / "settings.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    chosen = next(json.loads(row["settings"]) for row in rows if row["chosen"])
    for method in (name, "promptsync") if name == "promptsync_star" else (name,):
        known.pop(method, None)
        known |= {method: chosen} if chosen else {}
    file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("methods", nargs="+", choices=TRIALS)
    p.add_argument("--limit", type=int, default=200, help="images of `val` for a test-time method")
    p.add_argument("--prompts", type=Path, default=Path("build/prompts"))
    p.add_argument("--source", type=Path, default=Path("build/source"))
    p.add_argument("--records", type=Path, default=Path("build/records"))
    args = p.parse_args()
    bench = mp.benchmark("mini")
    for name in args.methods:
        keep(name, search(bench, name, bench.dataset("val"), args), bench.own_clip.fingerprint)


if __name__ == "__main__":
    main()
