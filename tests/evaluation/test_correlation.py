"""The correlation within classes, against the analysis of variance in loops, and quantiles over classes."""

import numpy as np
import pytest

from minipsync.evaluation.correlation import within_class
from minipsync.evaluation.headroom_rows import area_edges, class_quantile


def by_hand(values, classes):
    """(correlation, design effect) in loops, as a textbook has them."""
    groups = [[v for v, c in zip(values, classes, strict=True) if c == k] for k in sorted(set(classes))]
    n, mean = len(values), sum(values) / len(values)
    between = sum(len(g) * (sum(g) / len(g) - mean) ** 2 for g in groups) / (len(groups) - 1)
    within = sum((v - sum(g) / len(g)) ** 2 for g in groups for v in g) / (n - len(groups))
    squares = sum(len(g) ** 2 for g in groups)
    k = (n - squares / n) / (len(groups) - 1)
    icc = (between - within) / (between + (k - 1) * within)
    return icc, 1 + (squares / n - 1) * max(icc, 0)


def test_two_classes_of_three_with_pencil_and_paper():
    """Means 2/3 and 0: MSB = 2/3, MSW = (6/9) / 4 = 1/6, so (2/3 - 1/6) / (2/3 + 2/6) = 1/2; effect 2."""
    found = within_class([1, 1, 0, 0, 0, 0], ["a", "a", "a", "b", "b", "b"])
    assert found.correlation[0] == pytest.approx(0.5)
    assert found.design_effect[0] == pytest.approx(2) and found.worth[0] == pytest.approx(3)


@pytest.mark.parametrize("seed", range(4))
def test_classes_of_any_size(seed):
    rng = np.random.RandomState(seed)
    classes = rng.choice(9, size=60, p=np.arange(1, 10) / 45).tolist()
    chance = rng.rand(9) ** 2
    values = [float(rng.rand() < chance[c]) for c in classes]
    found, (icc, effect) = within_class(values, classes), by_hand(values, classes)
    assert found.correlation[0] == pytest.approx(icc) and found.design_effect[0] == pytest.approx(effect)
    assert found.worth[0] == pytest.approx(60 / effect)
    for value, low, high in (found.correlation, found.design_effect, found.worth):
        assert low <= value <= high and low < high
    assert found.worth[1] == pytest.approx(60 / found.design_effect[2])
    shuffled = rng.permutation(60)
    again = within_class(np.array(values)[shuffled], np.array(classes)[shuffled])
    assert again.correlation == pytest.approx(found.correlation)               # order does not count
    other = within_class(100 * np.array(values) - 7, classes)
    assert other.correlation == pytest.approx(found.correlation)               # neither do unit and origin


def test_extremes():
    same = within_class(np.repeat([1, 0, 1, 1, 0, 0], 4), np.repeat(np.arange(6), 4))
    assert same.correlation[0] == pytest.approx(1) and same.worth[0] == pytest.approx(6)     # a class is one
    apart = within_class(np.tile([1, 0], 6), np.repeat(np.arange(6), 2))
    assert apart.correlation[0] == pytest.approx(-1)
    assert apart.design_effect[0] == 1 and apart.worth == (12, 12, 12)         # never worth more than it is


def test_independent_images_are_worth_what_they_are():
    """Correlation 0: its interval holds 0, for 200 classes of 5. The estimate has a standard error of about
    sqrt(2 / (k (k - 1) C)) = 0.022."""
    rng = np.random.RandomState(0)
    found = within_class(rng.rand(1000) < 0.4, np.repeat(np.arange(200), 5))
    assert abs(found.correlation[0]) < 4 * 0.022 and found.correlation[1] < 0.02
    assert found.correlation[2] > 0 and 0.02 < found.correlation[2] - found.correlation[1] < 0.2


@pytest.mark.parametrize("values, classes, told", [
    ([1, 0, 1], [0, 1, 2], "3 images of 3 classes.*two images of one"),
    ([1, 0, 1], [0, 0, 0], "3 images of 1 classes.*needs two classes"),
    ([1, 1, 1, 1], [0, 0, 1, 1], "all 4 values are 1"), ([0, 0, 0, 0], [0, 0, 1, 1], "all 4 values are 0"),
    ([1, 0], [0], "2 values and 1 classes")])
def test_where_there_is_none(values, classes, told):
    with pytest.raises(ValueError, match=told):
        within_class(values, classes)


@pytest.mark.parametrize("share, wanted", [(0.1, 1.0), (0.5, 5.0), (0.9, 9.0), (0.95, 10.0)])
def test_quantile(share, wanted):
    values = np.random.RandomState(0).permutation(10) + 1.0
    value, low, high = class_quantile(values, np.arange(10), share)
    assert value == wanted and low <= value <= high and {low, high} <= set(values)
    assert class_quantile(values, np.arange(10), share) == (value, low, high)
    assert class_quantile(values, np.zeros(10), share) == (wanted, wanted, wanted)    # one class


def test_quantile_of_infinite_margins():
    assert class_quantile([np.inf, np.inf], [0, 1], 0.5) == (np.inf,) * 3


@pytest.mark.parametrize("scale, edges", [
    ((0.08, 1), [0.08, 0.2, 0.4, 0.6, 0.8, 1]), ((0.25, 0.5), [0.25, 0.4, 0.5]), ((0.2, 0.4), [0.2, 0.4]),
    ((1, 1), [1, 1])])
def test_edges_of_areas(scale, edges):
    assert area_edges(*scale) == edges
