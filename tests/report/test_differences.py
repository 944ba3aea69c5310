"""Differences of two methods over images, several seeds of prompts each."""
from types import SimpleNamespace

import pandas as pd
import pytest

from minipsync.report.differences import difference, observations


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
