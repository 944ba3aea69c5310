"""Style and types are as pyproject.toml asks for, and what looks at them before a commit needs no network."""
import subprocess
import sys

import pytest
from pre_commit.clientlib import load_config
from versions import ROOT


def said_by(*module):
    """"" if `python -m module` finds nothing to complain of, else what it says."""
    done = subprocess.run([sys.executable, "-m", *module], cwd=ROOT, capture_output=True, text=True,
                          encoding="utf-8", timeout=600)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_style():
    assert not said_by("ruff", "check")


@pytest.mark.slow
def test_types():
    assert not said_by("mypy")


def test_hooks_before_a_commit_are_local():
    repositories = load_config(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert {repository["repo"] for repository in repositories} == {"local"}
    assert hooks and {hook["language"] for hook in hooks} <= {"system", "unsupported"}     # two names of one
    assert all(hook["entry"].startswith("python -m ") for hook in hooks)
