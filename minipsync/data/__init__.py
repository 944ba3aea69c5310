"""Data sets: those in the package, the papers' real ones, and your own pictures."""

from .dataset import Dataset
from .folders import folder
from .sampling import long_tailed
from .shards import webdataset

__all__ = ["Dataset", "folder", "long_tailed", "webdataset"]
