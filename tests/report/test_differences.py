"""Differences of two methods over images, several seeds of prompts each."""
from types import SimpleNamespace

import pandas as pd
import pytest

from minipsync.evaluation.results import summarise
from minipsync.report.differences import difference, minus, observations, pooled


def some_results(*right):
    """A result a seed; right: {image: 0 or 1}, whose label is the image's first letter."""
    return [SimpleNamespace(records=pd.DataFrame({"image": list(own), "label": [name[0] for name in own],
                                                  "correct": list(own.values())})) for own in right]


def test_three_seeds_do_not_make_three_images():
    seen = observations(some_results({"a1": 1, "a2": 0, "b1": 1}, {"b1": 0, "a1": 1, "c1": 1}))
    assert seen["right"].to_dict() == {"a1": 1.0, "b1": 0.5}
    assert seen["class"].to_dict() == {"a1": "a", "b1": "b"}


def test_a_difference_is_over_the_images_that_both_have():
    a, b = (observations(some_results(right)) for right in ({"a1": 1, "a2": 1, "b1": 1, "z1": 0},
                                                            {"b1": 1, "a2": 0, "a1": 0, "y1": 1}))
    found = difference([(a, b)])
    assert (found.n, found.classes) == (3, 2) and found.difference == pytest.approx(2 / 3)
    both = difference([(a, b), (b, a)])                                # classes of one name are one class
    assert (both.n, both.classes, both.difference) == (6, 2, 0)
    assert difference([(a, observations(some_results({"x1": 1})))]) is None


def result(labels, *right, name="x"):
    """Results of one seed each: which of the images are right."""
    images = {"image": [f"{name}/{i}" for i in range(len(labels))], "label": labels, "seconds": .1,
              "confidence": .5}
    return [summarise("m", name, seed, pd.DataFrame(images | {"correct": each}))
            for seed, each in enumerate(right)]


def test_data_sets_weigh_the_same_and_seeds_make_no_images():
    a = {"x": result([0, 1], [1, 1], [1, 0]), "y": result([0] * 4, [1, 0, 0, 0], name="y")}
    b = {"x": result([0, 1], [0, 0]), "y": result([0] * 4, [0, 0, 0, 0], name="y")}
    names = {"x": ["cat", "dog"], "y": ["cat"]}
    assert pooled(a, b, names).difference == pytest.approx((.75 + .25) / 2)
    assert pooled(a, b, names) != pooled(a, b, names | {"y": ["bus"]})    # one class "cat" in both, or two
    with pytest.raises(ValueError, match="a is of x and b of x, y; expected the same data sets"):
        pooled({"x": a["x"]}, b, names)
    with pytest.raises(ValueError, match="x: results of different images"):
        pooled({"x": a["x"]}, {"x": result([0, 1, 1], [0, 0, 0])}, names)


def test_two_methods_on_one_set():
    labels = [0, 0, 1, 1, 2, 2]
    a = result(labels, [1, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0])
    b = result(labels, [0, 0, 0, 1, 1, 0])
    found = minus(a, b)
    assert (found.n, found.classes) == (6, 3)
    assert found.difference == pytest.approx((1 + 0.5 + 0 + 0 - 0.5 + 0) / 6)
    with pytest.raises(ValueError, match="m minus m: results of different images"):
        minus(a, result([0, 0], [1, 0]))
    with pytest.raises(ValueError, match="at least one seed"):
        observations([])
