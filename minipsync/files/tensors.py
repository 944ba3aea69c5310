"""Files of tensors: reading them runs nothing that is in them, writing them leaves no half of a file."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from . import safe_pickle
from .paths import expand, write_whole

WEB_PAGE = "a web page: the address leads to a page about the file, not to the file"
# files that people have in place of the tensors: how they begin, and what the error says
IMPOSTORS = {b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself, with git lfs pull",
             b"<!doctype": WEB_PAGE,
             b"<html": WEB_PAGE,
             b"{": "text (JSON): give the file of tensors beside it",
             b"\x1f\x8b": "compressed with gzip: unpack it"}
# the keys under which checkpoints usually keep their state dict, the most usual first
USUAL = ("state_dict", "model_state_dict", "model", "state", "module")


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write a safetensors file, whole or not at all (see `write_whole`). Returns its path."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    return write_whole(path, save(tensors, metadata))


def read_tensors(path: str | Path, expected: str = "a file of tensors") -> tuple[dict[str, Tensor], dict]:
    """Return (tensors by name, metadata) of a safetensors file. Nothing is unpickled.

    expected: what the caller needs, for the error messages.
    Raises FileNotFoundError without a file, ValueError if it is damaged or something else."""
    with _open(path, expected) as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}


def read_metadata(path: str | Path, expected: str = "a file of tensors") -> dict[str, str]:
    """Return the metadata of a safetensors file without reading its tensors. Raises as `read_tensors`."""
    with _open(path, expected) as file:
        return file.metadata() or {}


@contextmanager
def _open(path: str | Path, expected: str) -> Iterator[Any]:
    """Open a safetensors file; errors while it is open say what is wrong with it."""
    path = check_file(path, expected)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({first_line(error)}); expected {expected}"
                         ": fetch or save it again") from None


def read_checkpoint(path: str | Path) -> Any:
    """Return what a checkpoint holds: a file of `torch.save`, in either of its formats, or safetensors.

    Of a pickle only tensors, numbers, strings and plain containers are built. Every other object is replaced
    by an inert stand-in (safe_pickle.py), so the file can run nothing. Raises as `read_tensors`."""
    path = check_file(path, "a checkpoint, a dict with state_dict")
    if is_safetensors(path):
        return read_tensors(path, "a checkpoint")[0]
    if tarfile.is_tarfile(path):
        raise ValueError(f"{path} is a tar file, as PyTorch before 0.1.10 wrote them; load it there and save "
                         "it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=safe_pickle)
    except OSError:
        raise
    except Exception as error:                       # what torch raises differs with where a file is cut off
        raise ValueError(f"{path} is damaged, or no checkpoint ({first_line(error)}); expected a dict with "
                         "state_dict, as torch.save writes it; fetch or save it again") from None


def tensors_in(found: Any, path: str | Path) -> dict[str, Tensor]:
    """Return the state dict, tensors by name, that lies in what `read_checkpoint` returned.

    It is `found` itself or a dict inside it: one under a usual name, else the one with the most tensors.
    numpy's arrays and numbers become tensors. Raises ValueError, with what is there, if there is none."""
    best = _state_dict(found)
    if not best:
        kind = found.name if isinstance(found, safe_pickle.StandIn) else type(found).__name__
        names = f" of {', '.join(map(repr, list(found)[:8]))}" if isinstance(found, dict) and found else ""
        raise ValueError(f"{path} holds a {kind}{names}, without tensors by name; expected a state dict, or "
                         "a dict with state_dict: torch.save(model.state_dict(), …) writes one")
    return best


def _state_dict(found: Any, depth: int = 0) -> dict[str, Tensor]:
    """Return the state dict in `found`, or {} if it holds none within three levels of dicts."""
    if not isinstance(found, dict) or depth > 3:
        return {}
    items = list(dict.items(found))                  # not found.items(), which the file can replace
    inner = {k: state for k, v in items if (state := _state_dict(v, depth + 1))}
    if usual := [inner[name] for name in USUAL if name in inner]:
        return usual[0]
    own = {k: t for k, v in items if isinstance(k, str) and (t := _as_tensor(v)) is not None}
    if any(t.ndim > 0 for t in own.values()):
        return own
    return max(inner.values(), key=len, default={})


def _as_tensor(value: Any) -> Tensor | None:
    """Return a tensor, an array or a number of numpy as a tensor, and None for anything else."""
    if isinstance(value, safe_pickle.ArrayStandIn):
        value = value.read()
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.as_tensor(value.copy() if isinstance(value, np.ndarray) else value.item())
    return value if isinstance(value, Tensor) else None


def check_file(path: str | Path, expected: str) -> Path:
    """Return the path if a file is there that can hold tensors.

    Raises FileNotFoundError or ValueError that says what is there instead."""
    path = expand(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected {expected}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected {expected}: name the file in it")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path} is empty; expected {expected}: fetch or save it again")
    for start, what in IMPOSTORS.items():
        if head.lstrip().lower().startswith(start):
            raise ValueError(f"{path} is {what}; expected {expected}")
    return path


def is_safetensors(path: Path) -> bool:
    """Does the file begin as safetensors do: eight bytes for the header's length, then the header "{…"?"""
    with open(path, "rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**27


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
