"""What an evaluation found, and whether one method is better than another on the same images.

Everything here is computed from records (one row per image, see records.py) and from nothing else.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional.classification import binary_calibration_error

from ..files.paths import read_text
from .resampling import bootstrap, class_interval, paired

ECE_BINS = 15
NOT_TOLD_APART, LEVEL = "not told apart", "level"


@dataclass(frozen=True)
class Result:
    """What `evaluate` found. `accuracy`, `interval` and `ece` are fractions in [0, 1].

    interval:          95 % interval of the accuracy, (low, high): over resampled classes, and nowhere
                       narrower than Wilson's (1927) for independent images
    ece:               expected calibration error, 15 bins of equal width (Guo et al. 2017)
    ece_interval:      its 95 % interval, from classes drawn with replacement (see resampling.py)
    seconds_per_image: mean over all records of the time in `predict`. An image was timed when it was
                       predicted, so a break in the run does not count
    records:           DataFrame, one row per image: image, label, prediction, correct, confidence (largest
                       probability), entropy (nats), entropy_before (before a method tuned its prompts on the
                       image, else the same), top5 (labels, best first), seconds, seed
    seed:              of the choice of images, `sample_seed` of `evaluate`
    n:                 number of images predicted
    skipped:           images that could not be read, [(image id, reason)]; not among the n
    found:             number of pictures that the data set has, used or not; None where it does not say
    left_out:          {reason: number} of pictures that are no part of the data set (see `Dataset`)
    origin:            what the data set is of: "mini", "full", "partial", "own", or "" (see `Dataset`)
    resumed:           how many of the n were read from an earlier run's records
    path:              the file of the records, or None
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
    ece_interval: tuple[float, float] = (math.nan, math.nan)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    found: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    origin: str = ""
    resumed: int = 0
    path: Path | None = None

    def row(self) -> dict[str, Any]:
        """One flat line for a table, with the columns of results/mini/*.csv."""
        low, high = self.interval
        return {"method": self.method, "dataset": self.dataset, "origin": self.origin, "seed": self.seed,
                "n": self.n, "accuracy": self.accuracy, "low": low, "high": high, "ece": self.ece,
                "ece_low": self.ece_interval[0], "ece_high": self.ece_interval[1],
                "seconds_per_image": self.seconds_per_image, "skipped": len(self.skipped),
                "found": self.found, "left_out": "; ".join(_reasons(self.left_out))}

    def _in_words(self) -> dict[str, str]:
        low, high = self.interval
        plural, seconds = "s" * (len(self.skipped) > 1), self.seconds_per_image
        sure = f" ({100 * self.ece_interval[0]:.1f} to {100 * self.ece_interval[1]:.1f})"
        missing = [f"{len(self.skipped)} unreadable image{plural} skipped"] * bool(self.skipped)
        missing += [f"left out: {reason}" for reason in _reasons(self.left_out)]
        found = f" of {self.found} found" if missing and self.found is not None else ""
        return {"method": self.method, "dataset": self.dataset, "accuracy": f"{100 * self.accuracy:.1f} %",
                "95 % interval": f"{100 * low:.1f} to {100 * high:.1f} %",
                "n": f"{self.n}{found}" + (f" ({', '.join(missing)})" if missing else ""),
                "ECE": f"{100 * self.ece:.1f} %" + sure * (self.ece_interval[0] == self.ece_interval[0]),
                "time per image": f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"}

    def __repr__(self) -> str:
        said = self._in_words()
        return (f"{self.method} on {self.dataset}: {said['accuracy']} (95 % interval "
                f"{said['95 % interval'].removesuffix(' %')}), n = {said['n']}, ECE {said['ECE']}, "
                f"{said['time per image']} per image")

    def _repr_html_(self) -> str:
        return pd.DataFrame([self._in_words()]).to_html(index=False, border=0)


@dataclass(frozen=True)
class Comparison:
    """Two methods, a and b, on the same images.

    n:          number of images that both have; left_out: of images that only one of them has
    classes:    number of classes that these images are of
    difference: accuracy of a minus accuracy of b, a fraction; interval: its 95 % interval, (low, high)
    p:          two-sided, of the same procedure as the interval: both resample classes (resampling.py)
    margin:     differences up to this size count as none: what the caller says, None if nothing was said
    wins:       number of images that only a got right; losses: that only b got right
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
    classes: int = 0
    margin: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference leaves 0 out. If not, nothing shows that a and b differ,
        and nothing shows that they are equal."""
        return self.verdict in ("better", "worse")

    @property
    def verdict(self) -> str:
        """"better" (a above b), "worse", "level" where the whole interval is within the margin, or "not told
        apart"."""
        return verdict(*self.interval, margin=self.margin)

    def row(self) -> dict[str, Any]:
        """One flat line for a table."""
        return {"a": self.a, "b": self.b, "n": self.n, "difference": self.difference, "low": self.interval[0],
                "high": self.interval[1], "p": self.p, "wins": self.wins, "losses": self.losses,
                "classes": self.classes, "verdict": self.verdict}

    def __repr__(self) -> str:
        low, high = self.interval
        left_out = f"; {self.left_out} images that only one has left out" if self.left_out else ""
        return (f"{self.a} minus {self.b}: {100 * self.difference:+.1f} points (95 % interval "
                f"{100 * low:+.1f} to {100 * high:+.1f}): {self.verdict}; n = {self.n} of {self.classes} "
                f"classes, {self.wins} wins, {self.losses} losses, p = {self.p:.2g}{left_out}")


def verdict(low: float, high: float, above: str = "better", below: str = "worse",
            margin: float | None = None) -> str:
    """What the interval (low, high) of a difference shows: `above` 0, `below` 0, or that 0 is within it.

    margin: an interval within -margin … margin shows that the two are "level", whatever its sign."""
    if margin is not None and -margin <= low and high <= margin:
        return LEVEL
    return above if low > 0 else below if high < 0 else NOT_TOLD_APART


def summarise(method: str, dataset: str, seed: int, records: pd.DataFrame, **more: Any) -> Result:
    """The `Result` that a DataFrame of records gives; `more` are fields that the records do not decide."""
    correct, labels = records["correct"].to_numpy(), records["label"].to_numpy()
    confidence = records["confidence"].to_numpy()
    ece, *ends = calibration_error(confidence, correct, labels)
    return Result(method, dataset, seed, len(correct), float(correct.mean()),
                  accuracy_interval(correct, labels), ece, float(records["seconds"].mean()), records,
                  ece_interval=(ends[0], ends[1]), **more)


def accuracy_interval(correct: Sequence[float] | np.ndarray, labels: Sequence[int] | np.ndarray
                      ) -> tuple[float, float]:
    """95 % interval (low, high) of an accuracy: over resampled classes, and nowhere narrower than Wilson's.

    correct: [n], 0 or 1, or means over seeds; labels: [n]. Wilson's is wider where nearly all images are
    right or nearly all wrong, and where there are few."""
    mean, low, high = class_interval(correct, labels)
    independent = wilson(mean * len(correct), len(correct))
    return max(0.0, min(low, independent[0])), min(1.0, max(high, independent[1]))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, labels: np.ndarray
                      ) -> tuple[float, float, float]:
    """Expected calibration error, ECE_BINS bins of equal width (Guo et al. 2017), and its 95 % interval.

    Arrays [n]. The interval is of classes drawn with replacement, and moved by the bias that the draws show:
    resampled images have a larger error than the images."""
    p, right = torch.tensor(confidence, dtype=torch.float32).clamp(0, 1), torch.tensor(correct)
    value = float(binary_calibration_error(p, right, n_bins=ECE_BINS, norm="l1"))
    bins = torch.bucketize(p, torch.linspace(0, 1, ECE_BINS + 1), right=True).numpy() - 1
    parts = np.zeros((len(p), ECE_BINS + 2))               # gaps by bin (the last: p = 1), and the number
    parts[np.arange(len(p)), bins] = (right - p).numpy()
    parts[:, -1] = 1
    sums = bootstrap(parts, labels)
    draws = np.abs(sums[:, :-1]).sum(1) / sums[:, -1]
    low, high = np.quantile(draws, (0.025, 0.975)) - (draws.mean() - value)
    return value, float(max(min(low, value), 0.0)), float(min(max(high, value), 1.0))


def compare(a: Result | pd.DataFrame | str | Path, b: Result | pd.DataFrame | str | Path,
            margin: float | None = None) -> Comparison:
    """Is `a` better than `b` on the images that both have seen?

    a, b: `Result`s, DataFrames of records, or paths of their CSV files. Interval and p resample classes, for
    images of one class are not independent (resampling.py). Where the interval includes 0 the two are "not
    told apart"; "level" takes a `margin`, the largest difference (a fraction) that counts as none. Raises
    ValueError where they have no image in common or disagree on a label, and for a margin below 0."""
    if margin is not None and not margin > 0:
        raise ValueError(f"margin={margin}: expected a fraction above 0, as 0.01 for one point, or None")
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
    gap = both["correct_a"].astype(int) - both["correct_b"].astype(int)
    found = paired(gap.to_numpy(), both["label_a"].to_numpy())
    return Comparison(name_a, name_b, len(both), found.difference, (found.low, found.high), found.p,
                      int((gap > 0).sum()), int((gap < 0).sum()), len(rows_a) + len(rows_b) - 2 * len(both),
                      both["label_a"].nunique(), margin)


def wilson(right: float, n: int) -> tuple[float, float]:
    """95 % interval (Wilson 1927) of the accuracy right / n, (low, high)."""
    low, high = proportion_confint(right, n, alpha=0.05, method="wilson")
    return float(max(low, 0.0)), float(min(high, 1.0))


# ---- parts ------------------------------------------------------------------------------------------
def _reasons(left_out: dict[str, int]) -> list[str]:
    return [f"{n} {reason}" for reason, n in left_out.items()]


def _records_of(x: Result | pd.DataFrame | str | Path, which: str) -> tuple[str, str | None, pd.DataFrame]:
    """(name, data set or None, records) of an argument of `compare`."""
    if isinstance(x, Result):
        return x.method, x.dataset, x.records
    if isinstance(x, pd.DataFrame):
        name, rows = which, x
    elif isinstance(x, (str, Path)):
        name, text = Path(x).stem, read_text(x)
        whole = io.StringIO(text[:text.rfind("\n") + 1])   # a kill may have torn the last line
        rows = pd.read_csv(whole, dtype={"image": str, "top5": str}, keep_default_na=False)
    else:
        raise TypeError(f"{which}={type(x).__name__}: expected a Result, a DataFrame of records or "
                        "the path of their CSV")
    lacking = [column for column in ("image", "label", "correct") if column not in rows]
    if lacking:
        raise ValueError(f"{name} has no column {', '.join(lacking)}; expected records that evaluate wrote")
    return name, None, rows
