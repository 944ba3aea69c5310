"""How many images a comparison needs: the formula against a simulation and by hand."""
import numpy as np
import pytest

from benchmarks.power import images_needed, measured
from minipsync.evaluation.resampling import paired


def test_images_needed_by_hand():
    """d = 0.1, D = 0.02: (2.8016 / 0.02)^2 * 0.1 = 1962.2; twice that at five of a class and r = 0.25."""
    assert images_needed(0.02, 0.1, 0.0, 5) == 1963
    assert images_needed(0.02, 0.1, 0.25, 5) == 3925


def test_what_is_measured():
    alike = np.repeat([1, -1, 0, 0], 5)                                  # whole classes differ: r = 1
    assert measured(alike, np.repeat(range(4), 5)) == (0.5, pytest.approx(1), 5)
    rng = np.random.RandomState(0)
    gap = rng.choice([-1, 0, 1], 4000, p=[.1, .8, .1])                   # independent: r is 0
    discordant, r, each = measured(gap, np.repeat(range(800), 5))
    assert each == 5 and abs(discordant - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 4000) and r < 4 / np.sqrt(4000 * 2)


def test_so_many_images_have_that_power():
    """400 experiments of the size that the formula asks for, half of the classes alike within: 80 % tell the
    difference, within 4 binomial standard errors (8 points)."""
    rng, n, difference = np.random.RandomState(1), 0, 0.05
    found = []
    for _ in range(400):
        classes = images_needed(difference, 0.25, 0.5, 2) // 2
        each = rng.choice([-1, 0, 1], (classes, 2), p=[.1, .75, .15])
        same = rng.uniform(size=classes) < 0.5                           # both images agree: r = 0.5
        each[same, 1] = each[same, 0]
        found.append(paired(each.ravel(), np.repeat(range(classes), 2)).p < 0.05)
        n += 1
    assert abs(np.mean(found) - 0.8) < 4 * np.sqrt(0.8 * 0.2 / n)
