"""The full benchmark: the papers' real data sets, below one root folder laid out as CoOp's DATASETS.md says.

Names are those of the mini benchmark where both have a data set, else CoOp's.
"""
from __future__ import annotations

import os
from pathlib import Path

from ..files.paths import expand
from ..settings import did_you_mean
from .dataset import Dataset
from .imagenet import FOLDERS, load_folders
from .own import own_or_half
from .splits import PARTS, SPLITS, load_split

ROOT = "MINIPSYNC_ROOT"                            # environment variable that stands for `root`


class Full:
    """The full benchmark's data sets.

    root:    the folder that holds all the data sets; by default what the environment variable MINIPSYNC_ROOT
             says.
    partial: only warn where classes or pictures are missing. By default that is an error, since numbers of an
             incomplete copy are not the papers'.

    Raises FileNotFoundError if there is no folder `root`.
    """

    name = "full"
    names = (*FOLDERS, *SPLITS)

    def __init__(self, root: str | Path | None = None, partial: bool = False):
        root = root or os.environ.get(ROOT)
        self.root, self.partial = expand(root) if root else None, partial
        if self.root and not self.root.is_dir():
            raise FileNotFoundError(f"there is no folder {str(self.root)!r}; expected the one that holds "
                                    "'imagenet', 'caltech-101' and so on")

    def dataset(self, name: str, split: str = "test") -> Dataset:
        """Return a data set.

        name:  one of `names`, a half of one ("dtd_base", "dtd_novel"), or your own pictures: "folder:/path"
               (`folder`) or "wds:/path" (`webdataset`).
        split: "test", "train" (imagenet and the transfer sets) or "val" (the transfer sets). ImageNet's test
               split is its validation set, as in all the papers. Your own pictures are all that the path
               holds, whatever the split is called.

        Raises ValueError for an unknown name or split and for a copy that is not as published, and
        FileNotFoundError, with where it should be, for one that is not there.
        """
        if (data := own_or_half(self, name, split)) is not None:
            return data
        if name not in self.names:
            raise ValueError(f"unknown data set {name!r}; expected one of: {', '.join(self.names)}, "
                             f"'folder:/path' or 'wds:/path'.{did_you_mean(name, self.names)}")
        splits = FOLDERS[name].places if name in FOLDERS else PARTS
        if split not in splits:
            raise ValueError(f"data set {name!r} has no split {split!r}, "
                             f"expected one of: {', '.join(splits)}")
        if self.root is None:
            raise ValueError("the full benchmark needs to know where the data sets lie: benchmark('full', "
                             f"root='/path'), --root /path, or the environment variable {ROOT}")
        load = load_folders if name in FOLDERS else load_split
        return load(name, split, self.root, self.partial)
