"""Fixtures shared by all tests: the tiny CLIP of tests/golden and the numbers that go with it."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import tiny_clip as tiny  # noqa: E402
from rounding import GradientDescent  # noqa: E402

from minipsync.clip.encoders import Clip  # noqa: E402
from minipsync.clip.weights import load_clip  # noqa: E402

# who asks for a number of threads gets it, also more than there are cores, which torch alone would not give
ASKED = os.environ.get("OMP_NUM_THREADS")
torch.set_num_threads(int(ASKED or (1 if "PYTEST_XDIST_WORKER" in os.environ else 2)))
GIVEN = os.environ.get("MINIPSYNC_GOLDEN")  # one folder seedS to check instead of those in tests/golden
FOLDERS = [Path(GIVEN)] if GIVEN else sorted(GOLDEN.glob("seed*"))
if not FOLDERS:
    raise RuntimeError(f"{GOLDEN} has no folder seed…; without the official numbers nothing is checked")


# What golden/README.md asks for. It is also what float32 allows: the condition of the gradients in it is at
# most 40 (test_rounding.py), so ours and the official ones are off by 40 sqrt(768) U = 7e-5 each at most.
OFFICIAL = 1e-4


class Golden:
    """One folder seedS: its seed S, its tiny CLIP, and the arrays of its files as float32 tensors."""

    def __init__(self, folder: Path):
        self.folder, self.seed = folder, int(folder.name.removeprefix("seed"))
        self.clip: Clip = load_clip(state_dict=tiny.tiny_state_dict(self.seed), device="cpu")
        self.class_names = list(tiny.CLASSNAMES)
        self.images = tiny.draw(self.seed + 1, 8, 3, 32, 32)  # model input
        self.labels = torch.arange(8) % 12

    def __getitem__(self, file: str) -> dict:
        with np.load(self.folder / f"{file}.npz") as arrays:
            return {k: v if v.dtype.kind in "US" else torch.as_tensor(v) for k, v in arrays.items()}

    def draw(self, offset: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return tiny.draw(self.seed + offset, *shape, scale=scale)

    def fill(self, learner: torch.nn.Module, file: str) -> dict[str, torch.nn.Parameter]:
        """Give `learner` the parameters that `file` was made with; returns them under the file's names."""
        arrays, own = self[file], dict(learner.named_parameters())
        names = map(str, arrays["param_order"])
        parameters = {name: own[name.removeprefix("prompt_learner.")] for name in names}
        prompts = float(arrays.get("prompt_scale", arrays.get("ctx_scale", 0.0)))
        for i, (name, p) in enumerate(parameters.items()):
            is_prompt = name.endswith(("ctx", "VPT", "VPT_shallow")) or "compound_prompts_text" in name
            scale = prompts if is_prompt else float(arrays["other_scale"])
            p.data.copy_(tiny.draw(int(arrays["param_seed"]) + i, *p.shape, scale=scale))
        assert len(parameters) == len(own)
        return parameters


@pytest.fixture(scope="session", params=FOLDERS, ids=lambda folder: folder.name)
def golden(request) -> Golden:
    """Every folder of golden numbers in turn."""
    return Golden(request.param)


@pytest.fixture(scope="session")
def tiny_clip() -> Clip:
    """The tiny CLIP of seed 0 on the CPU: 32 px, D = 64, text width 128, vision width 192, 4 layers each."""
    return load_clip(state_dict=tiny.tiny_state_dict(0), device="cpu")


@pytest.fixture
def gradient_descent(monkeypatch):
    """Test-time methods take plain gradient steps, see `GradientDescent`."""
    monkeypatch.setattr(torch.optim, "AdamW", GradientDescent)
