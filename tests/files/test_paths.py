"""Full disks, places that cannot be written to, no home folder, and Ctrl-C: one line that says what to do."""
import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import minipsync as mp
from minipsync import cli
from minipsync.evaluation.record_format import write_sidecar
from minipsync.files import paths
from minipsync.files.paths import check_writable, expand, write_whole
from minipsync.files.tensors import write_tensors
from minipsync.methods import build

FIT = ["fit", "coop", "--epochs", "2", "--shots", "1", "--n-ctx", "2", "--quiet",
       "--dataset", "animals"]
RUN = ["run", "zero_shot", "--dataset", "animals", "--limit", "20", "--batch-size", "4", "--quiet"]


def command(arguments, monkeypatch, capsys):
    """What main() writes to stderr, after its last warning, and its status."""
    monkeypatch.setattr(sys, "argv", ["minipsync", *map(str, arguments)])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)          # main sets another
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    code = stop.value.code
    return (0, "") if code in (None, 0) else (code, said.err) if isinstance(code, int) else (1, code)


@contextmanager
def room_for(size):
    """Stands in for a disk with so many bytes left."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


# ---- one file ----
WRITERS = {"bytes": lambda path, size: write_whole(path, size * b"x"),
           "tensors": lambda path, size: write_tensors(path, {"x": torch.zeros(size // 4)}, {"a": "b"}),
           "sidecar": lambda path, size: write_sidecar(path, {"x": size * "x"})}


@pytest.mark.parametrize("kind", WRITERS)
def test_whole_or_not_at_all(kind, tmp_path):
    path, write = tmp_path / "deep" / "a.file", WRITERS[kind]
    write(path, 400)
    before = path.read_bytes()
    with room_for(1000), pytest.raises(OSError, match=r"cannot be written \(File too large\); make .*a.file"):
        write(path, 8000)
    assert path.read_bytes() == before and [f.name for f in path.parent.iterdir()] == ["a.file"]
    write(path, 8000)
    assert path.stat().st_size >= 8000
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask                # readable for whom new files are


def test_a_kill_leaves_what_was_there(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", b"old")

    def interrupted(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(paths.os, "replace", interrupted)
        write_whole(tmp_path / "a", b"new")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.parametrize("code, mend", [
    (errno.ENOSPC, "make room"), (errno.EDQUOT, "make room"), (errno.EROFS, "that you may write to"),
    (errno.EACCES, "that you may write to"), (errno.EIO, "name a folder")])
def test_other_errors(code, mend, tmp_path, monkeypatch):
    def fail(self, *_):
        raise OSError(code, os.strerror(code), str(self))
    for name in ("write_bytes", "touch"):
        monkeypatch.setattr(Path, name, fail)
    for write in (lambda: write_whole(tmp_path / "a", b"x", "prompts"),
                  lambda: check_writable(tmp_path / "a", "prompts")):
        with pytest.raises(OSError, match=mend) as error:
            write()
        assert error.value.errno == code and str(error.value).endswith(f"{str(tmp_path / 'a')!r}")
        assert f"prompts cannot be written ({os.strerror(code)})" in str(error.value)


@pytest.mark.parametrize("place, words", [
    ("file/a", "a file is where a folder is expected"), ("folder", "a folder is where a file is expected"),
    ("file/deep/a", "a file is where a folder is expected")])
def test_file_and_folder_mixed_up(place, words, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=words):
        write_whole(tmp_path / place, b"x")
    assert (tmp_path / "file").read_text() == "mine" and not list((tmp_path / "folder").iterdir())
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "folder"]


# ---- commands ----
def test_fit_on_a_full_disk_goes_on_when_there_is_room(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    with room_for(1024):
        status, said = command([*FIT, "--out", out], monkeypatch, capsys)
    assert status == 1 and said.count("\n") == 0 and str(out) in said and "make room" in said
    assert list(out.iterdir()) == []
    assert command([*FIT, "--out", out], monkeypatch, capsys)[0] == 0
    assert [f.suffix for f in out.iterdir()] == [".safetensors"]


def test_fit_keeps_its_checkpoint_where_the_prompts_have_no_room(tmp_path, monkeypatch):
    bench = mp.benchmark("mini")
    data = bench.dataset("animals", "train")
    how = {"epochs": 2, "shots": 1, "progress": False}

    def method():
        return build("coop", bench.clip(device="cpu"), data.class_names, n_ctx=2)
    want = mp.protocols.learned(method(), data, **how)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(type(want), "save", full)
        mp.protocols.learned(method(), data, tmp_path, **how)
    assert [f.suffix for f in tmp_path.iterdir()] == [".training"]
    steps = []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: steps.append(1))
    again = mp.protocols.learned(method(), data, tmp_path, **how)
    assert not steps and all(map(torch.equal, again.parameters(), want.parameters()))


@pytest.mark.parametrize("what", ["fit", "run", "prepare", "table"])
def test_a_file_where_the_folder_should_be(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("notes")
    if what == "table":
        assert CliRunner().invoke(cli.app, [*RUN, "--records", "r"]).exit_code == 0
    arguments = {"fit": FIT, "run": RUN, "prepare": ["prepare", "promptalign", "--again", "--quiet"],
                 "table": ["table", "cross_dataset", "--records", "r", "--out", "results/t.csv"]}[what]
    status, said = command(arguments, monkeypatch, capsys)
    assert status == 1 and "results" in said and "a file is where a folder is expected" in said
    assert (tmp_path / "results").read_text() == "notes"


def test_table_is_not_half_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli.app, [*RUN, "--records", "r"]).exit_code == 0
    arguments = ["table", "cross_dataset", "--records", "r", "--out", tmp_path / "t.txt"]
    (tmp_path / "t.txt").write_text("before")
    with room_for(100):
        status, said = command(arguments, monkeypatch, capsys)
    assert status == 1 and "t.txt" in said and (tmp_path / "t.txt").read_text() == "before"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["r", "t.txt"]


def test_training_is_refused_before_its_first_step(tmp_path, tiny_clip, monkeypatch):
    from test_training import FAST, Toy, toy_method
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(OSError, match="cannot be written"):
        toy_method(tiny_clip).fit(Toy(), checkpoint=tmp_path / "file" / "c.safetensors", **FAST)


# ---- no home folder ----
@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and a user who is in no list of users, as in many containers."""
    def unknown(*_):
        raise KeyError("no such user")
    for name in ("HOME", "USERPROFILE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    pwd = pytest.importorskip("pwd")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~/x") == tmp_path / "x" and expand(Path("a/~")) == Path("a/~")


def test_records_in_the_home_folder_are_compared(monkeypatch, tmp_path):
    """Also with the mark that a spreadsheet on Windows puts first."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    rows = "image,label,correct,top5\n" + "".join(f"{i},0,{i % 2},0\n" for i in range(8))
    (tmp_path / "a.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "b.csv").write_text(rows, encoding="utf-8-sig")
    assert mp.compare("~/a.csv", "~/b.csv").difference == 0
    (tmp_path / "b.csv").write_text(rows, encoding="utf-16")
    with pytest.raises(ValueError, match="b.csv' is not UTF-8 text"):
        mp.compare("~/a.csv", "~/b.csv")


@pytest.mark.parametrize("path", ["~/x", "~", "~nobody/x"])
def test_no_home(path, homeless):
    with pytest.raises(FileNotFoundError, match=f"{path}.*no home folder is known.*write the path out"):
        expand(path)


def test_info_without_home(homeless, monkeypatch, capsys):
    result = CliRunner().invoke(cli.app, ["info", "--root", "~/data"])
    assert result.exit_code == 0 and "results/records: " in result.output
    assert "~/data, no such folder" in result.output


@pytest.mark.parametrize("arguments", [
    [*FIT, "--out", "~/p"], [*RUN, "--records", "~/r"], ["run", "coop", "--prompts", "~/p"],
    ["run", "promptalign", "--source", "~/s"], ["run", "zero_shot", "--dataset", "folder:~/d"],
    ["run", "zero_shot", "--dataset", "wds:~/d"], ["table", "cross_dataset", "--records", "~/r"],
    ["run", "zero_shot", "--benchmark", "full", "--root", "~/d"]], ids=lambda a: f"{a[0]} {a[-1]}")
def test_commands_without_home(arguments, homeless, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, said = command(arguments, monkeypatch, capsys)
    assert status == 1 and "no home folder is known" in said and arguments[-1].split(":")[-1] in said
    assert not list(tmp_path.iterdir())


# ---- Ctrl-C ----
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("arguments, kept", [
    (["fit", "coop", "--dataset", "animals", "--epochs", "500", "--save-every", "0", "--quiet",
      "--out", "kept"], "*.training"),
    (["run", "tpt", "--dataset", "animals", "--batch-size", "1", "--records", "kept", "--quiet"], "*.csv")],
    ids=["fit", "run"])
def test_interrupt(arguments, kept, tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    # a shell that started these tests in the background may have set them to ignore Ctrl-C
    process = subprocess.Popen([sys.executable, "-m", "minipsync", *arguments], cwd=tmp_path, env=env,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def begun():
        return any(f.stat().st_size > 300 for f in (tmp_path / "kept").glob(kept))
    for _ in range(2400):
        if begun() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130 and said.strip().splitlines()[-1].startswith("minipsync: stopped."), said
    assert "Traceback" not in said and begun()
    assert not list((tmp_path / "kept").glob(".*.part"))


# ---- damaged files ----
def test_damaged_records(tmp_path):
    bench = mp.benchmark("mini")
    data = bench.dataset("animals")
    method = build("zero_shot", bench.clip(device="cpu"), data.class_names)
    path = mp.evaluate(method, data, limit=2, records=tmp_path, progress=False).path
    whole = path.read_bytes()
    for damage in (b"\xff\xfe,", b'"' + 200_000 * b"x" + b'"'):
        path.write_bytes(whole + damage + b"\n")
        with pytest.raises(ValueError, match=f"{path.name}, line 4 is not a record.*delete that line"):
            mp.evaluate(method, data, limit=2, records=tmp_path, progress=False)
