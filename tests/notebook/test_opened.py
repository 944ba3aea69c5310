"""What every notebook opens: a benchmark by its parameters, methods with what is there, or what to do."""
import pytest
import tiny_clip as tiny
import torch
from lookalikes import change, class_folders

import minipsync as mp
from minipsync.data.imagenet_classes import imagenet_classes
from minipsync.evaluation.protocols import OOD
from minipsync.methods import prompt_files
from minipsync.notebook.opened import COMMON, data_set, on_each, open_benchmark, over_shifted, ready
from minipsync.notebook.parameters import ParameterError
from minipsync.report.stored import stored

DEFAULTS = {"benchmark": "mini", "root": "", "partial": False, "model": "", "weights": "", "device": "cpu",
            "precision": "fp32", "records": "r", "prompts": "p", "source": "s"}


@pytest.fixture
def full(tmp_path, monkeypatch):
    """Parameters of a miniature of ImageNet (200 classes) and of "a", with a tiny CLIP."""
    part, wnids = imagenet_classes()[2]["a"], imagenet_classes()[0]
    for place in ("imagenet/train", "imagenet-a"):
        class_folders(tmp_path / "data" / place, [wnids[i] for i in part])
    change(monkeypatch, "imagenet", classes="a", sizes={"test": 999, "train": 999}, each=1)
    change(monkeypatch, "a", sizes={"test": 999})
    torch.save(tiny.tiny_state_dict(0), tmp_path / "tiny.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIPSYNC_ROOT", raising=False)
    return DEFAULTS | {"benchmark": "full", "root": str(tmp_path / "data"), "model": "mini",
                       "weights": str(tmp_path / "tiny.pt"), "partial": True}


def test_mini(tmp_path):
    namespace = DEFAULTS | {"dataset": "sketch", "limit": "5"}
    bench, clip = open_benchmark(namespace, dataset=lambda bench: bench.names, limit=(0, None))
    assert bench.name == "mini" and clip.name == "mini" and namespace["limit"] == 5
    assert bench.own_clip is clip
    open_benchmark({key: value for key, value in DEFAULTS.items() if key != "source"})      # not all need one
    method = ready(bench, clip, "maple", data_set(bench, "sketch"), tmp_path / "none", seed=2)
    assert method.clip is clip and "_seed2_" in method.prompts_from


@pytest.mark.parametrize("given, error, told", [
    ({"root": "/data"}, ParameterError, "root = '/data': the mini benchmark is .*-p benchmark full"),
    ({"benchmark": "ful"}, ParameterError, "benchmark = 'ful'.*Did you mean full"),
    ({"benchmark": "full"}, ParameterError, "root is empty.*-p root /data.*docs/full.md"),
    ({"benchmark": "full", "root": "/nowhere"}, FileNotFoundError, "no folder '/nowhere'.*docs/full.md"),
    ({"precision": "int8"}, ParameterError, "precision = 'int8'"),
    ({"dataset": "skech"}, ParameterError, "Did you mean sketch")])
def test_what_does_not_fit(given, error, told, monkeypatch):
    monkeypatch.delenv("MINIPSYNC_ROOT", raising=False)
    with pytest.raises(error, match=f"(?s){told}"):
        open_benchmark(DEFAULTS | {"dataset": "sketch"} | given, dataset=lambda bench: bench.names)


def test_every_common_parameter_has_a_default_here():
    assert set(DEFAULTS) == set(COMMON)


@pytest.mark.filterwarnings("ignore")
def test_a_copy_that_is_whole_gets_no_small_prompts(full, capsys):
    """Its numbers are meant: what is missing is made by a command, which the line names."""
    bench, clip = open_benchmark(full)
    data = data_set(bench, "a")
    bench.partial = False
    bench.training_data = lambda name: name                     # as where the pictures are not here
    assert ready(bench, clip, "promptalign", data, "p", "s") is None
    said = capsys.readouterr().out
    assert said.startswith("promptalign is left out: no ") and "minipsync fit maple --benchmark full" in said
    assert "minipsync prepare promptalign --benchmark full" in said
    assert ready(bench, clip, "tpt", data, "p", "s").name == "tpt"        # which needs none
    with pytest.raises(FileNotFoundError, match="imagenet-sketch.*docs/full.md"):
        data_set(bench, "sketch")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_incomplete_copy_learns_small_prompts_once(full, capsys, tmp_path):
    bench, clip = open_benchmark(full)
    data = data_set(bench, "a")
    method = ready(bench, clip, "promptalign", data, "p", "s")
    assert "maple learns some from a picture of each class" in capsys.readouterr().out
    assert method.trained_on == "imagenet" and method.source is not None
    (file,) = tmp_path.glob("p/*.safetensors")
    assert file.name.startswith("maple_imagenet_1shots_seed1_") and list(tmp_path.glob("s/moments_*"))
    assert ready(bench, clip, "maple_tpt", data, "p", "s").prompts_from == method.prompts_from
    assert not capsys.readouterr().out
    with pytest.raises(ParameterError, match="prompts is empty"):
        ready(bench, clip, "coop", data)


@pytest.mark.filterwarnings("ignore")
def test_prompts_of_another_class_list_are_not_taken(full, tmp_path):
    """Both are called imagenet; of an incomplete copy no picture can say that it is another."""
    bench, clip = open_benchmark(full)
    method = bench.build("maple", data_set(bench, "a"), clip=clip, load=False)
    method.trained_on = "imagenet"
    other = bench.build("maple", data_set(bench, "a"), clip=clip, load=False)
    other.set_class_names(["cat", "dog"])
    other.trained_on = "imagenet"
    prompt_files.save(other, tmp_path / "p/other.safetensors")
    with pytest.raises(FileNotFoundError, match="other.safetensors were learned on another imagenet, of 2"):
        bench.build("maple", data_set(bench, "a"), clip=clip, prompts="p")
    prompt_files.save(method, tmp_path / "p/other.safetensors")
    found = bench.build("maple", data_set(bench, "a"), clip=clip, prompts="p")
    assert found.prompts_from == "other.safetensors"


def test_a_method_on_each_data_set_and_seed(tmp_path):
    bench, clip = open_benchmark(DEFAULTS.copy())
    found = on_each(bench, clip, "maple", ["v2", "a"], tmp_path / "none", seeds=[1, 3], limit=6)
    assert {name: len(own) for name, own in found.items()} == {"v2": 2, "a": 2}
    data = data_set(bench, "a")
    again = mp.evaluate(ready(bench, clip, "maple", data, seed=3), data, 6, progress=False)
    assert found["a"][1].records["confidence"].tolist() == pytest.approx(again.records["confidence"].tolist())
    plain = on_each(bench, clip, "zero_shot", ["a"], seeds=[1, 3], limit=6)
    assert len(plain["a"]) == 1 and plain["a"][0].n == 6
    assert on_each(bench, clip, "cocoop", ["a"], tmp_path / "none", limit=6) == {}      # there are no prompts


def test_shifted_sets_together_stored_or_measured():
    bench, pairs = mp.benchmark("mini"), [("maple", "zero_shot"), ("maple", "unknown")]
    table = stored("domain_generalisation_paired")
    row = table[(table["a"] == "maple") & (table["b"] == "zero_shot") & (table["dataset"] == "ood_average")]
    found = over_shifted(bench, {}, pairs)
    assert list(found) == ["maple − zero_shot"]
    assert found["maple − zero_shot"].difference == row["difference"].item()
    live = {"maple": on_each(bench, bench.own_clip, "zero_shot", OOD, limit=3), "unknown": {}}
    same = over_shifted(bench, live | {"zero_shot": live["maple"]}, pairs)
    assert list(same) == ["maple − zero_shot"]
    assert (same["maple − zero_shot"].n, same["maple − zero_shot"].difference) == (12, 0)
