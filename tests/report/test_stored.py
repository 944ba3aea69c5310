"""Stored tables as notebooks show them: means over seeds, differences to one method, nothing for others."""
import pandas as pd
import pytest

from minipsync.report import stored as module
from minipsync.report.stored import accuracies, against, stored

TABLE = pd.DataFrame({"method": ["b", "b", "a"], "dataset": ["s", "s", "s"], "seed": [1, 2, 0],
                      "accuracy": [.5, .6, .4], "low": [.4, .5, .3], "high": [.6, .7, .5]})
PAIRS = pd.DataFrame({"a": ["b", "c"], "b": ["a", "b"], "dataset": ["s", "s"], "difference": [.15, -.02],
                      "low": [.05, -.1], "high": [.25, .06]})


def test_means_over_seeds_in_the_table_s_order():
    wide = accuracies(TABLE)
    assert list(wide.index) == ["b", "a"]
    assert list(wide["s"]) == ["55.0  (45.0 to 65.0)", "40.0  (30.0 to 50.0)"]


def test_differences_to_one_method():
    assert against(PAIRS, "a")["s"].to_dict() == {"b": "+15.0  (+5.0 to +25.0)"}
    with pytest.raises(ValueError, match="reference='d': expected one of a, b"):
        against(PAIRS, "d")


def test_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    assert stored("t").shape == TABLE.shape
    assert stored("u") is None and stored("t", "full") is None
