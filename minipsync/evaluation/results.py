"""What an evaluation found, and whether one method is better than another on the same images.

Everything here is computed from records (one row per image, see evaluation.py) and from nothing else.
"""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional.classification import binary_calibration_error

ECE_BINS = 15


@dataclass(frozen=True)
class Result:
    """What `evaluate` found; `accuracy`, `interval` and `ece` are fractions in [0, 1].

    interval:          95 % interval of the accuracy (Wilson 1927), (low, high)
    ece:               expected calibration error, 15 bins of equal width (Guo et al. 2017)
    seconds_per_image: mean over all records of the time in `predict`; an image was timed when it was
                       predicted, so that a break and a resumption do not count
    n:                 images predicted; `skipped` ones, [(image id, reason)], are not among them
    found:             pictures that the data set has, used or not; None where it does not say
    left_out:          {reason: how many} are expected in the data set and not part of it (see `Dataset`)
    records:           DataFrame, one row per image: image, label, prediction, correct, confidence (largest
                       probability), entropy (nats), entropy_before (before a method tuned its prompts on the
                       image, else the same), top5 (labels, best first), seconds, seed
    resumed:           how many of the n were read from an earlier run's records; path: their file, or None
    """

    method: str
    dataset: str
    seed: int
    n: int
    accuracy: float
    interval: tuple[float, float]
    ece: float
    seconds_per_image: float
    records: pd.DataFrame = field(repr=False)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    found: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    path: Path | None = None

    def row(self) -> dict:
        """One flat line for a table: the columns of results/mini/*.csv."""
        low, high = self.interval
        return {"method": self.method, "dataset": self.dataset, "seed": self.seed, "n": self.n,
                "accuracy": self.accuracy, "low": low, "high": high, "ece": self.ece,
                "seconds_per_image": self.seconds_per_image, "skipped": len(self.skipped),
                "found": self.found, "left_out": "; ".join(_reasons(self.left_out))}

    def _not_used(self) -> str:
        """What is not among the n, in words; "" if nothing is missing."""
        said = [f"{len(self.skipped)} unreadable image{'s' * (len(self.skipped) > 1)} skipped"]
        said = said * bool(self.skipped) + [f"left out: {reason}" for reason in _reasons(self.left_out)]
        found = f" of {self.found} found" if said and self.found is not None else ""
        return f"{found} ({', '.join(said)})" if said else ""

    def __repr__(self):
        low, high = self.interval
        return (f"{self.method} on {self.dataset}: {100 * self.accuracy:.1f} % "
                f"(95 % interval {100 * low:.1f} to {100 * high:.1f}), n = {self.n}{self._not_used()}"
                f", ECE {100 * self.ece:.1f} %, {_duration(self.seconds_per_image)} per image")

    def _repr_html_(self):
        low, high = self.interval
        cells = {"method": self.method, "dataset": self.dataset,
                 "accuracy": f"{100 * self.accuracy:.1f} %",
                 "95 % interval": f"{100 * low:.1f} to {100 * high:.1f} %",
                 "n": f"{self.n}{self._not_used()}",
                 "ECE": f"{100 * self.ece:.1f} %", "time per image": _duration(self.seconds_per_image)}
        return pd.DataFrame([cells]).to_html(index=False, border=0)


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same images.

    difference: accuracy of a minus accuracy of b, a fraction; interval: its 95 % interval, (low, high)
    p:          exact McNemar test (two-sided binomial test on the images that only one of them got right)
    wins:       images that only a got right; losses: only b
    n:          images in common; left_out: images that only one of them has
    """

    a: str
    b: str
    n: int
    difference: float
    interval: tuple[float, float]
    p: float
    wins: int
    losses: int
    left_out: int = 0

    @property
    def tie(self) -> bool:
        """The interval of the difference includes 0."""
        return self.interval[0] <= 0 <= self.interval[1]

    @property
    def verdict(self) -> str:
        """"tie", "better" (a above b) or "worse"."""
        return "tie" if self.tie else "better" if self.difference > 0 else "worse"

    def row(self) -> dict:
        """One flat line for a table."""
        return {"a": self.a, "b": self.b, "n": self.n, "difference": self.difference, "low": self.interval[0],
                "high": self.interval[1], "p": self.p, "wins": self.wins, "losses": self.losses,
                "verdict": self.verdict}

    def __repr__(self):
        low, high = self.interval
        left_out = f"; {self.left_out} images that only one has left out" if self.left_out else ""
        return (f"{self.a} minus {self.b}: {100 * self.difference:+.1f} points (95 % interval "
                f"{100 * low:+.1f} to {100 * high:+.1f}): {self.verdict}; n = {self.n}, {self.wins} wins, "
                f"{self.losses} losses, McNemar p = {self.p:.2g}{left_out}")


def summarise(method, dataset, seed, records, **more) -> Result:
    """The `Result` that a DataFrame of records gives."""
    correct = records["correct"].to_numpy()
    n, right = len(correct), int(correct.sum())
    confidence = torch.tensor(records["confidence"].to_numpy(), dtype=torch.float32).clamp(0, 1)     # [n]
    ece = binary_calibration_error(confidence, torch.tensor(correct), n_bins=ECE_BINS, norm="l1")
    return Result(method, dataset, seed, n, right / n, wilson(right, n), float(ece),
                  float(records["seconds"].mean()), records, **more)


def compare(a, b) -> Comparison:
    """Is `a` better than `b` on the images that both have seen?

    a, b: `Result`s, DataFrames of records, or paths of their CSV files. The interval is Newcombe's
    (Statistics in Medicine 17, 1998, p. 2635, method 10): Wilson's limits of both accuracies, joined with the
    correlation of the pairs. A difference whose interval includes 0 is a tie. Raises ValueError where the two
    have no image in common or disagree on a label."""
    (name_a, data_a, rows_a), (name_b, data_b, rows_b) = _records_of(a, "a"), _records_of(b, "b")
    if data_a and data_b and data_a != data_b:
        raise ValueError(f"{name_a} was evaluated on {data_a!r} and {name_b} on {data_b!r}; "
                         "compare results of one dataset")
    both = rows_a.merge(rows_b, on="image", suffixes=("_a", "_b"), validate="one_to_one")
    if both.empty:
        raise ValueError(f"{name_a} and {name_b} have no image in common; evaluate both with one "
                         "dataset and seed")
    differ = int((both["label_a"] != both["label_b"]).sum())
    if differ:
        raise ValueError(f"{name_a} and {name_b} have different labels for {differ} images; their records "
                         "are of different datasets or class lists")
    right_a, right_b = both["correct_a"].astype(bool), both["correct_b"].astype(bool)
    table = [[int((right_a & right_b).sum()), int((right_a & ~right_b).sum())],
             [int((~right_a & right_b).sum()), int((~right_a & ~right_b).sum())]]
    (_, wins), (losses, _) = table
    p = float(mcnemar(table, exact=True).pvalue)
    left_out = len(rows_a) + len(rows_b) - 2 * len(both)
    difference = (wins - losses) / len(both)
    return Comparison(name_a, name_b, len(both), difference, newcombe(table), p, wins, losses, left_out)


def newcombe(table) -> tuple[float, float]:
    """95 % interval of a difference of paired proportions, p_a - p_b (Newcombe 1998, method 10).

    table: [[both right, only a right], [only b right, both wrong]]"""
    (e, f), (g, h) = table
    n = e + f + g + h
    p_a, p_b = (e + f) / n, (e + g) / n
    (low_a, high_a), (low_b, high_b) = wilson(e + f, n), wilson(e + g, n)
    product = (e + f) * (g + h) * (e + g) * (f + h)
    cross = e * h - f * g
    phi = (max(cross - n / 2, 0) if cross > 0 else cross) / math.sqrt(product) if product else 0.0

    def arm(x, y):                                        # x and y: distances from an accuracy to its limit
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    d = p_a - p_b
    return d - arm(p_a - low_a, high_b - p_b), d + arm(high_a - p_a, p_b - low_b)


# ---- parts ------------------------------------------------------------------------------------------
def _reasons(left_out) -> list[str]:
    return [f"{n} {reason}" for reason, n in left_out.items()]


def _records_of(x, which):
    if isinstance(x, Result):
        return x.method, x.dataset, x.records
    if isinstance(x, pd.DataFrame):
        name, rows = which, x
    elif isinstance(x, (str, Path)):
        name, text = Path(x).stem, Path(x).read_text(encoding="utf-8")
        whole = io.StringIO(text[:text.rfind("\n") + 1])   # without the line that a kill may have torn
        rows = pd.read_csv(whole, dtype={"image": str, "top5": str}, keep_default_na=False)
    else:
        raise TypeError(f"{which}={type(x).__name__}: expected a Result, a DataFrame of records or "
                        "the path of their CSV")
    lacking = [column for column in ("image", "label", "correct") if column not in rows]
    if lacking:
        raise ValueError(f"{name} has no column {', '.join(lacking)}; expected records that evaluate wrote")
    return name, None, rows


def wilson(right, n) -> tuple[float, float]:
    """95 % interval (Wilson 1927) of the accuracy right / n, (low, high)."""
    low, high = proportion_confint(right, n, alpha=0.05, method="wilson")
    return float(max(low, 0.0)), float(min(high, 1.0))


def _duration(seconds) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
