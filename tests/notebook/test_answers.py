"""One image that a method wins and one that it loses, with what both methods say."""
import pytest

import minipsync as mp
from minipsync.notebook.answers import answers


@pytest.fixture(scope="module")
def two():
    bench = mp.benchmark("mini")
    data = bench.dataset("vehicles_base").subset(range(0, 144, 4))
    words = bench.build("coop", data, n_ctx=4, init="a photo of a", trained_on="vehicles_base", prompt_seed=1)
    plain = bench.build("zero_shot", data)
    return data, {"CoOp": (words, mp.evaluate(words, data, progress=False)),
                  "CLIP": (plain, mp.evaluate(plain, data, progress=False))}


def test_the_first_of_each_kind(two):
    data, pair = two
    c = mp.compare(pair["CoOp"][1], pair["CLIP"][1])
    shown = answers(pair, data)
    assert c.wins and c.losses and f"In all {c.wins} wins and {c.losses} losses" in shown.caption
    win, loss = shown.caption.split("A win, ")[1].split("A loss, ")
    for told, winner, loser in ((win, "CoOp", "CLIP"), (loss, "CLIP", "CoOp")):
        true = told.split("”")[0]
        assert f"{winner} says {true}”" in told and f"{loser} says {true}”" not in told
    turned = answers(dict(reversed(pair.items())), data)
    assert f"In all {c.losses} wins and {c.wins} losses" in turned.caption


def test_nothing_to_show(two):
    data, pair = two
    same = {"a": pair["CLIP"], "b": pair["CLIP"]}
    assert answers(same, data) is None
    with pytest.raises(ValueError, match="pair has 1 methods; expected two"):
        answers({"a": pair["CLIP"]}, data)
    with pytest.raises(ValueError, match="coop knows other classes than vehicles_novel: call"):
        answers(pair, mp.benchmark("mini").dataset("vehicles_novel"))
