"""Base to novel in a notebook: the protocol's numbers, pairs over data sets, little for a partial copy."""
import pytest

import minipsync as mp
from minipsync.evaluation.protocols import base_to_novel
from minipsync.notebook.halves import Halves, transfer_sets

METHODS = {"zero_shot": ("zero_shot", {}), "words": ("coop", {"n_ctx": 4, "init": "a photo of a"})}


@pytest.fixture(scope="module")
def halves():
    bench = mp.benchmark("mini")
    return Halves(bench, bench.own_clip, METHODS, ["animals", "vehicles", "animals"], [1, 3], limit=20)


def test_rows_are_the_protocol_s(halves):
    rows = halves.rows()
    assert len(rows) == 2 * 2 + 2 * 2 * 2 and set(rows["method"]) == set(METHODS)
    for label, (name, settings) in METHODS.items():
        ours = rows[rows["method"] == label].pivot(index=["dataset"], columns="seed", values="accuracy")
        for r in base_to_novel(halves.bench, name, ["animals", "vehicles"], [1, 3], limit=20, progress=False,
                               **settings).itertuples():
            seed = r.seed or 1                                     # zero-shot: the one line there is
            assert [ours.loc[f"{r.dataset}_{half}", seed] for half in ("base", "novel")] == [r.base, r.novel]


def test_one_seed_on_one_set_is_compare(halves):
    one = Halves(halves.bench, halves.clip, METHODS, ["vehicles"], [3], limit=20)
    c = mp.compare(*(one.results(label, "vehicles", "novel")[0] for label in ("words", "zero_shot")))
    d = one.difference("words", "zero_shot", "novel")
    assert (d.difference, d.low, d.high, d.p) == pytest.approx((c.difference, *c.interval, c.p))
    line = one.gains().set_index("classes").loc["novel"]
    assert (line.panel, line.line, line.difference) == ("vehicles", "words", d.difference)


def test_transfer_sets():
    mini = mp.benchmark("mini")
    assert {"animals", "vehicles"} < set(transfer_sets(mini)) < set(mini.names)
    full = transfer_sets(mp.benchmark("full"))
    assert len(full) == 10 and "oxford_pets" in full and "v2" not in full


def test_a_partial_copy_learns_from_little(halves, tmp_path, monkeypatch):
    monkeypatch.setattr(halves.bench, "partial", True, raising=False)
    small = Halves(halves.bench, halves.clip, METHODS, ["vehicles"], [1], tmp_path, limit=4)
    assert small.trained("words", "vehicles").history and len(small.results("words", "vehicles", "base")) == 1
    assert [file.name[:28] for file in tmp_path.iterdir()] == ["coop_vehicles_base_1shots_se"]
