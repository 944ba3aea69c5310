"""Data sets: those in the package, the papers' real ones, and your own pictures."""

from .dataset import Dataset
from .folders import folder
from .shards import webdataset

__all__ = ["Dataset", "folder", "webdataset"]
