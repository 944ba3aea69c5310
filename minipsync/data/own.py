"""What a benchmark's `dataset` takes beside its own names: your own data, and halves of a data set."""

import re
from typing import Any

from ..files.paths import expand
from .dataset import Dataset
from .folders import folder
from .shards import webdataset

OWN = {"folder:": folder, "wds:": webdataset}      # "folder:/path", "wds:/path", "folder:a name=/path"
HALVES = ("base", "novel")


def own_data(name: str, split: str) -> Dataset | None:
    """Return the data set of "folder:/path" or "wds:/path"; None for any other name.

    "folder:my pictures=/path" gives it a name for tables. The data set is what the path holds, and `split` is
    only what it is called. Raises ValueError if there is no path."""
    for prefix, load in OWN.items():
        if name.startswith(prefix):
            path, given = name.removeprefix(prefix).strip(), None
            named = re.fullmatch(r"([\w .-]+)=(.+)", path)
            if named and not expand(path).exists():
                given, path = named.groups()
            if not path:
                raise ValueError(f"{name!r} names no folder; expected {prefix}/path/to/the/pictures, or "
                                 f"{prefix}a name=/path/to/the/pictures")
            data = load(path, name=given)
            data.split = split
            return data
    return None


def own_or_half(bench: Any, name: str, split: str) -> Dataset | None:
    """Return your own data or a half of a data set of the benchmark; None for any other name."""
    stem, half = split_half(name)
    if half and stem in bench.names:
        return half_of(bench.dataset(stem, split), half)
    return own_data(name, split)


def split_half(name: str) -> tuple[str, str]:
    """Return ("animals", "base") for "animals_base", and ("animals", "") for a whole data set."""
    stem, _, half = name.rpartition("_")
    return (stem, half) if half in HALVES else (name, "")


def half_of(data: Dataset, half: str) -> Dataset:
    """Return the base or novel classes of a data set, with "_base" or "_novel" at the end of its name."""
    part = data.halves()[HALVES.index(half)]
    part.name = f"{data.name}_{half}"
    return part
