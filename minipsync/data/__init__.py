"""Data sets: those in the package, the papers' real ones, and your own pictures."""
from pathlib import Path

from ..settings import did_you_mean
from .dataset import Dataset
from .folders import folder
from .full import Full
from .mini import Mini
from .shards import webdataset

BENCHMARKS = {"mini": Mini, "full": Full}

__all__ = ["Dataset", "benchmark", "folder", "webdataset"]


def benchmark(name: str = "mini", root: str | Path | None = None, partial: bool = False) -> Full | Mini:
    """Return the benchmark `name`, an object with `names`, `dataset(…)`, `settings(…)` and `clip()`.

    "mini" is part of the package; "full" are the papers' data sets below the folder `root` (see `Full`, also
    for `partial`). Raises ValueError for an unknown name, and for a `root` or `partial` with "mini", which
    needs neither.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}, expected one of: {', '.join(BENCHMARKS)}."
                         f"{did_you_mean(name, BENCHMARKS)}")
    if name == "full":
        return Full(root, partial)
    if root or partial:
        raise ValueError(f"benchmark {name!r} is in the package and takes no root or partial; for real "
                         "data sets say benchmark('full', root=…)")
    return Mini()
