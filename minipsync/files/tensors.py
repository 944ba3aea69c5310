"""Files of tensors: read without running what is in them, written whole or not at all."""

import tarfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from . import safe_pickle
from .paths import expand, write_whole

# how files begin that are sent or saved in place of tensors
IMPOSTORS = {b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself, with git lfs pull",
             b"<!doctype": "a web page: the address leads to a page about the file, not to the file",
             b"<html": "a web page: the address leads to a page about the file, not to the file",
             b"{": "text (JSON): give the file of tensors beside it",
             b"\x1f\x8b": "compressed with gzip: unpack it"}
USUAL = ("state_dict", "model_state_dict", "model", "state", "module")     # where a state dict lies in others


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write `tensors` and `metadata` as safetensors to `path`, as `write_whole` does. Returns the path."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    return write_whole(path, save(tensors, metadata))


def read_tensors(path: str | Path, expected: str = "a file of tensors") -> tuple[dict[str, Tensor], dict]:
    """(tensors by name, metadata) of a safetensors file.

    expected: what the caller needs, for errors. Raises FileNotFoundError without a file, ValueError for one
    that is damaged or something else. Nothing is unpickled.
    """
    path = check_file(path, expected)
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({first_line(error)}); expected {expected}"
                         ": fetch or save it again") from None


def read_metadata(path: str | Path, expected: str = "a file of tensors") -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors; errors as `read_tensors`."""
    path = check_file(path, expected)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({first_line(error)}); expected {expected}"
                         ": fetch or save it again") from None


def read_checkpoint(path: str | Path):
    """What a checkpoint holds, of `torch.save` in either format or safetensors: containers and tensors.

    Of a pickle only tensors, numbers, texts and plain containers are built; every other object is an inert
    stand-in (safe_pickle.py), so that the file can run nothing. Raises as `read_tensors`.
    """
    path = check_file(path, "a checkpoint, a dict with state_dict")
    if is_safetensors(path):
        return read_tensors(path, "a checkpoint")[0]
    if tarfile.is_tarfile(path):
        raise ValueError(f"{path} is a tar file, as PyTorch before 0.1.10 wrote them; load it there and save "
                         "it again")
    try:
        found = torch.load(path, map_location="cpu", weights_only=False, pickle_module=safe_pickle)
    except OSError:
        raise
    except Exception as error:                       # what torch raises differs with where a file is cut off
        raise ValueError(f"{path} is damaged, or no checkpoint ({first_line(error)}); expected a dict with "
                         "state_dict, as torch.save writes it; fetch or save it again") from None
    return found


def tensors_in(found, path: str | Path) -> dict[str, Tensor]:
    """The state dict in what `read_checkpoint` gave: tensors by name, numbers of numpy among them as tensors.

    It is the dict itself, or the one in it, under a usual name if there is one, that has most tensors.
    Raises ValueError, with what is there, where there is none."""
    best = _most_tensors(found)
    if not best:
        kind = found.name if isinstance(found, safe_pickle.StandIn) else type(found).__name__
        names = f" of {', '.join(map(repr, list(found)[:8]))}" if isinstance(found, dict) and found else ""
        raise ValueError(f"{path} holds a {kind}{names}, without tensors by name; expected a state dict, or "
                         "a dict with state_dict: torch.save(model.state_dict(), …) writes one")
    return best


def _most_tensors(found, depth=0) -> dict[str, Tensor]:
    if not isinstance(found, dict) or depth > 3:
        return {}
    items = list(dict.items(found))                  # not found.items(), which a file can set
    inner = {k: found for k, v in items if (found := _most_tensors(v, depth + 1))}
    if usual := [inner[name] for name in USUAL if name in inner]:
        return usual[0]
    own = {k: t for k, v in items if isinstance(k, str) and (t := _as_tensor(v)) is not None}
    if any(t.ndim > 0 for t in own.values()):
        return own
    return max(inner.values(), key=len, default={})


def _as_tensor(value) -> Tensor | None:
    if isinstance(value, safe_pickle.ArrayStandIn):
        value = value.read()
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.as_tensor(value.copy() if isinstance(value, np.ndarray) else value.item())
    return value if isinstance(value, Tensor) else None


def check_file(path: str | Path, expected: str) -> Path:
    """The path of a file that can be one of tensors; FileNotFoundError or ValueError that says what it is."""
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
    """Does the file begin as safetensors do: the length of its header, and the header?"""
    with open(path, "rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**27


def first_line(error: Exception) -> str:
    """What an error says, without the long rest; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
