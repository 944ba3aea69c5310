"""Intervals and tests that resample classes: worked examples, coverage, agreement of interval and p."""
import itertools

import numpy as np
import pytest

from minipsync.evaluation.resampling import EXACT, LEVEL, bootstrap, class_interval, holm, paired
from minipsync.evaluation.results import wilson


def clustered(rng, classes: int, each: int = 5, spread: float = 0.3):
    """Answers (right or wrong) of classes that are hard or easy, and whose true mean is 0.5."""
    chance = 0.5 + spread * rng.choice([-1, 1], classes)
    return (rng.uniform(size=(classes, each)) < chance[:, None]).astype(float).ravel(), \
        np.repeat(np.arange(classes), each)


def test_sign_flips_of_few_classes_are_counted():
    """Five classes, one of them with no difference: of 16 ways to flip the signs two give a sum of 4."""
    gaps, classes = [1, 1, 1, 1, -1, 1, 0], [0, 1, 2, 3, 4, 4, 4]         # totals 1, 1, 1, 1, 0
    flips = [sum(signs) for signs in itertools.product((-1, 1), repeat=4)]
    assert paired(gaps, classes).p == sum(abs(total) >= 4 for total in flips) / len(flips) == 2 / 16
    assert paired([1] * 5, range(5)).p == 2 / 32 and paired([1] * 6, range(6)).p == 2 / 64
    assert paired([1] * 5, range(5))[:3] == (1, -(1 - 0.05 ** (1 / 5)), 1)      # five can show nothing
    assert paired([1] * 6, range(6))[:3] == (1, 1, 1)


@pytest.mark.parametrize("seed", range(8))
def test_interval_and_p_agree(seed):
    """One procedure: the interval leaves 0 out if and only if p < 0.05, for few classes and for many."""
    rng, told = np.random.RandomState(seed), 0
    for classes in (3, 6, EXACT, EXACT + 1, 40, 200):
        for shift in np.linspace(-0.4, 0.4, 9):
            gap = np.sign(rng.uniform(-1, 1, 5 * classes) + shift) * (rng.uniform(size=5 * classes) < 0.4)
            found = paired(gap, np.repeat(np.arange(classes), 5))
            assert found.low <= found.difference <= found.high
            assert (found.p < LEVEL) == (not found.low <= 0 <= found.high)
            told += found.p < LEVEL
    assert 10 < told < 54


def test_a_true_null_is_refused_in_five_percent():
    """1,000 tests of nothing, 30 classes: 5 % refused, within 4 binomial standard errors; a test that takes
    images for independent refuses far more often."""
    rng, refused, naive, n = np.random.RandomState(0), 0, 0, 1000
    for _ in range(n):
        a, classes = clustered(rng, 30)
        gap = a - 0.5
        refused += paired(gap, classes).p < LEVEL
        naive += abs(gap.mean()) > 1.96 * gap.std() / np.sqrt(len(gap))
    assert abs(refused / n - 0.05) < 4 * np.sqrt(0.05 * 0.95 / n)
    assert naive / n > 0.12


def test_the_interval_of_an_accuracy_covers():
    """1,000 samples of 60 classes: 95 % cover, within 4 binomial standard errors and the 1.5 points that a
    quantile of 60 classes is off; Wilson's, for independent images, covers less."""
    rng, covered, wilsons, n = np.random.RandomState(1), 0, 0, 1000
    for _ in range(n):
        right, classes = clustered(rng, 60)
        _, low, high = class_interval(right, classes)
        covered += low <= 0.5 <= high
        low, high = wilson(right.sum(), len(right))
        wilsons += low <= 0.5 <= high
    assert abs(covered / n - 0.95) < 4 * np.sqrt(0.05 * 0.95 / n) + 0.015
    assert wilsons / n < 0.90


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_few_classes_have_wide_intervals(classes):
    """1,000 samples of normal class effects: 95 % at least cover, within 4 binomial standard errors."""
    rng, covered, n = np.random.RandomState(classes), np.zeros(2), 1000
    for _ in range(n):
        gap, labels = np.repeat(rng.normal(0.25, 0.2, classes), 2), np.repeat(np.arange(classes), 2)
        _, low, high = class_interval(gap, labels)
        found = paired(gap, labels)
        covered += low <= 0.25 <= high, found.low <= 0.25 <= found.high
    assert (covered / n > 0.95 - 4 * np.sqrt(0.95 * 0.05 / n)).all()


def test_the_same_numbers_every_time_and_in_any_order():
    rng = np.random.RandomState(2)
    right, classes = clustered(rng, 25)
    order = rng.permutation(len(right))
    assert class_interval(right, classes) == class_interval(right[order], classes[order])
    assert paired(right - 0.4, classes) == pytest.approx(paired(right[order] - 0.4, classes[order]))
    names = np.array([f"class {c:02d}" for c in classes])
    assert class_interval(right, names) == class_interval(right, classes)
    assert class_interval(right, classes) != class_interval(right, classes, seed=1)


def test_weights_count_data_sets_equally():
    """Ten images of one set and a thousand of another: the average of the two, not the pool."""
    gap = np.r_[np.ones(10), np.zeros(1000)]
    classes = np.r_[np.arange(10), np.arange(1000) % 10]
    weights = np.r_[np.full(10, 1 / 10), np.full(1000, 1 / 1000)]
    assert paired(gap, classes, weights).difference == pytest.approx(0.5)
    assert paired(gap, classes).difference == pytest.approx(10 / 1010)


def test_no_difference_anywhere_is_no_proof_of_equality():
    """A rate that was 0 in n classes is below 1 - 0.05^(1/n) with 95 % confidence, "three in n"."""
    found = paired(np.zeros(300), np.repeat(np.arange(100), 3))
    assert found == (0, -found.high, pytest.approx(1 - 0.05**0.01), 1) and 0.029 < found.high < 0.03


@pytest.mark.parametrize("classes, differ", [(2, 2), (50, 1), (50, 4)])
def test_few_differences_are_no_proof_of_equality_either(classes, differ):
    """One small difference in fifty classes is not surer than none: the interval is as wide at least."""
    gap = np.zeros((classes, 10))
    gap[:differ, 0] = 1
    none, some = (paired(g.ravel(), np.repeat(np.arange(classes), 10)) for g in (0 * gap, gap))
    assert some.low <= none.low and some.high >= none.high and some.p > LEVEL


@pytest.mark.parametrize("arguments", [([], []), ([1.0], [0, 1]), ([1.0, 2.0], [0, 1], [1.0])])
def test_what_does_not_belong_together(arguments):
    with pytest.raises(ValueError, match="expected one or more images, and a value, a class and a weight"):
        paired(*arguments)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])   # x 3, (2), 2, 4
    assert holm([]) == []


def test_bootstrap_sums_are_of_whole_classes():
    sums = bootstrap(np.array([[1.0, 1], [2, 1], [40, 1]]), ["a", "a", "b"], draws=50)
    assert {tuple(row) for row in sums} == {(6.0, 4.0), (43.0, 3.0), (80.0, 2.0)}
