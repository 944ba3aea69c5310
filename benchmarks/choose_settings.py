"""Choose the settings of mini on its validation domain: `python -m benchmarks.choose_settings`.

That is what the papers leave open, or what 48-pixel pictures change. The mini benchmark's domain `val`
(family noto-v1) is in no training set and in no table of results; no test domain is read here. First MaPLe's
epochs and rate, then, one group of settings after the other (a coordinate search from the papers' values),
the test-time methods. Each trial is a row of results/mini/settings.csv: accuracy on --limit class-balanced
images of `val`, its interval, and the mean reciprocal rank of the true class, which decides between trials:
it moves before the accuracy of a few hundred images does, and making predictions surer does not change it, as
it would change a likelihood. Trials that are in the table already are not run again, so a killed search goes
on; the chosen values go to minipsync/assets/mini/settings.json. PromptSync is searched in its fast version,
PromptSync*, and takes the same values.

In this order, as the test-time methods tune the prompts that MaPLe's settings give:

    python -m benchmarks.choose_settings maple.fit
    python -m data_scripts.train_mini_prompts
    python -m benchmarks.choose_settings maple_tpt promptalign promptsync_star
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch

import minipsync as mp
from minipsync.data.mini import ASSETS
from minipsync.evaluation import balanced_order
from minipsync.results import wilson
from minipsync.statistics import prompts_fingerprint

OUT = Path(__file__).resolve().parent.parent / "results/mini/settings.csv"
# method: groups of settings to try, in this order; the best of a group is kept while the next is searched
CROPS = [{"crop_scale": c} for c in ((.08, 1.), (.3, 1.), (.6, 1.), (.8, 1.))]
RATES = [{"lr": v} for v in (4e-2, 1.5e-2, 5e-3, 1.5e-3, 5e-4)]
GROUPS = {
    "maple_tpt": [RATES, CROPS],
    "promptalign": [RATES, CROPS, [{"weight": v} for v in (100., 10., 300.)]],
    "promptsync_star": [RATES[1:], CROPS,
                        [{"background": b, "corruption": c} for b, c in ((.5, .5), (.25, .25), (0., 0.))],
                        [{"lambda_a": v} for v in (1., .3, 3.)], [{"lambda_d": v} for v in (1., .2)],
                        [{"tau": v} for v in (None, .1)], [{"alpha": v} for v in (1e-3, 1e-2)]],
}
MAPLE = [{"epochs": e, "batch_size": b, "lr": lr, "crop": c} for e, b, lr, c in (
    (2, 4, .0026, (.08, 1.)), (5, 16, .0052, (.5, 1.)), (5, 16, .02, (.5, 1.)), (5, 16, .05, (.5, 1.)))]


def score(method, data, rows, batch: int = 16) -> dict:
    """Accuracy with a 95 % Wilson interval and mean reciprocal rank of `method` on the images `rows`."""
    right, reciprocal = 0, 0.0
    for start in range(0, len(rows), batch):
        items = [data[i] for i in rows[start:start + batch]]
        labels = torch.tensor([label for _, label in items])
        logits = method.predict([image for image, _ in items]).cpu()                               # [B, C]
        right += int((logits.argmax(1) == labels).sum())
        rank = 1 + (logits > logits.gather(1, labels[:, None])).sum(1)                             # [B]
        reciprocal += float((1 / rank).sum())
    low, high = wilson(right, len(rows))
    return {"n": len(rows), "accuracy": right / len(rows), "low": low, "high": high,
            "reciprocal_rank": round(reciprocal / len(rows), 4)}


class Table:
    """results/mini/settings.csv: one row per trial, added as soon as it is known.

    A row counts for one mini CLIP (`backbone`) and one set of MaPLe's `prompts`, "" where those are trained.
    """

    def __init__(self, path: Path, backbone: str, prompts: str):
        self.path, self.backbone, self.prompts, self.rows = path, backbone, prompts, []
        self.read()

    def read(self) -> None:
        """Take the rows on disk that another process may have added; not those of another mini CLIP."""
        rows = pd.read_csv(self.path, keep_default_na=False).to_dict("records") if self.path.exists() else []
        own = {(r["method"], r["settings"], r["n"]): r for r in self.rows}
        own |= {(r["method"], r["settings"], r["n"]): r for r in rows
                if r["backbone"] == self.backbone and r["prompts"] in ("", self.prompts)}
        self.rows = list(own.values())

    def trial(self, method: str, settings: dict, n: int, run) -> dict:
        """The row of `method` with `settings` on n images: from the table, else made by `run(settings)`."""
        key = json.dumps(settings, sort_keys=True)
        for row in self.rows:
            if (row["method"], row["settings"], row["n"]) == (method, key, n):
                return row
        row = {"method": method, "settings": key, "dataset": "val", "seed": 1, **run(settings),
               "backbone": self.backbone, "prompts": "" if method == "maple.fit" else self.prompts}
        self.read()
        self.rows.append(row)
        print(f"{method:12} {key}  accuracy {row['accuracy']:.3f}  "
              f"reciprocal rank {row['reciprocal_rank']:.4f}", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.rows).round(4).to_csv(self.path, index=False)
        return row

    def best(self, method: str, trials: list[dict], n: int, run) -> dict:
        """The settings among `trials` with the highest mean reciprocal rank, the first of equals."""
        return max(trials, key=lambda s: self.trial(method, s, n, run)["reciprocal_rank"])


def keep(method: str, settings: dict) -> None:
    """Write the chosen `settings` of `method` to assets/mini/settings.json."""
    file = ASSETS / "settings.json"
    chosen = json.loads(file.read_text()) | {method: settings}
    file.write_text(json.dumps(chosen, indent=1) + "\n")


def choose_maple(bench, clip, data, rows, table: Table) -> None:
    """The trial of MAPLE that is best after training."""
    train = bench.dataset("imagenet", "train")

    def run(settings):
        return score(mp.build("maple", clip, train.class_names).fit(train, **settings), data, rows, 100)

    keep("maple.fit", table.best("maple.fit", MAPLE, len(rows), run))


def choose(name: str, clip, data, rows, table: Table) -> None:
    """Coordinate search over GROUPS[name], with the shipped MaPLe prompts."""
    best: dict = {}

    def run(settings):
        return score(mp.build(name, clip, data.class_names, **settings).load(), data, rows)

    for group in GROUPS[name]:
        best = table.best(name, [{**best, **s} for s in group], len(rows), run)
    keep(name, best)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("methods", nargs="+", choices=["maple.fit", *GROUPS], help="what to choose, in this order")
    p.add_argument("--limit", type=int, default=100)
    args = p.parse_args()
    bench = mp.benchmark("mini")
    clip, data = bench.clip(), bench.dataset("val")
    maple = None if args.methods == ["maple.fit"] else mp.build("maple", clip, data.class_names).load()
    table = Table(OUT, clip.fingerprint, prompts_fingerprint(maple.learner) if maple else "")
    ids = [data.image_id(i) for i in range(len(data))]
    rows = balanced_order(ids, data.labels, args.limit)
    for name in args.methods:
        if name == "maple.fit":
            choose_maple(bench, clip, data, list(range(len(data))), table)
        else:
            choose(name, clip, data, rows, table)
            if name == "promptsync_star":
                keep("promptsync", json.loads((ASSETS / "settings.json").read_text())["promptsync_star"])


if __name__ == "__main__":
    main()
