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

Names that end in "transfer" are the settings of training on a transfer set; their order does not matter:

    python -m benchmarks.choose_settings "coop.fit transfer" "maple.fit transfer"

TPT from words starts from no prompts, so that `tpt` can be chosen at any time. TPT from CoOp takes the same.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch

import minipsync as mp
from minipsync.data.mini import ASSETS, SHOTS
from minipsync.evaluation.evaluate import balanced_order
from minipsync.evaluation.results import wilson
from minipsync.files.paths import read_text
from minipsync.source.domain import prompts_fingerprint

OUT = Path(__file__).resolve().parent.parent / "results/mini/settings.csv"
# method: groups of settings to try, in this order; the best of a group is kept while the next is searched
CROPS = [{"crop_scale": c} for c in ((.08, 1.), (.3, 1.), (.6, 1.), (.8, 1.))]
RATES = [{"lr": v} for v in (4e-2, 1.5e-2, 5e-3, 1.5e-3, 5e-4)]
GROUPS = {
    "tpt": [[{"lr": .1}, *RATES], CROPS],
    "maple_tpt": [RATES, CROPS],
    "promptalign": [RATES, CROPS, [{"weight": v} for v in (100., 10., 300.)]],
    "promptsync_star": [RATES[1:], CROPS,
                        [{"background": b, "corruption": c} for b, c in ((.5, .5), (.25, .25), (0., 0.))],
                        [{"lambda_a": v} for v in (1., .3, 3.)], [{"lambda_d": v} for v in (1., .2)],
                        [{"tau": v} for v in (None, .1)], [{"alpha": v} for v in (1e-3, 1e-2)]],
}


def recipes(*trials):
    """Settings of training from (epochs, batch size, rate, lowest area of a crop)."""
    return [{"epochs": e, "batch_size": b, "lr": lr, "crop": (c, 1.)} for e, b, lr, c in trials]


# what trains: trials, the paper's own first. Names with "transfer" hold for the transfer sets
WORDS = {"init": "a photo of a", "n_ctx": 4}
SIXTY_WORDS = {"init": " ".join(15 * ["a photo of a"]), "n_ctx": 60}
FITS = {
    "maple.fit": recipes((2, 4, .0026, .08), (5, 16, .0052, .5), (5, 16, .02, .5), (5, 16, .05, .5)),
    "coop.fit": recipes((5, 32, .02, .5), (5, 32, .2, .5)),
    "coop.fit transfer": recipes((50, 32, .002, .08), (20, 32, .2, .5), (20, 32, 1., .5), (20, 32, 4., .5),
                                 (50, 32, 1., .5)),
    "coop.fit, 60 words transfer": recipes((20, 32, .02, .5), (20, 32, .05, .5), (20, 32, .2, .5),
                                           (20, 32, .5, .5), (20, 32, 1., .5), (20, 32, 4., .5)),
    "cocoop.fit transfer": recipes((10, 32, .002, .08), (10, 32, .02, .5), (10, 32, .2, .5),
                                   (10, 32, 1., .5)),
    "maple.fit transfer": recipes((5, 4, .0035, .08), (5, 16, .02, .5), (5, 16, .1, .5), (10, 16, .1, .5)),
    "ivlp.fit transfer": recipes((5, 4, .0035, .08), (5, 16, .02, .5), (5, 16, .1, .5), (10, 16, .1, .5)),
}
FROM_WORDS = ("tpt",)                              # tuned at test time, but not from MaPLe's prompts
FEW_SHOT_SETS = ("animals", "vehicles")            # their split "val" chooses for all transfer sets


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

    A row counts for one mini CLIP (`backbone`) and one set of MaPLe's `prompts`, "" where those are not used.
    With `prompts` "" no row depends on them, and the rows of any stay in the file.
    """

    def __init__(self, path: Path, backbone: str, prompts: str):
        self.path, self.backbone, self.prompts, self.rows = path, backbone, prompts, []
        self.read()

    def read(self) -> None:
        """Take the rows on disk that another process may have added; not those of another mini CLIP."""
        rows = pd.read_csv(self.path, keep_default_na=False).to_dict("records") if self.path.exists() else []
        own = {(r["method"], r["settings"], r["n"]): r for r in self.rows}
        own |= {(r["method"], r["settings"], r["n"]): r for r in rows
                if r["backbone"] == self.backbone and (not self.prompts or r["prompts"] in ("",
                                                                                            self.prompts))}
        self.rows = list(own.values())

    def trial(self, method: str, settings: dict, n: int, run) -> dict:
        """The row of `method` with `settings` on n images: from the table, else made by `run(settings)`."""
        key = json.dumps(settings, sort_keys=True)
        for row in self.rows:
            if (row["method"], row["settings"], row["n"]) == (method, key, n):
                return row
        row = {"method": method, "settings": key, "dataset": "val", "seed": 1, **run(settings),
               "backbone": self.backbone, "prompts": "" if method in (*FITS, *FROM_WORDS) else self.prompts}
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
    chosen = json.loads(file.read_text(encoding="utf-8")) | {method: settings}
    file.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")


def choose_fit(name: str, bench, clip, table: Table) -> None:
    """The trial of FITS[name] that is best after training: on `val` for prompts learned on `imagenet`; for
    those of a transfer set on the base classes of its split "val", 16 scenes to learn from, 8 to judge."""
    method = name.split(".")[0]
    own = {"coop": SIXTY_WORDS if "60 words" in name else WORDS}.get(method, {})
    if name.endswith("transfer"):
        halves = [bench.dataset(each, "val").halves()[0] for each in FEW_SHOT_SETS]
        scene = [[int(data.image_id(i).rpartition("/")[2]) for i in range(len(data))] for data in halves]
        pairs = [(data.subset([i for i, k in enumerate(ks) if k < SHOTS]), data,
                  [i for i, k in enumerate(ks) if k >= SHOTS])
                 for data, ks in zip(halves, scene, strict=True)]
    else:
        train, data = bench.dataset("imagenet", "train"), bench.dataset("val")
        pairs = [(train, data, list(range(len(data))))]
    n = sum(len(rows) for *_, rows in pairs)

    def run(settings):
        scores = [score(mp.build(method, clip, train.class_names, **own).fit(train, **settings), data, rows,
                        100) for train, data, rows in pairs]
        right, reciprocal = (sum(s["n"] * s[key] for s in scores) for key in ("accuracy", "reciprocal_rank"))
        low, high = wilson(round(right), n)
        return {"n": n, "accuracy": right / n, "low": low, "high": high,
                "reciprocal_rank": round(reciprocal / n, 4)}

    keep(name, table.best(name, FITS[name], n, run))


def choose(name: str, bench, clip, data, rows, table: Table) -> None:
    """Coordinate search over GROUPS[name], with the shipped MaPLe prompts where the method needs any."""
    best: dict = {}
    source = bench.dataset("imagenet", "train")

    def run(settings):
        method = mp.build(name, clip, data.class_names, **settings)         # not the settings chosen before
        if method.accepts:
            bench.load_prompts(method, source)
        if method.needs:
            bench.load_source(method, source)
        return {"seed": method.config.seed, **score(method, data, rows)}

    for group in GROUPS[name]:
        best = table.best(name, [{**best, **s} for s in group], len(rows), run)
    keep(name, best)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("methods", nargs="+", choices=[*FITS, *GROUPS], help="what to choose, in this order")
    p.add_argument("--limit", type=int, default=100)
    args = p.parse_args()
    bench = mp.benchmark("mini")
    clip, data = bench.clip(), bench.dataset("val")
    free = set(args.methods) <= {*FITS, *FROM_WORDS}
    maple = None if free else bench.build("maple", data, clip=clip)
    table = Table(OUT, clip.fingerprint, prompts_fingerprint(maple.learner) if maple else "")
    ids = [data.image_id(i) for i in range(len(data))]
    rows = balanced_order(ids, data.labels, args.limit)
    for name in args.methods:
        if name in FITS:
            choose_fit(name, bench, clip, table)
        else:
            choose(name, bench, clip, data, rows, table)
            if name == "promptsync_star":
                keep("promptsync", json.loads(read_text(ASSETS / "settings.json"))["promptsync_star"])


if __name__ == "__main__":
    main()
