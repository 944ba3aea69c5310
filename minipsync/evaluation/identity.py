"""What a prediction depends on, and what else is worth knowing of a run.

A run is known by its description: method, settings, prompts, source, code, weights, classes and pictures; all
but the first two stand there by content, as hashes. Records are found by a hash of the description, so that
none is taken for another's. Facts change no prediction, or only its last digits: where the data are from,
where prompts were trained, versions of libraries.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.content import of_dataset
from ..data.dataset import Dataset
from ..source.domain import SourceDomain
from . import rows
from .source_code import code_fingerprint

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow")     # what pixels go through


def describe_run(method: Any, data: Dataset, ids: Sequence[str], labels: Sequence[int], seed: int,
                 cache: str | Path | None = None) -> dict[str, Any]:
    """Everything that decides a prediction, in words and hashes; records are keyed by it.

    cache: a folder where the fingerprint of a large data set is kept (see data/content.py)."""
    config, clip = getattr(method, "config", None), getattr(method, "clip", None)
    prompts = method.state_dict() if hasattr(method, "state_dict") else {}
    known = getattr(method, "source", None)
    source = known.tensors() if isinstance(known, SourceDomain) else {}
    through = [rows.predict_rows, method, data, getattr(data, "reader", None), clip]
    settings = dict(vars(config)) if hasattr(config, "__dict__") else config
    return {"method": rows.name_of(method), "dataset": str(data.name), "seed": int(seed), "config": settings,
            "prompts": _hash_tensors(prompts), "source": _hash_tensors(source),
            "extra": getattr(method, "fingerprint", None),
            "code": code_fingerprint(each for each in through if each is not None),
            "backbone": getattr(clip, "fingerprint", None), "precision": getattr(clip, "precision", None),
            "classes": f"{len(method.class_names)}, {_hash(method.class_names)}",
            "images": f"{len(ids)}, {_hash(sorted(f'{i} {x}' for i, x in zip(ids, labels, strict=True)))}",
            "content": of_dataset(data, cache)}


def describe_facts(method: Any, data: Dataset) -> dict[str, Any]:
    """What changes no prediction, but decides what a table may put the numbers beside."""
    from .. import __version__  # not there yet while the package is imported
    clip = getattr(method, "clip", None)
    return {"origin": getattr(data, "origin", ""),
            "model": f"{getattr(clip, 'name', '')}/{getattr(clip, 'weights', '')}",
            "trained_on": getattr(method, "trained_on", ""), "prompts": getattr(method, "prompts_from", ""),
            "version": __version__,
            **getattr(data, "accounts", {})}               # found and left_out: numbers of pictures


def versions() -> str:
    """The libraries that can move the last digits of a prediction, with their versions."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)


def _hash_tensors(tensors: dict[str, Tensor]) -> str:
    return _hash(part for name, tensor in sorted(tensors.items())
                 for part in (name, tensor.detach().float().cpu().numpy().tobytes()))


def _hash(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update((part if isinstance(part, bytes) else str(part).encode()) + b"\0")
    return digest.hexdigest()[:12]
