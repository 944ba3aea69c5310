"""The papers' protocols on small parts of the mini benchmark."""
import copy

import pandas as pd
import pytest
import torch

import minipsync as mp
from minipsync.evaluation.prompts import learned, prompt_file
from minipsync.evaluation.protocols import (
    average,
    base_to_novel,
    from_source,
    harmonic_mean,
)
from minipsync.methods.prompt_files import hand_over

QUICK = {"epochs": 2, "batch_size": 32, "lr": 1.0, "crop": (0.5, 1.0)}
WORDS = {"n_ctx": 4, "init": "a photo of a"}


@pytest.fixture(scope="module")
def bench():
    class Once(type(mp.benchmark("mini"))):
        """The mini benchmark with one CLIP for all tests and a source of few classes."""
        def clip(self, **settings):
            return clip

        def dataset(self, name, split="test"):
            data = super().dataset(name, split)
            return data.of_classes(range(0, 200, 25)) if name in ("imagenet", "sketch", "v2") else data
    clip = mp.load_clip("mini")
    return Once()


def test_harmonic_mean():
    assert harmonic_mean(0.8228, 0.7514) == pytest.approx(0.7855, abs=5e-5)     # MaPLe, table 3 of its paper
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_base_to_novel(bench, tmp_path):
    table = base_to_novel(bench, "coop", ["clothing"], seeds=(1, 2), folder=tmp_path, recipe=QUICK, limit=40,
                          progress=False, **WORDS)
    assert table["seed"].tolist() == [1, 2] and set(table["dataset"]) == {"clothing"}
    assert len(list(tmp_path.glob("*.safetensors"))) == 2 and not list(tmp_path.glob("*.training"))
    train, _ = bench.dataset("clothing", "train").halves()
    train.name = "clothing_base"
    coop = mp.build("coop", bench.clip(), train.class_names, seed=2, **WORDS).fit(train, progress=False,
                                                                                  **QUICK)
    base, novel = bench.dataset("clothing").halves()
    assert table["base"][1] == mp.evaluate(coop, base, 40, progress=False).accuracy
    novel.name = "clothing_novel"
    coop.set_class_names(novel.class_names)
    assert table["novel"][1] == mp.evaluate(coop, novel, 40, progress=False).accuracy
    assert table["hm"][1] == harmonic_mean(table["base"][1], table["novel"][1])


def test_zero_shot_takes_the_template_of_the_data_set(bench, monkeypatch):
    table = base_to_novel(bench, "zero_shot", ["clothing"], limit=40, progress=False)
    assert table["seed"].tolist() == [0] and table["n_base"][0] == 40
    told = []
    monkeypatch.setattr("minipsync.evaluation.benchmark.build",
                        lambda *a, **k: told.append(k) or mp.build(*a, **k))
    base_to_novel(bench, "zero_shot", ["clothing"], limit=2, progress=False)
    assert [k["template"] for k in told if k] == bench.dataset("clothing").templates[:1] * 2


def test_learned_loads_what_was_trained_before_and_nothing_else(bench, tmp_path, monkeypatch):
    train = bench.dataset("clothing", "train").halves()[0]

    def coop(**settings):
        return mp.build("coop", bench.clip(), train.class_names, **{**WORDS, **settings})
    first = learned(coop(), train, tmp_path, progress=False, **QUICK)
    with monkeypatch.context() as m:
        m.setattr("minipsync.training.fit", lambda *a, **k: pytest.fail("trained again"))
        again = learned(coop(), train, tmp_path, progress=False, **QUICK)
    assert torch.equal(first.learner.ctx, again.learner.ctx)
    name = prompt_file(coop(), train, **QUICK)
    assert name.startswith("coop_clothing_16shots_seed1_") and (tmp_path / name).is_file()
    assert prompt_file(coop(), train, **QUICK, workers=2) == name
    others = [prompt_file(coop(), train, **{**QUICK, "lr": 0.5}), prompt_file(coop(seed=2), train, **QUICK),
              prompt_file(coop(), train, **QUICK, shots=4),
              prompt_file(coop(), train.subset(range(99)), **QUICK),
              prompt_file(coop(position="front"), train, **QUICK)]
    assert len({name, *others}) == 6
    with pytest.raises(TypeError, match="tpt is not trained"):
        learned(mp.build("tpt", bench.clip(), train.class_names), train)


def test_from_source(bench, tmp_path):
    quick = {**QUICK, "epochs": 2, "shots": 2, "warmup_epochs": 0}
    tables = [from_source(bench, name, ["sketch", "v2"], (1,), folder=tmp_path, recipe=quick, limit=8,
                          progress=False, **settings)
              for name, settings in (("coop", WORDS), ("tpt", {"start": "coop", "n_views": 4, "steps": 0}))]
    assert [len(list(tmp_path.glob("*.safetensors"))), len(tables[0])] == [1, 2]
    # without a step TPT is CoOp: it started from the same prompts, which were trained once
    pd.testing.assert_frame_equal(tables[0].drop(columns="method"), tables[1].drop(columns="method"))
    zero_shot = from_source(bench, "zero_shot", ["sketch"], limit=8, progress=False)
    assert zero_shot["seed"].tolist() == [0] and zero_shot["n"].tolist() == [8]


def test_prompts_are_handed_over_in_memory(bench, tmp_path, monkeypatch):
    """Copies of the tensors and of all that is known of them, as through a file, and no file."""
    train = bench.dataset("clothing", "train").halves()[0]
    quick = {**QUICK, "shots": 1, "warmup_epochs": 0}
    maple = mp.build("maple", bench.clip(), train.class_names).fit(train, progress=False, **quick)
    by_file, method = (mp.build("maple_tpt", bench.clip(), train.class_names) for _ in range(2))
    by_file.load(maple.save(tmp_path / "a.safetensors"))
    with monkeypatch.context() as m:
        m.setattr("minipsync.methods.prompt_files.write_tensors", lambda *a: pytest.fail("a file is written"))
        assert hand_over(maple, method) is method
    for given, there in zip(maple.parameters(), method.parameters(), strict=True):
        assert torch.equal(given, there) and given.data_ptr() != there.data_ptr()
    for name in ("trained_on", "learned_from", "history"):
        assert getattr(method, name) == getattr(by_file, name) and getattr(method, name), name
    kept = copy.deepcopy(maple.history)
    method.history.clear()                                             # what is the one's is not the other's
    method.learned_from["recipe"]["epochs"] = 7
    with torch.no_grad():
        next(method.parameters()).add_(1)
    assert maple.history == kept and maple.learned_from["recipe"]["epochs"] == QUICK["epochs"]
    assert not torch.equal(next(maple.parameters()), next(method.parameters()))
    assert method.prompts_from == maple.prompts_from == ""


@pytest.mark.parametrize(("taker", "settings", "says"), [
    ("tpt", {"start": "coop"}, "the prompts of maple: holds prompts of 'maple'; tpt .* takes those of"),
    ("promptalign", {"n_ctx": 4}, r"the prompts of maple: .*text.0 has shape \[2, .* wants \[4, ")])
def test_prompts_that_do_not_fit_are_not_handed_over(bench, taker, settings, says):
    maple = mp.build("maple", bench.clip(), ["cat", "dog"])
    method = mp.build(taker, bench.clip(), ["cat", "dog"], **settings)
    before = method.copy_prompts()
    with pytest.raises(ValueError, match=says):
        hand_over(maple, method)
    assert method.prompts_are(before) and method.trained_on == ""


def test_a_protocol_writes_nothing_where_no_folder_is_given(bench, tmp_path, monkeypatch):
    """Neither the prompts that a method starts from nor what it keeps of its source."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    quick = {**QUICK, "epochs": 1, "shots": 1, "warmup_epochs": 0}
    table = from_source(bench, "promptalign", ["sketch"], (1,), recipe=quick, limit=2, progress=False,
                        n_views=4)
    assert table["n"].tolist() == [2]
    assert list(table) == ["method", "dataset", "seed", "n", "accuracy", "low", "high", "ece"]
    assert not list(tmp_path.iterdir())


def test_what_is_kept_of_the_source_lies_in_the_folder(bench, tmp_path):
    quick = {**QUICK, "epochs": 1, "shots": 1, "warmup_epochs": 0}
    tables = [from_source(bench, "promptalign", ["sketch"], (1,), folder=tmp_path, recipe=quick, limit=2,
                          progress=False, n_views=4) for _ in range(2)]
    assert len(list(tmp_path.glob("*.safetensors"))) == 2              # MaPLe's prompts, and statistics
    pd.testing.assert_frame_equal(*tables)


def test_average():
    rows = [("coop", d, s, 100, b, 50, n, harmonic_mean(b, n)) for d, s, b, n in (
        ("x", 1, .8, .6), ("x", 2, .9, .5), ("y", 1, .6, .7), ("y", 2, .6, .9))]
    columns = ["method", "dataset", "seed", "n_base", "base", "n_novel", "novel", "hm"]
    rows = pd.DataFrame(rows, columns=columns)
    ends = {f"{half}_{end}": rows[half] + arm for half in ("base", "novel")
            for end, arm in (("low", -.1), ("high", .2))}
    table = average(rows.assign(**ends))
    assert table["dataset"].tolist() == ["x", "y", "average"] and set(table["seeds"]) == {2}
    assert table["base"].tolist() == pytest.approx([.85, .6, .725])
    assert table["base_std"][0] == pytest.approx(.05) and table["novel"][2] == pytest.approx(.675)
    assert (table["base_low"][0], table["base_high"][0]) == pytest.approx((.75, 1.05))   # means of the ends
    assert table["hm"][2] == pytest.approx(2 * .725 * .675 / 1.4)               # of the averages


def test_every_trainable_method_has_a_seed():
    for name, method in mp.methods.REGISTRY.items():
        if method.recipe is not None:
            assert "seed" in method.Config.model_fields, name
