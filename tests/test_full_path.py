"""The researcher's path of docs/full.md on look-alike folders: fit, prepare, run, table, with a tiny CLIP."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_clip as tiny
import torch
from lookalikes import change, class_folders, split_json, transfer_pictures
from PIL import Image

import minipsync as mp
from minipsync import cli as command
from minipsync.data.imagenet import FOLDERS
from minipsync.data.imagenet_classes import imagenet_classes
from minipsync.data.splits import SPLITS
from minipsync.evaluation.gate import check_zero_shot

QUICK = ["--epochs", "2", "--batch-size", "40", "--shots", "1"]


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
    said = say("fit", "maple", *QUICK)
    assert "prompts: results/prompts/maple_imagenet_1shots_seed1_" in said
    assert "use them: minipsync run maple --seed 1 --trained-on imagenet --benchmark full" in said
    run = ["run", "maple", "promptalign", "--dataset", "a,dtd", "--limit", "4", "--n-views", "4", "--no-gate"]
    with pytest.raises(ValueError, match="^promptalign has no source moments in 'results/source'.*"
                                         "minipsync prepare promptalign --benchmark full --model"):
        say(*run)
    said = say("prepare", "promptalign")
    assert "moments: results/source/moments_imagenet_" in said
    made = {f: f.stat().st_mtime_ns for f in tmp_path.glob("results/source/*")}
    assert "are there (--again computes them anew)" in say("prepare", "promptalign")
    assert made == {f: f.stat().st_mtime_ns for f in tmp_path.glob("results/source/*")}
    assert not list(tmp_path.rglob("*.part*")) and not list(tmp_path.rglob("*.training"))
    with pytest.raises(Exception, match="No such option: --stepz"):
        say(*run, "--stepz", "2")
    with pytest.raises(ValueError, match="^--n-views: maple has no such setting"):
        say("run", "maple", *run[3:])
    said = say(*run)                               # MaPLe has no views, PromptAlign has
    assert said.count(", n = 4, ECE") == 4 and "records: results/records" in said
    assert said.count("_seed1_") == 2 and "trained on imagenet" in said       # each method's prompts, once
    files = sorted(tmp_path.glob("results/records/*.csv"))
    assert [len(pd.read_csv(f)) for f in files] == [4, 4, 4, 4]
    before = {f: f.read_bytes() for f in files}
    assert say(*run) == said                       # nothing is predicted again
    assert {f: f.read_bytes() for f in files} == before
    table = say("table", "domain_generalisation", "--form", "csv", clip=False).splitlines()
    rows = [dict(zip(table[0].split(","), line.split(","), strict=True)) for line in table[1:] if line]
    mine = {(row["method"], row["dataset"]): row for row in rows if row["ours"]}
    assert set(mine) == {("MaPLe (mini/tiny.pt)", "a"), ("promptalign [n_views=4] (mini/tiny.pt)", "a")}
    assert all((row["n"], row["of"], row["published"]) == ("4", "4", "") for row in mine.values())
    assert any(row["method"] == "MaPLe" and row["published"] for row in rows)
    assert "promptalign" in say("table", "latency", clip=False).lower()
    say("table", "paired", "--form", "latex", "--out", "paired.tex", clip=False)
    assert r"\toprule" in (tmp_path / "paired.tex").read_text()


def test_seeds_and_training_sets_are_told_apart(say, tmp_path):
    for seed in ("1", "2"):
        say("fit", "coop", "--dataset", "dtd_base", "--seed", seed, "--n-ctx", "2", *QUICK)
    run = ["run", "coop", "--dataset", "dtd_base,dtd_novel", "--n-ctx", "2", "--no-gate"]
    with pytest.raises(ValueError, match="(?s)no prompts in .results/prompts. fit .*trained on .dtd_b"):
        say(*run)                                  # prompts of ImageNet, which are not there
    with pytest.raises(ValueError, match="n_ctx is 2 there and 4 here|shape"):
        say(*run, "--n-ctx", "4", "--trained-on", "dtd_base")
    said = say(*run, "--trained-on", "dtd_base", "--seed", "1,2")
    assert "_seed1_" in said and "_seed2_" in said and said.count("coop on dtd_") == 4
    with pytest.raises(ValueError, match="seed=7"):
        say(*run, "--trained-on", "dtd_base", "--seed", "7")
    table = say("table", "base_to_novel", "--form", "csv", clip=False).splitlines()
    mine = dict(zip(table[0].split(","), next(line for line in table if "tiny" in line or "n_ctx" in line)
                    .split(","), strict=True))
    assert mine["seeds"] == "2" and mine["dataset"] == "dtd"


@pytest.mark.slow
def test_what_is_kept_of_the_source_belongs_to_a_seed(say, tmp_path):
    for seed in ("1", "2"):
        say("fit", "maple", "--seed", seed, *QUICK)
    few = ["--text-variants", "2"]
    run = ["run", "promptsync", "--dataset", "a", "--limit", "2", "--n-views", "3", "--no-gate"]
    run += ["--seed", "1,2"]
    with pytest.raises(ValueError, match="2 things .*(?s:.*)promptsync .*--seed 2 .*--text-variants 2"):
        say(*run, *few)
    assert say("prepare", "promptsync", "--seed", "1,2", *few).count("prototypes: ") == 2
    assert say(*run, *few).count("promptsync on a: ") == 2
    with pytest.raises(ValueError, match="--prompts mispelt: there is no such file or folder"):
        say("run", "maple", "--dataset", "a", "--no-gate", "--prompts", "mispelt")
    with pytest.raises(TypeError, match="promptsync is not trained, it tunes those of maple"):
        say("fit", "promptsync")


def test_several_trainings_of_one_seed(say, tmp_path, capsys):
    for lr in ("0.1", "0.2"):
        say("fit", "coop", "--dataset", "dtd", "--n-ctx", "2", *QUICK, "--lr", lr)
    with pytest.raises(ValueError, match="2 files .* seed 1, trained with other shots, epochs or"):
        say("run", "coop", "--dataset", "dtd", "--n-ctx", "2", "--trained-on", "dtd", "--no-gate")
    # the package has prompts of 1, 2, 4, 8 and 16 shots; the benchmark's recipe has 16
    command.app(["run", "coop", "--dataset", "animals", "--init", "a photo of a", "--trained-on",
                 "animals", "--limit", "2", "--quiet"], standalone_mode=False)
    assert "coop: prompts coop_animals_16shots_seed1_" in capsys.readouterr().out


def test_two_folders_of_one_name_share_no_records(tmp_path):
    clip, results = mp.load_clip("mini"), []
    for k, noise in enumerate(("fog", "snow")):
        for label, name in enumerate(("fox", "tree")):
            for i in range(2):
                path = tmp_path / noise / "3" / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = np.random.RandomState(10 * k + label).randint(0, 256, (9 + k, 9, 3), dtype=np.uint8)
                Image.fromarray(picture).save(path)
        data = mp.folder(tmp_path / noise / "3")
        method = mp.build("zero_shot", clip, data.class_names)
        results.append(mp.evaluate(method, data, records=tmp_path / "records", progress=False))
    assert [r.resumed for r in results] == [0, 0] and results[0].path != results[1].path


def test_everything_that_is_wrong_is_told_before_the_first_image(say, tmp_path):
    with pytest.raises(ValueError) as told:
        say("run", "zero_shot", "mapel", "--dataset", "a,sketchy,r", "--no-gate")
    text = str(told.value)
    assert text.startswith("3 things are to be mended first; nothing was predicted yet:")
    assert "unknown method 'mapel'. Did you mean 'maple'?" in text
    assert "unknown data set 'sketchy'" in text and "Did you mean 'sketch'?" in text
    assert "data set 'r' is not there" in text and not list(tmp_path.glob("results/records/*"))


def test_own_pictures(say, tmp_path, monkeypatch, capsys):
    for name in ("red fox", "tree"):
        class_folders(tmp_path / "my pictures" / name, ["."], each=2)
        (tmp_path / "my pictures" / name / "README.txt").unlink()
    for bench in (["--benchmark", "mini"], ["--benchmark", "full", "--model", "mini"]):
        command.app(["run", "zero_shot", "--dataset", "folder:my pictures", "--quiet", *bench],
                    standalone_mode=False)
        said = capsys.readouterr().out
        assert "2 classes): red fox, tree" in said and "zero_shot on my pictures" in said and "n = 4" in said
    command.app(["table", "latency", "--benchmark", "own"], standalone_mode=False)
    assert "own my pictures" in capsys.readouterr().out
    with pytest.raises(ValueError, match="'folder:' names no folder"):
        command.app(["run", "zero_shot", "--dataset", "folder:"], standalone_mode=False)


@pytest.mark.slow
def test_all_data_sets_from_the_command_line(tmp_path):
    """As docs/full.md says: a look-alike tree, and every data set through every step, each a process."""
    root, env = Path(__file__).parents[1], {**os.environ, "MINIPSYNC_ROOT": str(tmp_path / "look")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), env.get("PYTHONPATH")]))

    def call(*arguments):
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=env, capture_output=True,
                              text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout
    minipsync, full = ("-m", "minipsync"), ("--benchmark", "full", "--model", "mini", "--partial", "--quiet")
    call(str(root / "tests/lookalikes.py"), "look")
    call(*minipsync, "fit", "maple", *full, "--epochs", "2", "--shots", "1", "--batch-size", "250")
    call(*minipsync, "prepare", "promptalign", "promptsync", *full)
    names = [*FOLDERS, *SPLITS]
    said = call(*minipsync, "run", "zero_shot", "maple", *full, "--no-gate", "--limit", "2", "--dataset",
                ",".join(names))
    assert all(f"{method} on {name}: " in said for method in ("zero_shot", "maple") for name in names)
    said = call(*minipsync, "run", "maple_tpt", "promptalign", "promptsync", *full, "--no-gate",
                "--limit", "2", "--n-views", "3", "--dataset", "a,dtd")
    assert said.count(", n = 2") == 6
    table = call(*minipsync, "table", "domain_generalisation", "--benchmark", "full")
    assert "sketch (partial)" in table and "50.23" in table
    assert "caltech101 (partial)" in call(*minipsync, "table", "paired", "--benchmark", "full")


def test_the_gate_stops_a_classifier_at_chance(say, tmp_path):
    with pytest.raises(RuntimeError, match=r"zero-shot CLIP has .* on 200 images of a, chance is 0.5 %, "
                                           "expected more than 5.0 %.*weights do not belong"):
        say("run", "zero_shot", "--dataset", "a")
    assert not list(tmp_path.glob("results/records/*"))


def test_the_gate_tells_a_wrong_order_of_labels():
    clip, data = mp.load_clip("mini"), mp.benchmark("mini").dataset("clothing")
    assert check_zero_shot(clip, data, 60) > 10 / len(data.class_names)                # chance is 1 / 14
    data.class_names = data.class_names[1:] + data.class_names[:1]
    with pytest.raises(RuntimeError, match="on 60 images of clothing.*class names are in another order"):
        check_zero_shot(clip, data, 60)


def test_errors_are_one_line(say, monkeypatch, capsys):
    for arguments, told in (
            (["run", "mapel", "--no-gate", "--dataset", "a"], "unknown method 'mapel'"),
            (["run", "maple", "--no-gate", "--dataset", "sketchy"], "Did you mean 'sketch'"),
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
    for told in ("  imagenet: 200 pictures", "  dtd: 4 pictures", "  a: data set 'a' is not there",
                 "results/records: 0 files", "hub's cache: "):
        assert told in said
    command.app(["info", "--root", "nowhere"], standalone_mode=False)
    assert "for testing: nowhere, no such folder" in capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]} (CUDA" in said
