"""Safetensors files, written whole or not at all, and checkpoints, read without running what is in them."""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .paths import write_whole


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write `tensors` and `metadata` to `path`, as `write_whole` does. Returns the path."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    return write_whole(path, save(tensors, metadata))


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a pickled checkpoint. ValueError for a file that holds more than tensors (code is
    never run), is damaged, or holds something else; FileNotFoundError without a file."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:                       # what torch raises differs with where a file is cut off
        raise ValueError(f"{path} holds more than tensors, or is damaged ({first_line(error)}); expected a "
                         "checkpoint, a dict with state_dict; fetch or save it again") from None
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}; expected a dict of tensors by name, "
                         "or one with state_dict")
    return state


def first_line(error: Exception) -> str:
    """What an error says, without the long rest; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
