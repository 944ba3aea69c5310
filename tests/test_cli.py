"""The command line: options that are settings, their help, and what is told of those that do not fit."""
import inspect
import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from minipsync import cli, ready
from minipsync.methods import REGISTRY
from minipsync.options import check_settings, flag, own_settings, typed_again, values_for
from minipsync.training import TrainConfig

QUICK = ["--limit", "2", "--quiet", "--records", "r", "--dataset", "animals"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*arguments, code=0):
    """What a command prints, in one line."""
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "100"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


# ---- help ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("command", ["run", "fit", "prepare"])
def test_help_shows_the_settings_of_the_methods_that_are_named(command, name):
    text = said(command, name, "--help")
    shown = {"run": REGISTRY, "fit": cli.TRAINED, "prepare": cli.KEEPING}[command]
    assert (f"Settings of {name}:" in text) is (name in shown)
    if name not in shown:
        return
    settings = own_settings(REGISTRY[name].Config())
    for setting, field in settings.items():
        assert flag(getattr(cli, command), setting) in text and " ".join(field.description.split()) in text
    assert text.count("default: ") >= len(settings)
    assert f"minipsync {command} " in text                      # how to see those of another


def test_help_without_a_method_says_how_to_see_settings():
    for command in ("run", "fit", "prepare"):
        text = said(command, "--help")
        assert "name it to see them: minipsync" in text and "--n-ctx" not in text and "--epochs" not in text


def test_help_of_several_methods_and_of_training():
    text = said("run", "tpt", "promptalign", "--help")
    assert re.search(r"Settings of tpt:.*--lr .*default: 0.005.*Settings of promptalign:.*--lr .*0.04", text)
    assert "--augmix/--no-augmix AugMix in the views; on for fine-grained" in text
    text = said("fit", "maple", "--help")
    assert "Settings of maple:" in text and "Settings of fit:" in text
    for setting in own_settings(TrainConfig()):
        assert f"--{setting.replace('_', '-')} " in text
    assert "default: 0.0026" in text                             # MaPLe's recipe, not TrainConfig's own


def test_a_setting_with_the_name_of_an_option_has_another():
    """promptsync's `weights` are not those of CLIP."""
    text = said("run", "promptsync", "--help")
    assert "--method-weights p_bar of all classes" in text and re.search("--weights (<str>|TEXT) ", text)
    for command in (cli.run, cli.fit, cli.prepare):
        own = list(inspect.signature(inspect.unwrap(command)).parameters)
        names = [p.name for p in inspect.signature(command).parameters.values()]
        assert len(set(names)) == len(names) and set(own) - {"settings"} <= set(names)
        assert "--set" not in said(command.__name__, "--help") and "--recipe" not in said(
            command.__name__, "--help")


# ---- what is typed ------------------------------------------------------------------------------------
def test_typed_settings_reach_the_methods_that_have_them(here):
    said("run", "zero_shot", "tpt", "--n-views", 3, "--crop-scale", "0.2,1", "--selection", "0.5", "--augmix",
         "--init", "a sketch of", *QUICK)
    about = {run["method"]: run["config"] for run in
             (json.loads(f.read_text())["run"] for f in here.glob("r/*.json"))}
    tpt = about["tpt"]
    assert (tpt["n_views"], tpt["crop_scale"], tpt["augmix"], tpt["n_ctx"]) == (3, [0.2, 1.0], True, 3)
    assert "n_views" not in about["zero_shot"]


def test_templates_and_none():
    config = REGISTRY["zero_shot"].Config
    assert values_for(config, {"template": "a, b: {}", "append_template": True, "lr": "1"}) == {
        "template": "a, b: {}", "append_template": True}
    for config, typed, values in [
            (REGISTRY["coop"].Config, {"init": "none", "n_ctx": "none"}, {"init": None, "n_ctx": None}),
            (REGISTRY["promptalign"].Config, {"lr": "None", "weight": "3"}, {"lr": None, "weight": 3}),
            (TrainConfig, {"shots": "none", "crop": "0.1, 0.9"}, {"shots": None, "crop": [0.1, 0.9]}),
            (REGISTRY["promptsync"].Config, {"weights": "top1", "parts": "text,cls"},
             {"weights": "top1", "parts": ["text", "cls"]})]:
        assert values_for(config, typed) == values


@pytest.mark.parametrize("arguments, told", [
    (["run", "zero_shot", "--n-views", "4"], "^--n-views: zero_shot has no such setting. Good .*: --temp"),
    (["run", "maple", "coop", "--n-view", "4"], "No such option: --n-view"),
    (["run", "tpt", "--weight", "3"], "^--weight: tpt has no such setting. Did you mean '--weight-decay'"),
    (["run", "tpt", "coop", "--depth", "3"], "^--depth: tpt and coop have no such setting"),
    (["run", "tpt", "--n-views", "many"], "^tpt: n_views='many' .str. does not fit; expected a whole number"),
    (["run", "tpt", "--selection", "2"], "^tpt: selection=2.0 does not fit.*at most 1"),
    (["run", "mapel", "--n-views", "4"], "^unknown method 'mapel'. Did you mean 'maple'"),
    (["run", "mapel", "tpt", "--depth", "4"], "^2 things.*(?s:.)*'mapel'(?s:.)*--depth: tpt has no"),
    (["fit", "coop", "--epoch", "3"], "No such option: --epoch"),
    (["fit", "coop", "--epochs", "0"], "^fit: epochs=0 does not fit; expected a whole number, 1 or more"),
    (["fit", "coop", "--depth", "3"], "^--depth: coop has no such setting"),
    (["fit", "cop"], "^unknown method 'cop'. Did you mean 'coop'"),
    (["fit", "tpt"], "tpt is not trained; expected one of coop, cocoop"),
    (["prepare", "maple"], "maple keeps nothing of its source; expected one of promptalign"),
    (["prepare", "promptsink"], "^unknown method 'promptsink'. Did you mean 'promptsync'"),
    (["prepare", "promptalign", "--parts", "text"], "^--parts: promptalign has no such setting"),
    (["run", "tpt", "--seed", "one"], "^--seed one: expected a whole number, or several with commas")])
def test_what_does_not_fit_is_told_before_the_first_image(arguments, told, here):
    with pytest.raises(Exception, match=told):
        cli.app([*arguments, "--quiet"], standalone_mode=False)
    assert not list(here.iterdir())


def test_the_old_form_of_settings_works_with_a_warning(here):
    with pytest.warns(UserWarning) as told:
        said("run", "tpt", *QUICK, "--set", "n_views=3", "--set", "augmix=True", "--set=seed=4")
    assert [str(w.message).partition("; say ")[2] for w in told if "earlier version" in str(w.message)] == [
        "--n-views 3", "--augmix", "--seed 4"]
    run = json.loads(next((here / "r").glob("*.run.json")).read_text(encoding="utf-8"))["run"]
    assert (run["config"]["n_views"], run["config"]["augmix"]) == (3, True)
    with pytest.raises(ValueError, match="--recipe epochs: expected name=value; better say --name value"):
        said("fit", "coop", "--recipe", "epochs")


def test_options_to_type_again():
    typed = {"lr": "0.1", "augmix": False, "entropy": True, "init": "a photo", "weights": "top1"}
    assert typed_again(cli.prepare, typed, ("--seed", 2), ("--model", "")) == (
        "--seed 2 --lr 0.1 --no-augmix --entropy --init 'a photo' --method-weights top1")
    check_settings(cli.run, ["tpt", "zero_shot"], {"template": "x", "lr": "1"})


def test_a_method_with_a_setting_of_clips_name(here, monkeypatch):
    """--method-weights and --weights are told apart in the end."""
    seen = []
    monkeypatch.setattr(ready, "build", lambda *a, **settings: seen.append(settings) or (_ for _ in ()).throw(
        ValueError("enough")))
    for typed in (["--method-weights", "top1"], []):
        with pytest.raises(ValueError, match="enough"):
            cli.app(["run", "promptsync", *typed, "--dataset", "animals"], standalone_mode=False)
    assert seen[0]["weights"] == "top1" and "weights" not in seen[1]


def test_as_a_module(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "minipsync", "run", "zero_shot", *QUICK], cwd=tmp_path,
                          env=env, text=True, capture_output=True)
    assert done.returncode == 0 and "zero_shot on animals" in done.stdout, done.stderr
    assert len(pd.read_csv(next(tmp_path.glob("r/*.csv")))) == 2


# ---- headroom -----------------------------------------------------------------------------------------
def test_headroom_of_a_method_that_tunes_nothing(here):
    text = said("headroom", "zero_shot", "--dataset", "animals", "--limit", 3, "--n-views", 3, "--lr", "0.02",
                "--template", "a drawing of a {}.", "--quiet", "--out", "h.csv")
    assert "zero_shot on animals, n = 3; a step moves the words 'a drawing of a' before the class" in text
    assert "by TPT's step, rate 0.02" in text and "mean of 1 confident of 3 views" in text
    assert text.endswith("written: h.csv")
    table = pd.read_csv(here / "h.csv")
    assert list(table.columns) == ["measure", "value", "low", "high", "n", "says"] and len(table) > 15


def test_headroom_shows_the_settings_that_it_has():
    assert "--lr rate of AdamW" in said("headroom", "zero_shot", "--help")
    text = said("headroom", "promptsync", "--help")
    assert "Settings of promptsync:" in text and "Settings of headroom:" not in text


@pytest.mark.parametrize("arguments, told", [
    (["tpt", "--depth", "3"], "^--depth: tpt has no such setting"),
    (["mapel"], "^unknown method 'mapel'. Did you mean 'maple'"),
    (["zero_shot", "--n-views", "0"], "headroom: n_views=0 does not fit"),
    (["zero_shot", "--dataset", "scetch"], "scetch.*Did you mean 'sketch'")])
def test_headroom_says_what_does_not_fit(arguments, told, here):
    with pytest.raises((ValueError, TypeError), match=told):
        said("headroom", *arguments, "--quiet")
