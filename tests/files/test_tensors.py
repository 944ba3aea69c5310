"""Checkpoints from strangers: what the official trainers save is read, and nothing in a file is run."""

import collections
import io
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import minipsync as mp
from minipsync.files import safe_pickle
from minipsync.files.tensors import read_checkpoint, read_metadata, read_tensors, tensors_in, write_tensors

NAMES = ["cat", "dog"]


def official(method, prefix, **more):
    """What Dassl's trainer saves, its scheduler's state with a scheduler inside."""
    optimizer = torch.optim.SGD(method.learner.parameters(), lr=0.002, momentum=0.9)
    for p in method.learner.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50.0)
    state = {prefix + name: value for name, value in method.learner.state_dict().items()}
    return {"state_dict": collections.OrderedDict(state), "epoch": 50, "optimizer": optimizer.state_dict(),
            "scheduler": {"successor": cosine, "base_lrs": [0.002]}, "val_result": np.float64(71.5),
            "seeds": np.arange(3), "best": np.int64(4), "device": torch.device("cpu"),
            "shape": torch.Size([2, 3]), "kind": torch.float16, "tags": {"a", "b"}} | more


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name, prefix", [("coop", ""), ("cocoop", "module."), ("maple", "prompt_learner."),
                                          ("ivlp", "module.prompt_learner.")])
def test_official_checkpoints_load(name, prefix, zipped, tiny_clip, tmp_path):
    theirs, ours = (mp.build(name, tiny_clip, NAMES, seed=seed) for seed in (3, 8))
    file = tmp_path / "model.pth.tar-50"
    torch.save(official(theirs, prefix), file, _use_new_zipfile_serialization=zipped)
    ours.load_official(file)
    for key, value in theirs.learner.state_dict().items():
        assert torch.equal(ours.learner.state_dict()[key], value)


def test_what_is_plain_is_read_and_the_rest_stands_still(tiny_clip, tmp_path):
    torch.save(official(mp.build("coop", tiny_clip, NAMES), ""), tmp_path / "a")
    found = read_checkpoint(tmp_path / "a")
    assert (found["epoch"], found["val_result"], found["best"]) == (50, 71.5, 4)
    assert found["tags"] == {"a", "b"} and found["kind"] is torch.float16 and found["shape"] == (2, 3)
    assert found["seeds"].read().tolist() == [0, 1, 2]
    cosine = found["scheduler"]["successor"]
    assert isinstance(cosine, safe_pickle.StandIn) and cosine.name.endswith("CosineAnnealingLR")
    assert cosine.state["T_max"] == 50


# ---- malice -----------------------------------------------------------------------------------------
class Call:
    """Pickled, it asks for a call of `function` with `args` when it is loaded."""

    def __init__(self, function, *args, then=()):
        self.function, self.args, self.then = function, args, then

    def __reduce__(self):
        return (self.function, self.args, *self.then)


def instruction(code):
    """A pickle written by hand, of protocol 2."""
    return b"\x80\x02" + code + b"."


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def traps(path):
    """Name -> bytes of a pickle that would write the file `path`, or import a module, if it were run."""
    import os
    import subprocess
    write = f"open({path!r}, 'w')"
    calls = {"open": (open, path, "w"), "eval": (eval, write), "exec": (exec, write),
             "system": (os.system, f"touch {path}"), "popen": (subprocess.Popen, ["touch", path]),
             "import": (__import__, "this")}
    found = {name: pickle.dumps({"state_dict": {"ctx": Call(*call)}}, 2) for name, call in calls.items()}
    state = Call(collections.OrderedDict, then=({"x": Call(open, path, "w")},))
    found["state of a dict"] = pickle.dumps(state, 2)
    found["items of a list"] = pickle.dumps(Call(list, then=(None, iter([Call(open, path, "w")]))), 2)
    found["key of a dict"] = pickle.dumps({Call(eval, write): 1}, 2)
    found["INST"] = b"(S'" + path.encode() + b"'\nS'w'\niio\nopen\n."
    found["OBJ"] = b"(cio\nopen\nS'" + path.encode() + b"'\nS'w'\no."
    found["NEWOBJ"] = instruction(b"cio\nopen\n" + text(path) + text("w") + b"\x86\x81")
    found["NEWOBJ_EX"] = b"\x80\x04cio\nopen\n" + text(path) + text("w") + b"\x86}\x92."
    found["STACK_GLOBAL"] = (b"\x80\x04" + text("io") + text("open") + b"\x93" + text(path) + text("w")
                             + b"\x86R.")
    found["change a constructor"] = instruction(b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("_make")
                                                + b"cio\nopen\nsb")
    found["tensor of a stranger's storage"] = instruction(
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"cio\nopen\n" + text(path) + b"\x85R" + b"K\x00))tR")
    found["tensor by another call"] = instruction(b"ctorch._tensor\n_rebuild_from_type_v2\n(cio\nopen\nN("
                                                  + text(path) + text("w") + b"tNtR")
    found["persistent"] = instruction(b"cio\nopen\n" + text(path) + text("w") + b"\x86RQ")
    found["numpy array of objects"] = pickle.dumps({"a": np.array([Call(open, path, "w")], dtype=object)}, 2)
    return found


KINDS = sorted(traps("x"))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_file_is_run(kind, form, tmp_path, tiny_clip):
    trap, file = tmp_path / "trap", tmp_path / "model.pth.tar-50"
    code = traps(str(trap))[kind]
    if form == "zip":
        torch.save({"state_dict": {"ctx": torch.zeros(4, 128)}}, file)
        with zipfile.ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, code if name.endswith("data.pkl") else content)
    elif form == "legacy":                             # magic number, protocol, system, the object, storages
        whole = io.BytesIO()
        torch.save({}, whole, _use_new_zipfile_serialization=False)
        stream = io.BytesIO(whole.getvalue())
        for _ in range(3):
            pickle.load(stream)
        file.write_bytes(whole.getvalue()[:stream.tell()] + code + pickle.dumps([], 2))
    else:
        file.write_bytes(code)
    before = set(sys.modules)
    with pytest.raises(ValueError, match="model.pth.tar-50|ctx"):
        mp.build("coop", tiny_clip, NAMES, n_ctx=4).load_official(file)
    assert not trap.exists() and "this" not in set(sys.modules) - before


def test_the_traps_are_traps(tmp_path):
    """Python's own unpickler runs them; without this the test above could not fail."""
    fired = 0
    for code in traps(str(tmp_path / "trap")).values():
        try:
            pickle.loads(code)
        except Exception:
            pass
        fired += (tmp_path / "trap").exists()
        (tmp_path / "trap").unlink(missing_ok=True)
    assert fired >= 10


def test_a_file_cannot_hide_behind_a_dicts_attributes(tmp_path):
    """A pickle can set attributes of an OrderedDict, "items" among them."""
    evil = Call(collections.OrderedDict, [("ctx", torch.ones(2))], then=({"items": "nothing"},))
    torch.save({"state_dict": evil}, tmp_path / "a")
    assert list(tensors_in(read_checkpoint(tmp_path / "a"), "a")) == ["ctx"]


# ---- files that are something else -------------------------------------------------------------------
@pytest.mark.parametrize("content, told", [
    (b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
    (b"<!DOCTYPE html><html>", "a web page"), (b"\n<html>", "a web page"), (b'{"a": 1}', "JSON"),
    (b"\x1f\x8b\x08rest", "compressed with gzip"), (b"PK\x03\x04rest", "damaged"), (b"\x80\x02}q", "damaged"),
    (b"some words", "damaged")])
def test_what_a_file_is_is_told(content, told, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights\.pt.*{told}"):
        read_checkpoint(path)
    with pytest.raises(ValueError, match=r"weights\.pt"):
        read_tensors(path, "prompts")


def test_folder_no_file_cut_off_and_no_tensors(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_tensors(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist; expected prompts"):
        read_metadata(tmp_path / "none", "prompts")
    whole = write_tensors(tmp_path / "a", {"x": torch.arange(10.)}, {"of": "me"})
    assert read_metadata(whole) == {"of": "me"} and read_tensors(whole)[0]["x"].sum() == 45
    whole.write_bytes(whole.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is not a whole"):
        read_tensors(whole)
    torch.save({"epoch": 3, "name": "x"}, tmp_path / "b")
    with pytest.raises(ValueError, match="holds a dict of 'epoch', 'name', without tensors by name"):
        tensors_in(read_checkpoint(tmp_path / "b"), tmp_path / "b")
    save_file({"x": torch.ones(1)}, tmp_path / "c.pt")                      # whatever it is called
    assert list(read_checkpoint(tmp_path / "c.pt")) == ["x"]
