"""What every data set looks like, whatever it is made of."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image

TEMPLATE = "a photo of a {}."


class Dataset:
    """A labelled list of pictures.

    name:        the data set's name.
    split:       "train" or "test".
    class_names: list of C names in label order.
    labels:      int array [n], each 0 … C - 1.
    ids:         n strings that name each picture for good.
    read:        index -> PIL image in RGB. Where training has `workers` that are spawned, it is pickled: a
                 function or class of a module, or a `functools.partial` of one.
    templates:   sentences with one {}; the papers use the first for zero-shot CLIP on this data set.
    fingerprint: stands for the files that the pictures are made of, where that is known.
    origin:      "mini", "full", "partial" (an incomplete copy of one of the full benchmark) or "own"; "" if
                 nobody said so. Decides what a number measured on it may be compared with.

    whole:       of one of the `halves`: the labels of the whole data set, and this half's places in it.

    Raises ValueError for labels that do not fit the ids or the class names.
    """

    whole: tuple[np.ndarray, list[int]] | None = None

    def __init__(self, name: str, class_names: Sequence[str], labels, ids: Sequence[str],
                 read: Callable[[int], Image.Image], templates: Sequence[str] = (TEMPLATE,),
                 split: str = "test", fingerprint: str = "", origin: str = ""):
        self.name, self.split, self.fingerprint, self.origin = name, split, fingerprint, origin
        self.class_names = list(class_names)
        self.templates = [templates] if isinstance(templates, str) else list(templates)
        self.labels, self._ids, self._read = np.asarray(labels), list(ids), read
        if self.labels.size and self.labels.dtype.kind not in "iu":
            raise ValueError(f"data set {name!r}: labels are {self.labels.dtype}, first {self.labels[0]!r}; "
                             "expected whole numbers, places in class_names")
        self.labels = self.labels.astype(np.int64)
        if len(self.labels) != len(self._ids):
            raise ValueError(f"data set {name!r}: {len(self.labels)} labels but {len(self._ids)} images, "
                             "expected one label for each image")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f"data set {name!r}: labels from {self.labels.min()} to {self.labels.max()}, "
                             f"expected 0 … {len(self.class_names) - 1} for "
                             f"{len(self.class_names)} class names")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        i = range(len(self))[i]                                    # negative indices; IndexError past the end
        return self._read(i), int(self.labels[i])

    def image_id(self, i: int) -> str:
        """The name of picture i, the same in every run and every subset."""
        return self._ids[i]

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The pictures `indices`, with the same classes and labels."""
        rows = [range(len(self))[int(i)] for i in indices]
        ids, read = [self._ids[i] for i in rows], partial(_read_row, self._read, rows)
        return Dataset(self.name, self.class_names, self.labels[rows], ids, read, self.templates, self.split,
                       self.fingerprint, self.origin)

    def of_classes(self, classes: Sequence[int]) -> Dataset:
        """Only the pictures of `classes`, relabelled 0 … in that order (base, novel: METHODS 3.5)."""
        new = {int(c): i for i, c in enumerate(classes)}
        rows = [i for i, label in enumerate(self.labels) if int(label) in new]
        part = self.subset(rows)
        part.class_names = [self.class_names[c] for c in new]
        part.labels = np.array([new[int(label)] for label in part.labels], dtype=np.int64)
        return part

    def halves(self) -> tuple[Dataset, Dataset]:
        """Base and novel: the first half of the classes (the larger where their number is odd) and the rest,
        each with labels from 0 (METHODS 3.5)."""
        n, border = len(self.class_names), (len(self.class_names) + 1) // 2
        base, novel = self.of_classes(range(border)), self.of_classes(range(border, n))
        base.whole = self.labels, np.flatnonzero(self.labels < border).tolist()
        novel.whole = self.labels, np.flatnonzero(self.labels >= border).tolist()
        return base, novel

    def __repr__(self) -> str:
        return (f"Dataset({self.name!r}, split={self.split!r}, {len(self)} images, "
                f"{len(self.class_names)} classes)")


def _read_row(read: Callable[[int], Image.Image], rows: list[int], i: int) -> Image.Image:
    """Picture i of a subset, which is picture rows[i] of the whole."""
    return read(rows[i])
