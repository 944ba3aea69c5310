"""Safetensors files that are written whole or not at all."""

import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write `tensors` and `metadata` to `path`, readable for whom new files are. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial, metadata)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(partial, 0o666 & ~umask)                # safetensors makes files that only their owner may read
    os.replace(partial, path)
    return path
