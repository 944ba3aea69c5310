"""The researcher's path of docs/full.md on look-alike folders: fit, prepare, run, table, with a tiny CLIP."""
import shutil

import pandas as pd
import pytest
import tiny_clip as tiny
import torch
from lookalikes import change, class_folders, split_json, transfer_pictures

import minipsync as mp
from minipsync import __main__ as command
from minipsync.data.imagenet import imagenet_classes
from minipsync.zero_shot_gate import check_zero_shot

QUICK = ["--recipe", "epochs=2", "--recipe", "batch_size=40", "--recipe", "shots=1"]


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """Run a command below tmp_path, where a miniature of ImageNet (200 classes), of "a" and of DTD lies; what
    it printed."""
    part, wnids = imagenet_classes()[2]["a"], imagenet_classes()[0]
    for place in ("imagenet/train", "imagenet/val", "imagenet-a"):
        class_folders(tmp_path / "data" / place, [wnids[i] for i in part])
    change(monkeypatch, "imagenet", classes="a", sizes={"test": 200, "train": 200}, each=1)
    change(monkeypatch, "a", sizes={"test": 200})
    transfer_pictures(tmp_path / "data/dtd/images", "dtd")
    split_json(tmp_path / "data/dtd/split_zhou_DescribableTextures.json", "dtd")
    change(monkeypatch, "dtd", sizes=(6, 2, 4), classes=2, names="")
    monkeypatch.setattr("minipsync.data.splits.fingerprint", lambda names: "")
    weights = tmp_path / "tiny.pt"
    torch.save(tiny.tiny_state_dict(0), weights)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIPSYNC_ROOT", str(tmp_path / "data"))

    def run(*arguments, clip=True):
        which = ["--model", "mini", "--weights", str(weights), "--device", "cpu", "--quiet"] if clip else []
        command.app([*arguments, "--benchmark", "full", *which], standalone_mode=False)
        return capsys.readouterr().out
    return run


def test_from_fit_to_table(say, tmp_path):
    assert "prompts: results/prompts/maple_imagenet_1shots_seed1_" in say("fit", "maple", *QUICK)
    assert "statistics: results/source/statistics_imagenet_" in say("prepare", "promptalign")
    assert not list(tmp_path.rglob("*.part*")) and not list(tmp_path.rglob("*.training"))
    run = ["run", "maple", "promptalign", "--dataset", "a,dtd", "--limit", "4", "--views", "4", "--no-gate"]
    with pytest.raises(ValueError, match="maple: unknown setting 'stepz'"):
        say(*run, "--set", "stepz=2")
    with pytest.raises(ValueError, match="maple: unknown setting 'n_views'"):    # no method here has views
        say("run", "maple", *run[3:])
    said = say(*run)                               # MaPLe has no views, PromptAlign has
    assert said.count(", n = 4, ECE") == 4 and "records: results/records" in said
    files = sorted(tmp_path.glob("results/records/*.csv"))
    assert [len(pd.read_csv(f)) for f in files] == [4, 4, 4, 4]
    before = {f: f.read_bytes() for f in files}
    assert say(*run) == said                       # nothing is predicted again
    assert {f: f.read_bytes() for f in files} == before
    table = say("table", "domain_generalisation", "--form", "csv", clip=False).splitlines()
    header = table[0].split(",")
    mine = [dict(zip(header, line.split(","), strict=False)) for line in table if ",4," in line]
    assert {(row["method"], row["dataset"]) for row in mine} >= {("MaPLe", "a"), ("PromptAlign", "a")}
    assert all(row["published"] for row in mine if row["dataset"] == "a")
    assert "promptalign" in say("table", "latency", clip=False).lower()
    say("table", "paired", "--form", "latex", "--out", "paired.tex", clip=False)
    assert r"\toprule" in (tmp_path / "paired.tex").read_text()


def test_the_gate_stops_a_classifier_at_chance(say, tmp_path):
    with pytest.raises(RuntimeError, match=r"zero-shot CLIP has .* on 200 images of a, chance is 0.5 %, "
                                           "expected more than 5.0 %.*weights do not belong"):
        say("run", "zero_shot", "--dataset", "a")
    assert not list(tmp_path.glob("results/records/*"))


def test_the_gate_tells_a_wrong_order_of_labels():
    clip, data = mp.load_clip("mini"), mp.benchmark("mini").dataset("clothing")
    assert check_zero_shot(clip, data, 60) > 0.8
    data.class_names = data.class_names[1:] + data.class_names[:1]
    with pytest.raises(RuntimeError, match="on 60 images of clothing.*class names are in another order"):
        check_zero_shot(clip, data, 60)


def test_errors_are_one_line(say, monkeypatch, capsys):
    for arguments, told in (
            (["run", "mapel", "--no-gate", "--dataset", "a"], "unknown method 'mapel'"),
            (["run", "maple", "--no-gate", "--dataset", "sketchy"], "did you mean 'sketch'"),
            (["fit", "zero_shot"], "zero_shot is not trained"),
            (["prepare", "maple"], "keeps nothing of its source"),
            (["run", "maple", "--no-gate", "--dataset", "a"], "no shipped prompts fit maple")):
        with pytest.raises((ValueError, TypeError, OSError), match=told):
            say(*arguments)
    monkeypatch.setattr("sys.argv", ["minipsync", "table", "nonsense"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert str(stopped.value.code).startswith("minipsync: ") and "\n" not in str(stopped.value.code)


def test_info_says_what_is_where(say, tmp_path, capsys):
    shutil.rmtree(tmp_path / "data/imagenet-a")
    command.app(["info"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "  imagenet: 200 pictures" in said and "  dtd: 4 pictures" in said
    assert "  a: data set 'a' is not there" in said
    assert f"torch {torch.__version__.split('+')[0]} (CUDA" in said
