"""Differences in the tables of results/mini: the same images, the same seeds, families of Holm's."""
import numpy as np
import pandas as pd
import pytest

from benchmarks.mini_tables import AVERAGES, differences, gaps
from minipsync.evaluation import resampling


def records(right, classes=20, first=0):
    """Records of images of `classes` classes in turn."""
    return pd.DataFrame({"image": [f"{i + first}" for i in range(len(right))], "correct": right,
                         "label": (np.arange(len(right)) + first) % classes})


def test_gaps_are_of_the_seeds_that_both_have():
    """Seed 1 of the slow row against seed 1 of the other, not against its mean over three."""
    good, bad = records([1, 1, 1, 1], 4), records([0, 0, 0, 0], 4)
    assert gaps({1: good}, {1: good, 2: bad, 3: bad})["gap"].tolist() == [0] * 4
    assert gaps({1: good, 2: bad}, {0: bad})["gap"].tolist() == [0.5] * 4    # no prompts: all seeds
    assert len(gaps({1: good}, {1: records([0, 0], 4, first=2)})) == 2           # images that both have


def test_averages_count_data_sets_alike_and_resample_their_classes_together():
    rng = np.random.RandomState(0)
    sets = {"v2": 40, "sketch": 80, "a": 40, "r": 40}
    drawn = {(label, d): {0: records(rng.rand(n) < share)} for d, n in sets.items()
             for label, share in (("new", 0.8), ("old", 0.3))}
    table = differences(drawn, ["old"], AVERAGES["domain_generalisation"]).set_index("dataset")
    alone = [table.difference[d] for d in sets]
    assert table.difference["ood_average"] == pytest.approx(np.mean(alone))
    assert table.classes["ood_average"] == 20 and table.n["ood_average"] == 200
    # one comparison is a family by itself, the four single sets are another
    assert table.p_holm["ood_average"] == table.p["ood_average"]
    assert table.p_holm[list(sets)].tolist() == resampling.holm([table.p[d] for d in sets])


def test_a_table_without_a_member_has_no_average():
    drawn = {(label, d): {0: records([1, 0, 1, 0])} for d in ("v2", "sketch") for label in ("new", "old")}
    assert set(differences(drawn, ["old"], AVERAGES["domain_generalisation"]).dataset) == {"v2", "sketch"}
