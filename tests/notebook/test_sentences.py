"""Sentences that say what comparisons show, number for number."""
import numpy as np
import pandas as pd
import pytest

from minipsync.evaluation import resampling
from minipsync.evaluation.results import Comparison
from minipsync.notebook.sentences import grouped, points, say, told


def comparison(difference, low, high, margin=None):
    return Comparison("a", "b", 100, difference, (low, high), 0.5, 3, 1, classes=20, margin=margin)


BETTER, WORSE = comparison(0.0213, 0.003, 0.0391), comparison(-0.05, -0.071, -0.032)
OPEN, EVEN = comparison(0.004, -0.012, 0.02), comparison(0.001, -0.004, 0.006, margin=0.01)


@pytest.mark.parametrize("c, sentence", [
    (BETTER, "better by 2.1 points (0.3 to 3.9)"), (WORSE, "worse by 5.0 points (3.2 to 7.1)"),
    (OPEN, "not told apart (+0.4, −1.2 to 2.0)"), (EVEN, "level (+0.1, −0.4 to 0.6)")])
def test_told(c, sentence):
    assert told(c) == sentence


def test_grouped_leaves_no_comparison_out():
    text = grouped({"tpt": OPEN, "maple": BETTER, "coop": WORSE, "ivlp": BETTER, "x": EVEN})
    assert text == ("**Better**: maple +2.1 (0.3 to 3.9); ivlp +2.1 (0.3 to 3.9). "
                    "**Worse**: coop −5.0 (−7.1 to −3.2). "
                    "**Level**: x +0.1 (−0.4 to 0.6). **Not told apart**: tpt +0.4 (−1.2 to 2.0).")
    assert grouped({}) == "" and points(WORSE) == "−5.0 (−7.1 to −3.2)"


def test_differences_of_other_makes():
    """What `paired` gives, and a row of a table, say the same as a comparison."""
    found = resampling.paired(np.repeat([1.0, 0.0, 0.0, 1.0], 5), np.arange(20) // 2)
    same = comparison(found.difference, found.low, found.high)
    row = next(pd.DataFrame([same.row()]).itertuples())
    assert told(found) == told(same) == told(row) and grouped({"a": found}) == grouped({"a": row})


def test_say_is_a_paragraph():
    assert say("MaPLe is", told(BETTER) + ".").data == "MaPLe is better by 2.1 points (0.3 to 3.9)."
