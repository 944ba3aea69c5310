"""Intervals and tests that resample classes, not images.

Images of one class stand or fall together: one name, one text prompt, on mini even one drawing. So a
thousand images of two hundred classes are worth fewer independent ones, and an interval that takes them for
independent is too narrow. Here a class with all its images is one observation.

Both intervals and tests are Hartigan's (JASA 64, 1969, p. 1303): if the deviations of the classes are
symmetric, the true mean is as likely to lie below the mean of a random subset of classes as above it. So the
2.5 % and 97.5 % quantiles of such means are a 95 % interval, without a normal distribution; and that 0 lies
outside is what the sign-flip test of the classes says. An interval and its p can therefore not disagree.
Below six classes no p is under 0.05, so few can show nothing, and intervals are at least Student's.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t
from statsmodels.stats.multitest import multipletests

DRAWS, EXACT = 10_000, 12                          # all subsets of EXACT classes or fewer are taken
FEW = 6                                            # classes: with fewer no p can be below LEVEL
LEVEL = 0.05


class Paired(NamedTuple):
    """A mean difference with its 95 % interval, and p, two-sided, for a true mean of 0."""

    difference: float
    low: float
    high: float
    p: float


def class_interval(values: Sequence[float] | np.ndarray, classes: Sequence | np.ndarray,
                   weights: Sequence[float] | np.ndarray | None = None, seed: int = 0
                   ) -> tuple[float, float, float]:
    """The mean of `values` and its 95 % interval over resampled `classes`: (mean, low, high).

    values, classes, weights: [n], one for each image. An average over data sets that counts them equally has
    weights 1 / (number of images of the data set); classes that data sets share are then one class each, with
    its images of all of them. The same on every machine: subsets follow from `seed`. Raises ValueError for no
    image.
    """
    totals, sizes = _per_class(values, classes, weights)
    mean, means = float(totals.sum() / sizes.sum()), _subset_means(totals, sizes, seed)
    low, high = np.nanquantile(means, (LEVEL / 2, 1 - LEVEL / 2))
    arm = _student(totals, sizes)
    return mean, float(min(low, mean - arm)), float(max(high, mean + arm))


def paired(differences: Sequence[float] | np.ndarray, classes: Sequence | np.ndarray,
           weights: Sequence[float] | np.ndarray | None = None, seed: int = 0) -> Paired:
    """The mean of `differences`, between two methods on the same images, with its interval and its p.

    differences, classes, weights: [n], one for each image, as for `class_interval`. p is the sign-flip
    test's, exact up to EXACT classes with a difference. If fewer than FEW have one, the interval is at least
    that of a rate which was 0 in all classes, "three in C". Raises ValueError for no image.
    """
    totals, sizes = _per_class(differences, classes, weights)
    mean = float(totals.sum() / sizes.sum())
    some, arm = np.count_nonzero(totals), 1 - LEVEL ** (1 / len(totals))
    if not some:
        return Paired(0.0, -arm, arm, 1.0)
    means = np.nan_to_num(_subset_means(totals, sizes, seed))     # no class at all: no difference
    means[np.abs(means) < 1e-12] = 0.0                     # thirds of three seeds that add up to nothing
    own = int(some > EXACT)                                # draws are a sample: what was seen is one of them
    p = 2 * (min((means <= 0).sum(), (means >= 0).sum()) + own) / (len(means) + own)
    # these quantiles leave 0 out exactly where p < LEVEL; others interpolate
    rank = math.ceil(LEVEL / 2 * (len(means) + own)) - own - 1
    low, high = (float(sign * np.sort(sign * means)[rank]) for sign in (1, -1))
    if some < FEW:                                         # their subsets reach less far than 95 % would
        student = _student(totals, sizes)
        low, high = min(low, -arm, mean - student), max(high, arm, mean + student)
    return Paired(mean, min(low, mean), max(high, mean), float(min(1.0, p)))


def bootstrap(parts: np.ndarray, classes: Sequence | np.ndarray, draws: int = 1000, seed: int = 0
              ) -> np.ndarray:
    """Sums of `parts` [n, K] over classes drawn with replacement, one row for each draw, [draws, K].

    For what is no mean, as a calibration error, which is a function of such sums.
    """
    _, code = np.unique(np.asarray(classes), return_inverse=True)
    columns = np.asarray(parts, np.float64).T
    per_class = np.stack([np.bincount(code, column) for column in columns], 1)               # [C, K]
    number = len(per_class)
    times = np.random.RandomState(seed).multinomial(number, np.full(number, 1 / number), size=draws)
    return times @ per_class


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm, Scandinavian Journal of Statistics 6, 1979, p. 65)."""
    return multipletests(p, method="holm")[1].tolist() if len(p) else []


# ---- parts ------------------------------------------------------------------------------------------
def _per_class(values: Sequence[float] | np.ndarray, classes: Sequence | np.ndarray,
               weights: Sequence[float] | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums of weighted values and of weights for each class, [C] each."""
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(x) == 0 or not len(x) == len(classes) == len(w):
        raise ValueError(f"{len(x)} values, {len(classes)} classes and {len(w)} weights: expected one or "
                         "more images, and a value, a class and a weight for each")
    _, code = np.unique(np.asarray(classes), return_inverse=True)
    return np.bincount(code, x * w), np.bincount(code, w)


def _student(totals: np.ndarray, sizes: np.ndarray) -> float:
    """Half of Student's 95 % interval of the mean of a few class means; 0 from FEW on, and for one."""
    if not 1 < len(totals) < FEW:
        return 0.0
    spread = (totals / sizes).std(ddof=1) / math.sqrt(len(totals))
    return float(t.ppf(1 - LEVEL / 2, len(totals) - 1) * spread)


def _subset_means(totals: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """Means over DRAWS random subsets of classes, each in with probability 1/2; nan for the empty one.

    With few classes whose total is not 0 every subset of these occurs equally often, so that p is exact.
    """
    rng, some = np.random.RandomState(seed), np.flatnonzero(totals)
    inside = rng.randint(2, size=(DRAWS, len(totals)), dtype=np.uint8)                       # [draws, C]
    if 0 < len(some) <= EXACT:
        every = np.array(list(itertools.product((0, 1), repeat=len(some))), dtype=np.uint8)
        inside = inside[:DRAWS // len(every) * len(every)]
        inside[:, some] = np.tile(every, (len(inside) // len(every), 1))
    inside = inside.astype(np.float64)
    number = inside @ sizes
    return np.divide(inside @ totals, number, out=np.full(len(number), np.nan), where=number > 0)
