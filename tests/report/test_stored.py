"""Stored tables as notebooks show them: means over seeds, differences to one method, nothing for others."""
import numpy as np
import pandas as pd
import pytest

from minipsync.report import stored as module
from minipsync.report.stored import AVERAGES, accuracies, against, beside, halves_averaged, stored

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


def test_published_numbers_stand_in_columns_of_their_own():
    rows = pd.DataFrame([("tpt", "v2", 0.5), ("tpt", "v2", 0.7), ("promptsync_star", "v2", 0.25)],
                        columns=["method", "dataset", "accuracy"])
    both = beside(rows, datasets=["v2", "sketch"])
    assert list(both.index) == ["tpt"]                             # nothing was printed of PromptSync*
    assert list(both.columns) == [(side, name) for side in ("published, ViT-B/16", "mini")
                                  for name in ("v2", "sketch")]
    assert both.loc["tpt"].tolist()[:3] == [63.45, 47.94, 60.0] and np.isnan(both.iloc[0, 3])
    alone = beside(rows, "mini", datasets=["pug"])
    assert list(alone.index) == ["tpt", "promptsync_star"] and alone.isna().all(axis=None)
    renamed = beside(rows.replace("tpt", "tpt + coop"), datasets=["v2"], printed={"tpt + coop": "TPT+CoOp"})
    assert renamed.index.tolist() == ["tpt + coop"]


def test_halves_are_averaged_over_seeds_then_data_sets():
    rows = pd.DataFrame([("maple", "s_base", .5), ("maple", "s_base", .7), ("maple", "t_base", .2),
                         ("maple", "s_novel", .3), ("maple", "t_novel", .1)],
                        columns=["method", "dataset", "accuracy"])
    means = halves_averaged(rows)
    assert means["dataset"].tolist() == [*AVERAGES]
    # not the mean of the three rows of base classes, and not the mean of two harmonic means
    assert means["accuracy"].tolist() == pytest.approx([.4, .2, 2 * .4 * .2 / .6])
    both = beside(means, "ours", "base_to_novel", AVERAGES)
    assert both.loc["maple"].tolist() == pytest.approx([82.28, 75.14, 78.55, 40, 20, 100 * .16 / .6])
