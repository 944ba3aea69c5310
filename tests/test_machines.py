"""`make test-machines`: which files, under which settings, and what it says of a failure."""

import os
import sys

import machines
import pytest
import torch


def test_files_are_found():
    found = {file.stem for file in machines.files_that_compare()}
    assert {"test_promptsync", "test_views", "test_losses", "test_evaluation"} <= found
    assert not found & {"test_notebooks", "test_prepare", "test_exercises"}


def test_settings_replace_those_of_this_machine(monkeypatch):
    for name in ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"):
        monkeypatch.setenv(name, "mine")
    own, old = machines.environment("own:4"), machines.environment("all-avx2:2")
    assert own["OMP_NUM_THREADS"] == "4" and "ATEN_CPU_CAPABILITY" not in own
    assert "MKL_ENABLE_INSTRUCTIONS" not in own and own["PATH"] == os.environ["PATH"]
    assert (old["ATEN_CPU_CAPABILITY"], old["MKL_ENABLE_INSTRUCTIONS"]) == ("avx2", "AVX2")


@pytest.mark.skipif("OMP_NUM_THREADS" not in os.environ, reason="nobody asked for a number of threads")
def test_who_asks_for_threads_gets_them():
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_a_failure_is_told(tmp_path, monkeypatch, capsys):
    """Of a test that fails under torch's plain instructions alone."""
    file = tmp_path / "test_one.py"
    file.write_text("import os\n\ndef test_it():\n    assert os.environ['ATEN_CPU_CAPABILITY'] != 'default'\n"
                    "def test_other():\n    raise SystemExit\n")
    monkeypatch.setattr(machines, "files_that_compare", lambda: [file])
    monkeypatch.setattr(sys, "argv", ["machines", "--times", "1", "--settings", "default:1", "avx2:1",
                                      "-k", "it"])
    assert machines.main() == 1
    bad, good = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert bad[:3] == ["default:1", "1", "1"] and bad[4].endswith("test_one.py::test_it") and bad[5] == "(1)"
    assert good[:3] == ["avx2:1", "1", "0"] and good[4] == "none"
