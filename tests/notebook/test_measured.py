"""What was measured, in lines of text: each method, and pairs on the same images."""

import pandas as pd
import pytest

from minipsync.evaluation.results import summarise
from minipsync.notebook.tables import in_pairs, measured


def result(method, correct):
    records = pd.DataFrame({"image": [f"i{k}" for k in range(len(correct))], "label": range(len(correct)),
                            "correct": correct, "confidence": 0.5, "seconds": 0.25})
    return summarise(method, "sketch", 0, records)


RESULTS = {"a": result("a", [1, 1, 1, 0]), "b": result("b", [1, 0, 0, 1])}


def test_a_line_for_each_method():
    table = measured(RESULTS)
    assert list(table.index) == ["a", "b"]
    line = table.loc["a", ["accuracy, %", "n", "ECE, %", "ms per image"]]
    assert line.tolist() == ["75.0", 4, "25.0", "250"]
    low, high = RESULTS["a"].interval
    assert table.loc["a", "95 % interval"] == f"{100 * low:.1f} to {100 * high:.1f}"


def test_wins_and_losses_of_pairs_that_were_measured():
    table = in_pairs(RESULTS, [("a", "b"), ("a", "never measured")])
    assert list(table.index) == ["a − b"]
    line = table.loc["a − b"]
    assert (line.wins, line.losses, line.verdict) == (2, 1, "not told apart")
    assert line["points (95 % interval)"].startswith("+25.0 (")


def test_no_pair_at_all_is_an_error():
    with pytest.raises(ValueError, match=r"pairs=\[\('a', 'c'\)\].*there are a, b"):
        in_pairs(RESULTS, [("a", "c")])
