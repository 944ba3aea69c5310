"""Data sets: those in the package, the papers' real ones, and your own pictures."""
from pathlib import Path

from ..settings import did_you_mean
from .dataset import Dataset
from .folders import folder
from .full import Full
from .mini import Mini
from .sampling import long_tailed
from .shards import webdataset

BENCHMARKS = {"mini": Mini, "full": Full}

__all__ = ["Dataset", "benchmark", "folder", "long_tailed", "webdataset"]


def benchmark(name: str = "mini", root: str | Path | None = None, partial: bool = False):
    """The benchmark `name`: `names`, `dataset(name, split="test")`, `settings(method, dataset)`, `clip()`.

    "mini" is all in the package; "full" are the papers' data sets below the folder `root` (`Full`, which
    explains `partial` too). Raises ValueError for an unknown name, with the list of good ones, and for a
    `root` or `partial` that "mini" has no use for.
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
