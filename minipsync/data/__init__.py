"""Data sets: `benchmark("mini")` for those in the package, `folder(path)` for your own pictures."""
from .dataset import Dataset
from .folders import folder
from .mini import Mini

BENCHMARKS = {"mini": Mini}

__all__ = ["Dataset", "benchmark", "folder"]


def benchmark(name: str = "mini"):
    """The benchmark `name`: an object with `names`, `dataset(name, split="test")` and `clip()`.

    Raises ValueError for an unknown name, with the list of good ones.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}, expected one of: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]()
