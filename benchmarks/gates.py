"""Can the papers' effects exist on mini? `python -m benchmarks.gates` answers in eight gates.

A small world may lack what a method lives from: then no number measured there says anything about it. Each
gate asks for one such thing (a function below, its docstring says which), with a bound that was fixed before
the pictures and the CLIP were made. Measured on `val` and the source alone; results/mini/gates.csv has the
values with 95 % intervals, which resample classes, as one drawing stands in several pictures.

    python -m benchmarks.gates                    all, some twenty minutes on one core (training for gate 8)
    python -m benchmarks.gates --only 1 4 7       some of them; the other rows of the table stay
    python -m benchmarks.gates --weights FILE     of another mini CLIP; the table is printed, not written
"""
from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import minipsync as mp
from minipsync.evaluation.correlation import within_class
from minipsync.evaluation.prompts import learned
from minipsync.evaluation.protocols import SEEDS
from minipsync.evaluation.resampling import class_interval
from minipsync.evaluation.results import calibration_error
from minipsync.methods.probe import label_step
from minipsync.report.writers import to_markdown
from minipsync.views.crops import content_seed, make_views

from .choose_settings import WORDS

OUT = Path(__file__).resolve().parent.parent / "results/mini/gates.csv"
VIEWS, CONFIDENT = 64, 6
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)               # of a paper's rate
OTHERS = ("v2", "sketch", "r", "a")                # looked at once, when everything else was fixed


@dataclass
class Row:
    """One line of the table: a value with its interval, in points of accuracy if nothing else is said."""

    gate: str
    value: float
    low: float
    high: float
    wanted: str
    passed: bool


def at_least(gate: str, values, classes, bound: float, above_zero: bool = False) -> Row:
    """Row of a gain that should be `bound` or more; with `above_zero` its whole interval positive."""
    value, low, high = class_interval(100 * np.asarray(values, float), classes)
    good = value >= bound and (low > 0 or not above_zero)
    return Row(gate, value, low, high, f">= {bound:g}" + (", interval above 0" * above_zero), good)


class World:
    """The mini benchmark under one CLIP, with what several gates use."""

    def __init__(self, clip, limit: int, work: Path):
        self.bench, self.clip, self.limit, self.work = mp.benchmark("mini"), clip, limit, work
        self.names = self.bench.dataset("val").class_names

    def some(self, name: str, n: int | None = None, scenes: int | None = None):
        """(pictures, labels [n]) of the data set `name`, n of them evenly over classes; None: all."""
        data = self.bench.dataset(name, scenes=scenes)
        rows = np.linspace(0, len(data) - 1, min(n or len(data), len(data))).round().astype(int)
        return [data[i][0] for i in rows], data.labels[rows]

    def logits(self, method, pictures) -> torch.Tensor:
        """[n, C]."""
        with torch.no_grad():
            return torch.cat([method.predict(pictures[i:i + 100]) for i in range(0, len(pictures), 100)])

    def right(self, method, name: str, scenes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(was it right [n], labels [n]) on all pictures of `name`."""
        pictures, labels = self.some(name, scenes=scenes)
        return self.logits(method, pictures).argmax(1).numpy() == labels, labels

    def zero_shot(self):
        return mp.build("zero_shot", self.clip, self.names)

    def trained(self, lr: float):
        """MaPLe learned from 16 shots of the source at this rate."""
        train = self.bench.dataset("imagenet", "train")
        method = self.bench.build("maple", train, clip=self.clip, load=False)
        return learned(method, train, self.work / "rates", progress=False, lr=lr)

    def build(self, name: str, **settings):
        """A method with the paper's settings and the prompts of the package (or of `work`)."""
        data = self.bench.dataset("val")
        return self.bench.build(name, data, clip=self.clip, prompts=self.work, source=self.work, **settings)


def views(world: World) -> list[Row]:
    """1. Crops are worth looking at: the mean of the confident ones beats the picture, entropy finds them."""
    pictures, labels = world.some("val", world.limit)
    method, plain, mean, found = world.zero_shot(), [], [], []
    for picture, label in zip(pictures, labels, strict=True):
        logits = world.logits(method, make_views(picture, VIEWS, world.clip, seed=content_seed(picture)))
        p = logits.softmax(1)
        order = -(p * p.clamp_min(1e-30).log()).sum(1)
        order = order.argsort()
        right = (p.argmax(1) == label).float()
        plain.append(float(right[0]))
        mean.append(float(p[order[:CONFIDENT]].mean(0).argmax() == label))
        found.append(float(right[order[:CONFIDENT]].mean() - right[order[VIEWS // 2:]].mean()))
    return [at_least("1 mean of 6 confident of 64 views - untouched", np.subtract(mean, plain), labels, 5),
            at_least("1 confident views right - unsure half right", found, labels, 10)]


def one_step(method, pictures, labels) -> np.ndarray:
    """Change of "is it right" [n] by one step of the method on the cross-entropy with each true label."""
    change = []
    for start in range(0, len(pictures), 10):
        views = method.clip.preprocess(pictures[start:start + 10])[:, None]
        truth = torch.as_tensor(labels[start:start + 10])
        before, after = (logits.argmax(1) == truth for logits in label_step(method, views, truth))
        change += (after.float() - before.float()).tolist()
    return np.array(change)


def leverage(world: World) -> list[Row]:
    """2. A step of the paper's size moves predictions: with the true label it must help."""
    pictures, labels = world.some("val", min(world.limit, 200))
    text = one_step(world.build("tpt"), pictures, labels)
    both = one_step(world.build("maple_tpt"), pictures, labels)
    return [at_least("2 one true step, text context, 5e-3", text, labels, 5),
            at_least("2 one true step, MaPLe's prompts, 4e-2", both, labels, 10)]


def shared(world: World) -> list[Row]:
    """3. A domain has something that classes share: a context fitted on half of them helps the other half."""
    base, novel = world.bench.dataset("val").halves()
    pictures = [novel[i][0] for i in range(len(novel))]
    method = mp.build("coop", world.clip, base.class_names, init="a photo of a")
    fitted = learned(method, base, world.work, progress=False).set_class_names(novel.class_names)
    plain = mp.build("zero_shot", world.clip, novel.class_names)
    right = [world.logits(m, pictures).argmax(1).numpy() == novel.labels for m in (fitted, plain)]
    return [at_least("3 context of one half of the classes, on the other half",
                     right[0].astype(float) - right[1], novel.labels, 2)]


def levels(world: World) -> list[Row]:
    """4. There is room above and below: zero-shot accuracy is neither near 100 % nor near chance."""
    rows, bounds = [], {"imagenet": (55, 75), "val": (35, 60), **dict.fromkeys(OTHERS, (20, 100))}
    for name, (low, high) in bounds.items():
        right, labels = world.right(world.zero_shot(), name)
        value = class_interval(100 * right, labels)
        wanted = f"{low} to {high}" if high < 100 else f">= {low}"
        rows.append(Row(f"4 zero-shot on {name}", *value, wanted, low <= value[0] <= high))
    return rows


def rates(world: World) -> list[Row]:
    """5. The papers' rates are right here: the best of a sweep is at most a point better."""
    sweeps: dict[str, tuple[float, Callable]] = {
        "TPT": (5e-3, lambda lr: world.build("tpt", lr=lr)),
        "MaPLe + TPT": (4e-2, lambda lr: world.build("maple_tpt", lr=lr)),
        "MaPLe": (0.0026, world.trained)}
    rows = []
    for name, (paper, make) in sweeps.items():
        pictures, labels = world.some("val", None if name == "MaPLe" else min(world.limit, 100))
        right = {f: (world.logits(make(f * paper), pictures).argmax(1).numpy() == labels).astype(float)
                 for f in FACTORS}
        best = max(FACTORS, key=lambda f: right[f].mean())
        value = class_interval(100 * (right[best] - right[1.0]), labels)
        rows.append(Row(f"5 {name}, best rate of a sweep (x {best:g}) - paper's", *value, "<= 1",
                        value[0] <= 1))
    return rows


def independence(world: World) -> list[Row]:
    """6. Pictures of one drawing do not stand or fall together."""
    rows = []
    for name in ("imagenet", "val", "v2", "sketch"):
        right, labels = world.right(world.zero_shot(), name)
        found = within_class(right, labels).correlation
        rows.append(Row(f"6 within-class correlation on {name}", *found, "<= 0.3", found[0] <= 0.3))
    return rows


def confidence(world: World) -> list[Row]:
    """7. Confidence has CLIP's scale and means something: logit scale, calibration error (%)."""
    pictures, labels = world.some("imagenet")
    logits, truth = world.logits(world.zero_shot(), pictures), torch.as_tensor(labels)

    p, scale = logits.softmax(1), float(world.clip.logit_scale)
    error = calibration_error(p.amax(1).numpy(), (p.argmax(1) == truth).numpy().astype(float), labels)
    error = [100 * each for each in error]
    return [Row("7 logit scale", scale, scale, scale, ">= 50", scale >= 50),
            Row("7 calibration error on imagenet (%)", *error, "<= 8", error[0] <= 8)]


def prompts(world: World) -> list[Row]:
    """8. Few shots teach prompts something that the source and other artists share."""
    rows = []
    for name, bound in (("imagenet", 2), ("val", 1)):
        plain, labels = world.right(world.zero_shot(), name, scenes=10)        # n = 2,000: gains are small
        for method, settings in (("maple", {}), ("coop", WORDS)):
            each = [world.build(method, prompt_seed=seed, **settings) for seed in SEEDS]
            right = [world.right(own, name, scenes=10)[0] for own in each]
            rows.append(at_least(f"8 {method} (mean of {len(SEEDS)} seeds) - zero-shot on {name}",
                                 np.mean(right, 0) - plain, labels, bound, True))
    return rows


GATES = dict(enumerate((views, leverage, shared, levels, rates, independence, confidence, prompts), 1))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", type=int, nargs="+", choices=GATES, default=list(GATES))
    p.add_argument("--limit", type=int, default=400, help="pictures of val for gates 1, 2 and 5")
    p.add_argument("--weights", type=Path, help="a file of save_mini")
    p.add_argument("--work", type=Path, default=Path("build/gates"), help="where trained prompts are kept")
    args = p.parse_args()
    clip = mp.load_clip("mini", weights=args.weights)
    world, rows = World(clip, args.limit, args.work), []
    for number in args.only:
        for row in GATES[number](world):
            rows.append(row)
            print(f"{row.gate}: {row.value:.2f} ({row.low:.2f} to {row.high:.2f}), wanted {row.wanted}: "
                  f"{'passed' if row.passed else 'NOT passed'}", flush=True)
    table = pd.DataFrame([vars(row) for row in rows]).round(3)
    print(to_markdown(table, digits=2))
    if args.weights is None:
        if OUT.exists():                                     # the other gates' rows stay
            old = pd.read_csv(OUT)
            table = pd.concat([old[~old["gate"].str[0].isin(map(str, args.only))], table])
        OUT.parent.mkdir(parents=True, exist_ok=True)
        table.sort_values("gate", kind="stable", key=lambda gate: gate.str[0]).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
