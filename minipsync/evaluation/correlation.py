"""How many independent images a sample is worth whose classes stand or fall together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .resampling import bootstrap

DRAWS = 1000


@dataclass(frozen=True)
class Correlation:
    """Within-class correlation of some values, each as (value, low, high) with a 95 % interval over classes.

    correlation:   one-way intraclass correlation, from the analysis of variance: (MSB - MSW) / (MSB +
                   (k - 1) MSW) with mean squares between and within classes and k images a class
    design_effect: 1 + (m - 1) correlation, m the number of images in the class of an average image (Kish); 1
                   for a correlation below 0
    worth:         n / design effect, the number of independent images that tell as much
    """

    correlation: tuple[float, float, float]
    design_effect: tuple[float, float, float]
    worth: tuple[float, float, float]


def within_class(values: Sequence[float] | np.ndarray, classes: Sequence | np.ndarray,
                 seed: int = 0) -> Correlation:
    """Correlation of `values` [n], as "was it right", among images of one of the `classes` [n].

    Raises ValueError where it does not exist: fewer than two classes, one image of each, or values that are
    all the same.
    """
    x = np.asarray(values, np.float64)
    if len(x) != len(classes):
        raise ValueError(f"{len(x)} values and {len(classes)} classes: expected one class for each value")
    _, code = np.unique(np.asarray(classes), return_inverse=True)
    sizes = np.bincount(code).astype(np.float64)                                                 # [C]
    if len(sizes) < 2 or len(sizes) == len(x):
        raise ValueError(f"{len(x)} images of {len(sizes)} classes: a correlation within classes needs two "
                         "classes, and two images of one")
    if np.ptp(x) == 0:
        raise ValueError(f"all {len(x)} values are {x[0]:g}: nothing varies, within classes or between")
    x = x - x.mean()                                       # the mean squares do not change, rounding does
    sums = np.stack([np.ones(len(sizes)), sizes, sizes ** 2, totals := np.bincount(code, x),
                     totals ** 2 / sizes, np.bincount(code, x * x)], 1)                          # [C, 6]
    value = float(_anova(sums.sum(0)))
    draws = _anova(bootstrap(sums, np.arange(len(sums)), DRAWS, seed))                           # [draws]
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    ends = (value, float(min(low, value)), float(max(high, value)))
    size = float((sizes ** 2).sum() / len(x))
    effect = [1 + (size - 1) * max(each, 0.0) for each in ends]
    worth = [len(x) / each for each in effect]
    return Correlation(ends, (effect[0], effect[1], effect[2]), (worth[0], worth[2], worth[1]))


def _anova(sums: np.ndarray) -> np.ndarray:
    """Intraclass correlations [...] from sums over classes [..., 6] of: 1, n_c, n_c^2, t_c, t_c^2 / n_c, and
    the squares; n_c is the size and t_c the total of a class. nan where nothing varies."""
    classes, n, squared_sizes, total, between, squares = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    varies = squares - total ** 2 / n > 1e-9 * squares     # else 0 / 0, or rounding by rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        msb = (between - total ** 2 / n) / (classes - 1)
        msw = (squares - between) / (n - classes)
        k = (n - squared_sizes / n) / (classes - 1)        # images a class, those of unequal classes weighed
        return np.where(varies, (msb - msw) / (msb + (k - 1) * msw), np.nan)
