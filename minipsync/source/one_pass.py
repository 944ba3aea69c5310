"""One pass over a large source set: shared by processes, saved as it goes, in memory that does not grow."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .. import distributed
from ..files.paths import check_writable, expand
from ..files.tensors import read_tensors, write_tensors

State = dict[str, Tensor]


def one_pass(dataset: Any, batch_size: int, add: Callable[[State, list], State], identity: dict, *,
             checkpoint: str | Path | None = None, save_every: float = 60.0, progress: bool = True,
             name: str = "source") -> list[State]:
    """Feed a data set batch by batch to `add(state, items) -> state`; the last states of all processes.

    items: a list of (PIL image, label). A state is a dict of tensors, {} at first. Process k of n takes every
    n-th batch (distributed.py).
    checkpoint: a path whose name each process extends ("….0of2"). What was done is saved there every
    `save_every` seconds and at the end, and is not done again. The files stay until `forget` removes them.
    Raises ValueError for a checkpoint of another run (its `identity` differs), and for a picture that cannot
    be read, with its id: a sum without it would be another source's.
    """
    rank, world = distributed.rank(), distributed.world()
    starts = range(rank * batch_size, len(dataset), world * batch_size)
    identity = identity | {"images": len(dataset), "batch_size": batch_size, "process": f"{rank} of {world}"}
    path = None if checkpoint is None else Path(f"{expand(checkpoint)}.{rank}of{world}")
    if path is not None:
        check_writable(path)
    state, done = _read(path, identity) if path is not None and path.exists() else ({}, 0)
    written = time.monotonic()
    bar = tqdm(total=len(starts), initial=done, desc=name, unit="batch", disable=not progress or rank > 0)
    for start in starts[done:]:
        state = add(state, [_item(dataset, i) for i in range(start, min(start + batch_size, len(dataset)))])
        done += 1
        bar.update()
        if path is not None and time.monotonic() - written >= save_every:
            _write(path, state, identity, done)
            written = time.monotonic()
    bar.close()
    if path is not None:
        _write(path, state, identity, done)
    return distributed.gather({k: v.cpu() for k, v in state.items()})


def forget(checkpoint: str | Path) -> None:
    """Remove what `one_pass` saved, of any number of processes."""
    path = expand(checkpoint)
    for file in path.parent.glob(f"{path.name}.*of*"):
        file.unlink()


def _item(dataset: Any, i: int) -> tuple[Image.Image, int]:
    try:
        return dataset[i]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {dataset.image_id(i)} of {dataset.name} cannot be read ({error}); the "
                         "source must be whole: get that picture again, or leave it out with "
                         "dataset.subset(…)") from error


def _write(path: Path, state: State, identity: dict, done: int) -> None:
    write_tensors(path, state, {"identity": json.dumps(identity), "done": str(done)})


def _read(path: Path, identity: dict) -> tuple[State, int]:
    try:
        state, metadata = read_tensors(path)
        theirs, done = json.loads(metadata["identity"]), int(metadata["done"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a checkpoint of a pass over the source ({error}); remove it or name "
                         "another file") from None
    if differing := [k for k in identity if theirs.get(k) != identity[k]]:
        raise ValueError(f"{path} belongs to another pass: " + "; ".join(
            f"{k} was {theirs.get(k)}, is {identity[k]}" for k in differing) + "; remove it or name another")
    return state, done
