"""evaluate, its records, and compare: with a method made of arithmetic and images made of one colour."""

import contextlib
import csv
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import multiclass_calibration_error

from minipsync.data import folder
from minipsync.evaluation.evaluate import balanced_order, compare, evaluate
from minipsync.evaluation.records import RecordFile
from minipsync.methods.prediction import Prediction
from minipsync.report.runs import load_runs
from minipsync.source.domain import SourceDomain
from minipsync.source.moments import Moments

CLASSES = ["cat", "dog", "fish", "bird", "bee", "ant", "cow"]


@dataclass(frozen=True)
class Config:
    noise: float = 3.0


class Colours:
    """A dataset: image i is one colour that says i; every class has its own number of images."""

    def __init__(self, sizes=(9, 7, 5, 8, 6, 7, 3), name="colours", corrupt=()):
        self.name, self.class_names, self.corrupt = name, list(CLASSES), set(corrupt)
        self.labels = np.repeat(np.arange(len(sizes)), sizes)

    def __len__(self):
        return len(self.labels)

    def image_id(self, i):
        return f'{self.class_names[self.labels[i]]}, "{i}".png'         # a comma and quotes: CSV must cope

    def __getitem__(self, i):
        if i in self.corrupt:
            raise OSError("image file is truncated")
        return Image.new("RGB", (4, 4), (i, int(self.labels[i]), 0)), int(self.labels[i])


class Guess:
    """A method: noisy logits around the true class, a function of the image alone."""

    name = "guess"

    def __init__(self, noise=3.0, pause=0.0, class_names=CLASSES):
        self.config, self.pause, self.class_names, self.calls = Config(noise), pause, list(class_names), []

    def predict(self, images):
        time.sleep(self.pause)
        self.calls.append(len(images))
        pixels = [image.getpixel((0, 0)) for image in images]
        noise = np.stack([np.random.RandomState(i).standard_normal(7) for i, _, _ in pixels])
        truth = np.eye(7)[[label for _, label, _ in pixels]]
        return torch.tensor(2 * truth + self.config.noise * noise, dtype=torch.float32)


def same(a, b):
    """The same result, but for the time it took."""
    pd.testing.assert_frame_equal(a.records.drop(columns="seconds"), b.records.drop(columns="seconds"))
    return (a.accuracy, a.interval, a.ece, a.n) == (b.accuracy, b.interval, b.ece, b.n)


def test_what_is_reported():
    data, method = Colours(), Guess()
    result = evaluate(method, data, progress=False)
    logits = method.predict([data[i][0] for i in range(len(data))])
    labels = torch.tensor(data.labels)
    right = (logits.argmax(1) == labels).float().mean().item()
    assert result.n == len(data) == 45 and result.accuracy == pytest.approx(right) and 0.2 < right < 0.8
    assert result.interval[0] < right < result.interval[1]
    ece = multiclass_calibration_error(logits.softmax(1), labels, num_classes=7, n_bins=15).item()
    assert result.ece == pytest.approx(ece, abs=2e-6)     # theirs is float32, our records have six digits
    row = result.records.set_index("image").loc['dog, "9".png']
    p = logits[9].softmax(0)
    assert row.label == 1 and row.prediction == p.argmax()
    assert row.confidence == pytest.approx(p.max().item(), rel=6e-6)                         # six digits
    assert row.entropy == pytest.approx(-(p * p.log()).sum().item(), rel=6e-6)
    assert row.top5.split()[0] == str(row.prediction) and len(row.top5.split()) == 5
    assert result.seconds_per_image > 0 and result.path is None
    assert "95 % interval" in repr(result) and "45" in repr(result) and "<table" in result._repr_html_()
    assert {"method", "dataset", "seed", "n", "accuracy", "low", "high", "ece"} <= set(result.row())


def test_wilson_interval():
    data = Colours((10, 0, 0, 0, 0, 0, 0))
    method = Guess()
    method.predict = lambda images: torch.tensor(
        [[1.0, 5.0 if image.getpixel((0, 0))[0] in (3, 7) else 0.0, 0, 0, 0, 0, 0] for image in images])
    result = evaluate(method, data, progress=False)
    assert result.accuracy == 0.8                                      # 8 of 10: a textbook value
    assert result.interval == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_limit_is_balanced_nested_and_the_same_everywhere():
    data = Colours()
    ids = [data.image_id(i) for i in range(len(data))]
    order = balanced_order(ids, data.labels, None, sample_seed=0)
    assert sorted(order) == list(range(45))
    for limit in (3, 7, 14, 21):
        taken = balanced_order(ids, data.labels, limit, sample_seed=0)
        assert taken == order[:limit]                                 # larger ones contain smaller ones
        counts = np.bincount(data.labels[taken], minlength=7)
        assert counts.max() - counts.min() <= 1
    shuffled = np.random.RandomState(1).permutation(45)                # another machine lists them otherwise
    again = balanced_order([ids[i] for i in shuffled], data.labels[shuffled], 20, sample_seed=0)
    assert [int(shuffled[i]) for i in again] == order[:20]
    assert set(balanced_order(ids, data.labels, 20, sample_seed=1)) != set(order[:20])
    assert order[:8] == [35, 5, 17, 25, 32, 14, 42, 39]        # frozen: a change would change every sample
    assert evaluate(Guess(), data, limit=1000, progress=False).n == 45


def test_labels_that_fit_no_class_are_refused():
    with pytest.raises(ValueError, match="colours has no images"):
        evaluate(Guess(), Colours(7 * (0,)), progress=False)
    data = Colours()
    data.image_id = str                                                  # its own asks for the class
    for wrong in (-1, 7):
        data.labels[0] = wrong
        with pytest.raises(ValueError, match=f"labels of colours, .*{wrong}.*do not fit its 45 images"):
            evaluate(Guess(), data, progress=False)


def test_facts_are_those_of_the_last_run(tmp_path):
    for trained_on in ("b", "a"):                                        # whatever their order
        method = Guess()
        method.trained_on = trained_on
        path = evaluate(method, Colours(), limit=4, records=tmp_path, progress=False).path
    facts = json.loads(path.with_suffix(".run.json").read_text(encoding="utf-8"))["facts"]
    assert facts["trained_on"] == "a"


def test_records_resume_and_grow(tmp_path):
    data = Colours()
    whole = evaluate(Guess(), data, records=tmp_path / "whole.csv", batch_size=4, progress=False)
    columns = list(pd.read_csv(whole.path).columns)
    assert columns[:6] == ["image", "label", "prediction", "correct", "confidence", "entropy"]
    part = evaluate(Guess(), data, limit=20, records=tmp_path / "a.csv", batch_size=4, progress=False)
    assert part.n == 20 and part.resumed == 0
    method = Guess()
    rest = evaluate(method, data, records=tmp_path / "a.csv", batch_size=4, progress=False)
    assert rest.resumed == 20 and sum(method.calls) == 25 and same(rest, whole)
    method = Guess()
    again = evaluate(method, data, records=tmp_path / "a.csv", batch_size=4, progress=False)
    assert not method.calls and same(again, whole) and again.seconds_per_image == rest.seconds_per_image
    smaller = evaluate(method, data, limit=20, records=tmp_path / "a.csv", batch_size=4, progress=False)
    assert not method.calls and same(smaller, part)
    in_memory = evaluate(Guess(), data, batch_size=4, progress=False)
    assert same(in_memory, whole)


def test_a_kill_at_any_byte(tmp_path):
    data = Colours((3, 2, 2, 1, 1, 1, 1))
    whole = evaluate(Guess(), data, records=tmp_path / "whole.csv", batch_size=4, progress=False)
    content = whole.path.read_bytes()
    for cut in range(0, len(content), 7):
        path = tmp_path / "cut.csv"
        path.write_bytes(content[:cut])
        method = Guess()
        result = evaluate(method, data, records=path, batch_size=4, progress=False)
        assert same(result, whole) and len(method.calls) == sum(end > result.resumed for end in (4, 8, 11))
        rows = list(csv.reader(path.open(newline="")))
        assert len(rows) == 1 + len(data) and len({row[0] for row in rows}) == len(rows)


RUN = """
import sys
sys.path.insert(0, {folder!r})
from test_evaluation import Colours, Guess
from minipsync.data import folder
from minipsync.evaluation.evaluate import evaluate
evaluate(Guess(pause=0.2), Colours(), records={path!r}, batch_size=2, progress=False)
"""


def test_sigkill_then_resume(tmp_path, monkeypatch):
    path = tmp_path / "killed.csv"
    code = RUN.format(folder=str(Path(__file__).parent), path=str(path))
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": root})
    deadline = time.time() + 240
    while not (path.exists() and path.read_bytes().count(b"\n") > 10):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.02)
    monkeypatch.setattr("minipsync.evaluation.records.PATIENCE", 0)
    with pytest.raises(RuntimeError, match="another process is writing"):
        evaluate(Guess(), Colours(), records=path, batch_size=2, progress=False)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with path.open("ab") as file:
        file.write(b'"dog, ""9"".png",1,1,1,0.93')              # and a torn line
    method = Guess()
    resumed = evaluate(method, Colours(), records=path, batch_size=2, progress=False)
    assert 10 <= resumed.resumed < 45 and sum(method.calls) == 45 - resumed.resumed
    assert same(resumed, evaluate(Guess(), Colours(), batch_size=2, progress=False))


def test_runs_are_never_mixed(tmp_path):
    data, path = Colours(), tmp_path / "a.csv"
    evaluate(Guess(), data, limit=4, records=path, progress=False)
    with pytest.raises(ValueError, match=r"another run: config.noise is 3.0 there and 1.0 here.*folder"):
        evaluate(Guess(noise=1.0), data, limit=4, records=path, progress=False)
    other = Colours((10, 7, 5, 8, 6, 7, 3), name="other")               # images and content differ, too
    with pytest.raises(ValueError, match="dataset is .*; seed is .*; config.noise is [^;]*; and 2 more"):
        evaluate(Guess(noise=1.0), other, limit=4, records=path, sample_seed=5, progress=False)
    with pytest.raises(ValueError, match="seed is 0 there and 5 here"):
        evaluate(Guess(), data, limit=4, records=path, sample_seed=5, progress=False)
    with pytest.raises(ValueError, match="dataset is 'colours' there and 'other' here"):
        evaluate(Guess(), Colours(name="other"), limit=4, records=path, progress=False)
    with pytest.raises(ValueError, match="images is '45, .* there and '46, "):
        evaluate(Guess(), Colours((10, 7, 5, 8, 6, 7, 3)), limit=4, records=path, progress=False)
    trained = Guess()
    trained.state_dict = lambda: {"ctx": torch.ones(3)}
    with pytest.raises(ValueError, match="prompts is"):
        evaluate(trained, data, limit=4, records=path, progress=False)
    trained = Guess()
    trained.source = SourceDomain(Moments(torch.zeros(2), torch.zeros(2)))
    with pytest.raises(ValueError, match="source is"):
        evaluate(trained, data, limit=4, records=path, progress=False)
    before = path.read_bytes()
    (tmp_path / "a.run.json").unlink()
    with pytest.raises(ValueError, match="another run: its key is not"):
        evaluate(Guess(noise=1.0), data, limit=4, records=path, progress=False)
    assert path.read_bytes() == before                                  # no failure touched the records
    folder = tmp_path / "many"
    results = [evaluate(Guess(x), data, limit=4, records=folder, progress=False) for x in (1.0, 2.0, 1.0)]
    assert len(list(folder.glob("guess-colours-seed0-*.csv"))) == 2 and results[2].resumed == 4


def test_a_damaged_file_of_another_run_gives_its_good_lines(tmp_path):
    """Rows of a data set that has grown are taken over; who wrote the other file may be at work, or gone."""
    small, large = Colours((4, 3, 2, 2, 2, 2, 2), name="small"), Colours((4, 3, 2, 2, 2, 2, 3), name="large")
    first = evaluate(Guess(), small, records=tmp_path, progress=False)
    lines = first.path.read_bytes().splitlines(keepends=True)
    first.path.write_bytes(b"".join([*lines[:5], b"\xff,not,a,row\n", *lines[6:-1], lines[-1][:-4]]))
    for broken in ("guess-a-seed0-abc.run.json", "guess-b-seed0-abc.run.json"):
        (tmp_path / broken).write_text("{" if "-a-" in broken else '{"run": [], "key": 1}')
    second = evaluate(Guess(), large, records=tmp_path, progress=False)
    assert (second.n, second.resumed) == (18, 15)                      # 17, without the two that are broken


@pytest.mark.parametrize("left", ["", "image,label", None])
def test_a_file_without_rows_takes_no_facts_of_another_run(left, tmp_path):
    path = tmp_path / "a.csv"
    sidecar = path.with_suffix(".run.json")
    evaluate(Guess(noise=1.0), Colours(), limit=4, records=path, progress=False)
    other = json.loads(sidecar.read_text(encoding="utf-8"))
    other["facts"]["libraries"] = ["torch 0"]
    sidecar.write_text(json.dumps(other))
    path.write_text(path.read_text().splitlines(keepends=True)[0] if left is None else left)
    evaluate(Guess(), Colours(), limit=4, records=path, progress=False)
    [run] = load_runs(tmp_path)                                        # which would refuse another's sidecar
    assert run.config == {"noise": 3.0} and len(run.records) == 4 and "torch 0" not in run.libraries


def test_files_that_cannot_serve(tmp_path):
    data = Colours()
    (tmp_path / "notes.csv").write_text("dear diary,\n")
    with pytest.raises(ValueError, match="not a file of records"):
        evaluate(Guess(), data, limit=4, records=tmp_path / "notes.csv", progress=False)
    assert (tmp_path / "notes.csv").read_text() == "dear diary,\n"
    with pytest.raises(OSError, match="records cannot be written.*records=None"):
        evaluate(Guess(), data, limit=4, records=tmp_path / "notes.csv" / "below", progress=False)
    good = evaluate(Guess(), data, limit=4, records=tmp_path / "a.csv", progress=False)
    good.path.write_text(good.path.read_text().replace(",1,", ",one,", 1))
    with pytest.raises(ValueError, match=r"a.csv, line 2 is not a record.*delete that line"):
        evaluate(Guess(), data, limit=4, records=good.path, progress=False)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="records cannot be written"):
        evaluate(Guess(), Colours(), limit=4, records=tmp_path / "a.csv", progress=False)


@pytest.mark.skipif(os.name == "nt", reason="needs file size limits")
def test_full_disk(tmp_path):
    import resource
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))   # stands in for a disk with little left
    try:
        with pytest.raises(OSError, match="records cannot be written"):
            evaluate(Guess(), Colours(), records=tmp_path / "a.csv", batch_size=4, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    resumed = evaluate(Guess(), Colours(), records=tmp_path / "a.csv", batch_size=4, progress=False)
    assert 0 < resumed.resumed < 45
    assert same(resumed, evaluate(Guess(), Colours(), batch_size=4, progress=False))


def load_facts(folder, result):
    """The images that the file beside the records says were skipped, and the key is 12 digits."""
    facts = json.loads(result.path.with_suffix(".run.json").read_text(encoding="utf-8"))
    assert result.path.parent == folder and len(facts["key"]) == 12
    return facts["facts"]["skipped"]


def test_corrupt_images_are_counted_and_tried_again(tmp_path):
    path, bad = tmp_path / "records", {0, 20, 21}
    with pytest.warns(UserWarning, match="3 of 45 images of colours could not be read"):
        result = evaluate(Guess(), Colours(corrupt=bad), records=path, batch_size=4, progress=False)
    assert result.n == 42 and len(result.skipped) == 3 and "(3 unreadable images skipped)" in repr(result)
    assert sorted(name for name, _ in result.skipped) == sorted(Colours().image_id(i) for i in bad)
    assert "truncated" in result.skipped[0][1]
    with pytest.warns(UserWarning):
        method = Guess()
        evaluate(method, Colours(corrupt=bad), records=path, batch_size=4, progress=False)
    assert not method.calls                                             # nothing new to predict
    method = Guess()
    mended = evaluate(method, Colours(), records=path, batch_size=4, progress=False)
    assert mended.n == 45 and not mended.skipped and mended.resumed == 42
    assert same(mended, evaluate(Guess(), Colours(), batch_size=4, progress=False))
    assert [load_facts(path, r) for r in (result, mended)] == [[name for name, _ in result.skipped], []]
    with pytest.raises(ValueError, match="none of the 45 images"):
        evaluate(Guess(), Colours(corrupt=range(45)), progress=False)


def test_what_is_not_among_the_n_is_told(tmp_path):
    """In the result, its row and its table in a notebook, and in the facts beside the records."""
    for name in CLASSES:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    for name, content in (("ant/x.jpg", b"broken"), ("bee/x.heic", b""), ("bee/y.heic", b""), ("z.jpg", b"")):
        (tmp_path / name).write_bytes(content)
    with pytest.warns(UserWarning, match="left out of"):
        data = folder(tmp_path)
    method = Guess(class_names=data.class_names)
    with pytest.warns(UserWarning, match="1 of 8 images"):
        result = evaluate(method, data, records=tmp_path / "records", progress=False)
    assert (result.n, result.found, len(result.skipped)) == (7, 11, 1)
    assert result.left_out == {"outside the class folders": 1, "kind not read": 2}
    words = ("n = 7 of 11 found (1 unreadable image skipped, left out: 1 outside the class folders, left "
             "out: 2 kind not read)")
    assert words in repr(result) and words.removeprefix("n = ") in result._repr_html_()
    assert result.row()["found"] == 11 and result.row()["skipped"] == 1
    assert result.row()["left_out"] == "1 outside the class folders; 2 kind not read"
    [run] = load_runs(tmp_path / "records")
    assert (run.result.left_out, run.result.found) == (result.left_out, 11)
    assert repr(evaluate(method, data.subset([0]), progress=False)).count("left out") == 2
    clean = evaluate(Guess(), Colours(), progress=False)
    assert "found" not in repr(clean) and clean.row()["left_out"] == ""


@pytest.mark.parametrize("arguments, message", [
    ({"limit": 0}, "limit=0: expected a whole number of images, 1 or more, or None"),
    ({"limit": "50"}, "limit='50'"), ({"limit": True}, "limit=True"), ({"limit": 2.5}, "limit=2.5"),
    ({"batch_size": 0}, "batch_size=0"), ({"sample_seed": None}, "sample_seed=None")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Guess(), Colours(), progress=False, **arguments)


def test_bad_data_and_methods():
    with pytest.raises(TypeError, match="list has no name, class_names"):
        evaluate(Guess(), [1, 2], progress=False)
    with pytest.raises(ValueError, match=r"from class 0 on they differ \('dog' and 'cat'\).*set_class_names"):
        evaluate(Guess(class_names=["dog", "cat", *CLASSES[2:]]), Colours(), progress=False)
    with pytest.raises(ValueError, match=r"6 classes and colours has 7; from class 6 .*\(none and .cow.\)"):
        evaluate(Guess(class_names=CLASSES[:6]), Colours(), progress=False)
    method, data = Guess(), Colours()
    method.predict = lambda images: torch.full((len(images), 7), float("nan"))
    with pytest.raises(ValueError, match='not finite for image .*"fp32"'):
        evaluate(method, data, progress=False)
    method.predict = lambda images: torch.zeros(len(images), 5)
    with pytest.raises(ValueError, match=r"shape \(4, 5\); expected \(4, 7\)"):
        evaluate(method, data, progress=False)
    data.labels = data.labels[::-1].copy()
    data.image_id = lambda i: str(i)
    data.__class__ = type("Liar", (Colours,), {"__getitem__": lambda self, i: (Image.new("RGB", (4, 4)), 0)})
    with pytest.raises(ValueError, match="the two must agree"):
        evaluate(Guess(), data, progress=False)
    data = Colours()
    data.image_id = lambda i: "same"
    with pytest.raises(ValueError, match="must differ"):
        evaluate(Guess(), data, progress=False)


# ---- compare -----------------------------------------------------------------------------------------
def test_compare(tmp_path):
    data = Colours((40,) * 6 + (15,))                  # at most 256: one byte of colour says which
    good = evaluate(Guess(0.5), data, records=tmp_path / "good.csv", progress=False)
    poor = evaluate(Guess(4.0), data, records=tmp_path / "poor.csv", progress=False)
    found = compare(good, poor)
    both = good.records.merge(poor.records, on="image")
    assert found.n == 255 and found.difference == pytest.approx(good.accuracy - poor.accuracy)
    assert found.wins == int(((both.correct_x == 1) & (both.correct_y == 0)).sum())
    assert found.interval[0] < found.difference < found.interval[1] and found.told_apart
    assert found.verdict == "better" and found.p == 2 / 2**7 and found.classes == 7     # all seven are better
    back = compare(poor, good)
    assert back.verdict == "worse"
    assert back.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    assert "guess minus guess" in repr(found) and "better" in repr(found)
    assert found.row()["verdict"] == "better"
    itself = compare(good, good)
    assert not itself.told_apart and itself.p == 1 and itself.difference == 0
    assert itself.interval[0] < 0 < itself.interval[1]
    assert itself.verdict == "not told apart" and ": not told apart; n = 255 of 7 classes" in repr(itself)
    assert compare(good, good, margin=0.5).verdict == "level"      # none in 7 classes: within 35 %
    assert compare(good, good, margin=0.3).verdict == "not told apart"
    with pytest.raises(ValueError, match="margin=-1: expected a fraction above 0"):
        compare(good, good, margin=-1)
    with (tmp_path / "poor.csv").open("a") as file:
        file.write("dog,1,")                                            # torn: not a record
    from_files = compare(tmp_path / "good.csv", str(tmp_path / "poor.csv"))
    assert from_files.interval == found.interval and (from_files.a, from_files.b) == ("good", "poor")
    some = compare(good, poor.records.head(100))
    assert some.n == 100 and some.left_out == 155 and "155 images" in repr(some)


def test_compare_refuses():
    data = Colours()
    a = evaluate(Guess(), data, limit=7, progress=False)
    with pytest.raises(ValueError, match="'colours' and guess on 'other'"):
        compare(a, evaluate(Guess(), Colours(name="other"), limit=7, progress=False))
    others = evaluate(Guess(), data, progress=False).records[lambda rows: ~rows.image.isin(a.records.image)]
    with pytest.raises(ValueError, match="no image in common"):
        compare(a, others)
    with pytest.raises(ValueError, match="different labels for 7 images"):
        compare(a, a.records.assign(label=lambda rows: rows.label + 1))
    with pytest.raises(ValueError, match="no column correct"):
        compare(a, a.records.drop(columns="correct"))
    with pytest.raises(TypeError, match="a=int"):
        compare(3, a)


def test_a_second_process_waits_for_the_rows_of_the_first(tmp_path, monkeypatch, capsys):
    first = RecordFile(tmp_path / "a.csv", {"method": "m", "dataset": "d", "seed": 0})
    monkeypatch.setattr("minipsync.evaluation.records.time.sleep", lambda seconds: first.file.close())
    with RecordFile(tmp_path / "a.csv", {"method": "m", "dataset": "d", "seed": 0}) as second:
        assert second.rows == {}
    assert "waiting for another process that writes a.csv" in capsys.readouterr().err


def test_a_batch_that_was_interrupted_is_predicted_with_its_mates(tmp_path):
    """Batch mates can move the last digits of a logit: two of four rows are lost, all four are predicted."""
    data, path = Colours(), tmp_path / "a.csv"
    whole = evaluate(Guess(), data, limit=8, records=path, batch_size=4, progress=False)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]))
    method = Guess()
    again = evaluate(method, data, limit=8, records=path, batch_size=4, progress=False)
    assert method.calls == [4] and again.resumed == 6 and same(again, whole)


class Untuned(Guess):
    """A method that tunes: what it said before comes along as `untuned`."""

    def predict(self, images):
        logits = super().predict(images)
        return Prediction(logits, torch.zeros_like(logits))


def test_entropy_before_is_that_of_the_untuned_prediction():
    plain, tuned = (evaluate(method, Colours(), limit=5, progress=False).records
                    for method in (Guess(), Untuned()))
    assert (plain["entropy_before"] == plain["entropy"]).all() and (plain["entropy"] < 1.9).all()
    assert (tuned["entropy"] == plain["entropy"]).all()
    assert tuned["entropy_before"].tolist() == [pytest.approx(math.log(7), rel=1e-5)] * 5    # six digits kept


def test_what_another_call_left_on_a_method_does_not_count():
    """As an older version of a method did, or a student's: the prediction alone says what belongs to it."""
    method = Guess()
    method.untuned = torch.zeros(5, 7)
    rows = evaluate(method, Colours(), limit=5, progress=False).records
    assert (rows["entropy_before"] == rows["entropy"]).all()


def test_precision_and_code_are_part_of_what_a_run_is(tmp_path, monkeypatch):
    class Clip:
        fingerprint, precision, name, weights = "abc", "fp32", "clip", ""

    def run(precision="fp32"):
        method = Guess()
        method.clip = Clip()
        method.clip.precision = precision
        return evaluate(method, Colours(), limit=4, records=tmp_path, progress=False).resumed

    assert [run(), run(), run("bf16"), run("bf16")] == [0, 4, 0, 4]
    monkeypatch.setattr("minipsync.evaluation.identity.code_fingerprint", lambda objects: "other code")
    assert [run(), run()] == [0, 4]


# ---- the bar ----------------------------------------------------------------------------------------
def states(said):
    """What the bar showed, state by state: (images done, images per second or None)."""
    found = re.findall(r"(\d+)/45 \[[^,]*, *([\d.?]+) ?(s/image|image/s)", said)
    return [(int(n), None if "?" in rate else float(rate) if unit == "image/s" else 1 / float(rate))
            for n, rate, unit in found]


def test_the_rate_counts_only_what_is_predicted_now(tmp_path, capsys):
    """40 of 45 images are there; the other 5 take 0.3 s each, one to a batch."""
    evaluate(Guess(), Colours(), limit=40, records=tmp_path, progress=False)
    evaluate(Guess(pause=0.3), Colours(), records=tmp_path, batch_size=1)
    said = capsys.readouterr().err
    shown = states(said)
    assert shown[0][0] == 40 and shown[-1][0] == 45
    assert shown == sorted(shown, key=lambda state: state[0])
    rates = [rate for _, rate in shown if rate is not None]
    assert rates and max(rates) <= 1 / 0.3 + 0.01                    # shown with two digits
    assert "accuracy" in said and "guess on colours" in said
    evaluate(Guess(), Colours(), records=tmp_path)                   # nothing is left to do
    assert states(capsys.readouterr().err)[-1] == (45, None)


def test_the_bar_moves_within_a_batch_and_counts_after_each(capsys):
    evaluate(Guess(pause=2.2), Colours(), batch_size=23)
    shown = [n for n, _ in states(capsys.readouterr().err)]
    assert set(shown) == {0, 23, 45}
    assert all(shown.count(n) >= 2 for n in (0, 23))                 # once when it came, and each second
    evaluate(Guess(), Colours(), progress=False)
    assert capsys.readouterr().err == ""


TERMINAL = """
import sys
sys.path.insert(0, {folder!r})
from test_evaluation import Colours, Guess
from minipsync.evaluation.evaluate import evaluate
evaluate(Guess(), Colours(), limit=25, records={records!r}, progress=False)
evaluate(Guess(pause=0.8), Colours(), records={records!r})
"""


def test_a_terminal_keeps_one_line_that_moves_every_second(tmp_path):
    """25 of 45 images are there. A batch of four takes 0.8 s; the terminal has 70 columns."""
    import fcntl
    import pty
    import termios
    root, records = str(Path(__file__).parents[2]), str(tmp_path / "records.csv")
    code = TERMINAL.format(folder=str(Path(__file__).parent), records=records)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": root},
                               stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):                               # Linux's end of a terminal
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    assert process.wait() == 0, said.decode()
    lines = said.decode().strip("\r\n").split("\r")
    assert "\n" not in said.decode().strip("\r\n") and max(map(len, lines)) <= 70
    shown = [n for n, _ in states(said.decode())]
    assert shown == sorted(shown) and set(shown) == {25, 28, 32, 36, 40, 44, 45}
    rates = [rate for _, rate in states(said.decode()) if rate is not None]
    assert 0 < max(rates) <= 4 / 0.8 + 0.01                          # what was there counts for nothing


def test_the_usual_batch_is_small_on_the_cpu():
    class OnAGPU(Guess):
        clip = SimpleNamespace(device=torch.device("cuda"), fingerprint="", precision="", name="", weights="")

    def calls(method):
        evaluate(method, Colours(), limit=20, progress=False)
        return method.calls

    assert calls(Guess()) == [4] * 5 and calls(OnAGPU()) == [16, 4]


def test_unreadable_images_count_as_done(capsys):
    with pytest.warns(UserWarning, match="2 of 45 images"):
        evaluate(Guess(), Colours(corrupt=(0, 20)), batch_size=4)
    assert states(capsys.readouterr().err)[-1][0] == 45


def test_a_bar_leaves_no_clock_running_after_an_error():
    method, before = Guess(), threading.active_count()
    method.predict = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluate(method, Colours())
    assert threading.active_count() == before
