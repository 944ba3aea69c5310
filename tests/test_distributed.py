"""The command line under torchrun: the same records from 1, 2 and 3 processes, and from a killed one."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from rounding import features, relative

import minipsync as mp
from minipsync.source.moments import Moments
from minipsync.source.one_pass import forget, one_pass
from minipsync.source.prototypes import Prototypes

ROOT = Path(__file__).resolve().parents[1]
RUN = ["run", "zero_shot", "--dataset", "clothing", "--limit", "40", "--batch-size", "6", "--quiet"]


def start(folder, processes, *arguments, module="minipsync"):
    """`torchrun --nproc-per-node processes -m module arguments` in `folder`, with one thread each."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen([sys.executable, *launch, "-m", module, *arguments], cwd=folder, text=True,
                            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def rows(folder):
    (file,) = Path(folder).glob("results/records/*.csv")
    return pd.read_csv(file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The records of one process without torchrun."""
    folder = tmp_path_factory.mktemp("alone")
    done = subprocess.run([sys.executable, "-m", "minipsync", *RUN], cwd=folder, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "zero_shot on clothing" in done.stdout
    return rows(folder)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_records_do_not_depend_on_the_number_of_processes(processes, alone, tmp_path):
    process = start(tmp_path, processes, *RUN)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    assert said.count("zero_shot on clothing") == 1                # the first process speaks for all
    pd.testing.assert_frame_equal(rows(tmp_path).drop(columns="seconds"), alone.drop(columns="seconds"),
                                  check_exact=True)                # the same batches, whoever predicts them
    assert not list(tmp_path.rglob("*.rank*"))


@pytest.mark.slow
def test_a_process_that_dies_does_not_take_the_others_work_along(tmp_path):
    slow = ["run", "maple_tpt", "--dataset", "clothing", "--limit", "36", "--batch-size", "1", "--n-views",
            "16", "--quiet"]
    process = start(tmp_path, 2, *slow)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        files = list(tmp_path.rglob("*.rank*.csv"))
        if len(files) == 2 and all(len(f.read_bytes().splitlines()) > 2 for f in files):
            break
        time.sleep(0.05)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"no rows after 240 s: {process.communicate()[0][-2000:]}")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    before = pd.concat([pd.read_csv(f) for f in tmp_path.rglob("*.rank*.csv")]).set_index("image")
    assert 4 <= len(before) < 36
    again = start(tmp_path, 3, *slow)                              # another number of processes finishes it
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said[-3000:]
    after = rows(tmp_path).set_index("image")
    assert len(after) == 36 and after.index.is_unique
    kept = after.loc[before.index]
    assert (kept["seconds"] == before["seconds"]).all()            # not predicted a second time
    assert not list(tmp_path.rglob("*.rank*"))


# ---- one pass over a source ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def source():
    """(the mini CLIP, MaPLe's shipped prompts, 40 source images of 10 classes)."""
    clip, data = mp.load_clip("mini"), mp.benchmark("mini").dataset("imagenet", "train")
    data = data.of_classes(range(10)).subset(range(0, 160, 4))
    return clip, mp.build("maple", clip, data.class_names).load().learner, data


@pytest.mark.parametrize("kind", [Moments, Prototypes])
def test_a_pass_that_was_cut_off_goes_on(kind, source, tmp_path, monkeypatch):
    clip, learner, data = source
    whole = kind.collect(clip, learner, data, batch_size=8, progress=False)
    monkeypatch.setattr("minipsync.source.one_pass.time.monotonic", iter(range(0, 10**6, 100)).__next__)
    seen = []
    read, data.reader = data.reader, lambda i: seen.append(i) or read(i)
    def killed(i):
        if i >= 20:
            raise KeyboardInterrupt
        return read(i)
    try:
        with monkeypatch.context() as m:
            m.setattr(data, "reader", killed)
            with pytest.raises(KeyboardInterrupt):
                kind.collect(clip, learner, data, batch_size=8, progress=False, checkpoint=tmp_path / "pass")
        again = kind.collect(clip, learner, data, batch_size=8, progress=False, checkpoint=tmp_path / "pass")
        assert min(seen) >= 8                                       # the first batches were not read again
        for name in kind.NAMES:
            assert torch.equal(getattr(whole, name), getattr(again, name)), name
        with pytest.raises(ValueError, match="belongs to another pass: .*images was 40, is 39"):
            kind.collect(clip, learner, data.subset([*range(39)]), batch_size=8, progress=False,
                         checkpoint=tmp_path / "pass")
        forget(tmp_path / "pass")
        assert not list(tmp_path.iterdir())
    finally:
        data.reader = read


def test_processes_share_a_pass(source, monkeypatch):
    """What three processes would find, one after the other here, merges to what one finds."""
    clip, learner, data = source
    whole = Moments.collect(clip, learner, data, batch_size=8, progress=False)
    states = []
    monkeypatch.setattr("minipsync.distributed.world", lambda: 3)
    monkeypatch.setattr("minipsync.distributed.gather", lambda state: states.append(state) or states)
    for rank in range(3):
        monkeypatch.setattr("minipsync.distributed.rank", lambda rank=rank: rank)
        shared = Moments.collect(clip, learner, data, batch_size=8, progress=False)
    assert len(states) == 3
    error = 2 * features(clip)                                     # in other batches
    assert relative(shared.means, whole.means) < error
    square = (whole.variances + whole.means.square()).norm() / whole.variances.norm()
    assert relative(shared.variances, whole.variances) < 2 * error * square         # mean square less square


def test_an_unreadable_source_picture_is_named(source):
    class Broken:
        name = "broken"

        def __len__(self):
            return 2

        def __getitem__(self, i):
            raise OSError("image file is truncated")

        def image_id(self, i):
            return f"n01440764/{i}.JPEG"
    with pytest.raises(ValueError, match="n01440764/0.JPEG of broken cannot be read.*must be whole"):
        one_pass(Broken(), 1, lambda state, items: state, {}, progress=False)
