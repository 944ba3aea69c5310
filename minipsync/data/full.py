"""The full benchmark: the papers' real data sets, below one root folder laid out as CoOp's DATASETS.md says.

Names are those of the mini benchmark where both have a data set, else CoOp's.
"""
from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.paths import expand
from .dataset import Dataset
from .imagenet import FOLDERS, load_folders
from .own import own_or_half, split_half
from .splits import PARTS, SPLITS, load_split

BASE_TO_NEW = {"epochs": 5, "lr": 0.0035}          # MaPLe's training for its base-to-new tables, depth 9
ROOT = "MINIPSYNC_ROOT"                            # environment variable that stands for `root`
if TYPE_CHECKING:
    from ..clip.encoders import Clip


class Full:
    """The full benchmark: the papers' data sets and OpenAI's CLIP.

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
            close = difflib.get_close_matches(name, self.names, 1)
            raise ValueError(f"unknown data set {name!r}{f', did you mean {close[0]!r}?' if close else ''}; "
                             f"expected one of: {', '.join(self.names)}, 'folder:/path' or 'wds:/path'")
        splits = FOLDERS[name].places if name in FOLDERS else PARTS
        if split not in splits:
            raise ValueError(f"data set {name!r} has no split {split!r}, "
                             f"expected one of: {', '.join(splits)}")
        if self.root is None:
            raise ValueError("the full benchmark needs to know where the data sets lie: benchmark('full', "
                             f"root='/path'), --root /path, or the environment variable {ROOT}")
        load = load_folders if name in FOLDERS else load_split
        return load(name, split, self.root, self.partial)

    @staticmethod
    def settings(method: str, dataset: str | None = None) -> dict[str, Any]:
        """Return the settings of `method` on `dataset` that differ from its defaults, which are for ImageNet.

        The ten transfer sets are the papers' fine-grained ones: other rates (PromptAlign) or AugMix (TPT).
        "maple.fit" and so on name the settings of training. On a half of a data set MaPLe has those of its
        base-to-new tables, and depth 9; CoOp trains longer on other data sets than ImageNet (METHODS 5.0).
        """
        stem, half = split_half(dataset or "")
        half = half if stem in Full.names else ""
        if method.endswith(".fit"):
            training: dict[str, dict[str, Any]] = {"maple.fit": BASE_TO_NEW if half else {},
                                                   "coop.fit": {"epochs": 200} if stem in SPLITS else {}}
            return training.get(method, {})
        if method == "maple":
            return {"depth": 9} if half else {}
        if method == "zero_shot":                          # base to novel: the data set's own template
            return {"template": SPLITS[stem].template} if half and stem in SPLITS else {}
        from ..methods import REGISTRY  # here, so that pictures can be had without torch models
        fields = getattr(getattr(REGISTRY.get(method), "Config", None), "__dataclass_fields__", {})
        switch = next((s for s in ("fine_grained", "augmix") if s in fields), None)
        return {switch: True} if switch and stem in SPLITS else {}

    def clip(self, name: str = "ViT-B-16", **settings: Any) -> Clip:
        """Return OpenAI's CLIP `name`; settings go to `load_clip` (weights, precision, device)."""
        from ..clip.weights import load_clip  # here, so that pictures can be had without torch models
        return load_clip(name, **settings)
