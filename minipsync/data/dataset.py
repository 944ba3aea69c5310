"""What every data set looks like, whatever it is made of."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .content import Place, of_files
from .listing import NOT_PICTURES, LeftOut, count_reasons
from .pictures import ReadPlaces, ReadSome

TEMPLATE = "a photo of a {}."


class Dataset:
    """A labelled list of n pictures of C classes; `dataset[i]` is (PIL image in RGB, label).

    name:        the data set's name in tables and records.
    class_names: list of C names in the order of the labels.
    labels:      whole numbers [n], each 0 … C - 1.
    ids:         n strings that name the pictures for good, the same in every run and every subset.
    read:        function from an index to a PIL image in RGB; None to read what lies at `places`.
    templates:   sentences with {} for the class name; the papers use the first for zero-shot CLIP.
    split:       "train", "val" or "test".
    fingerprint: 16 hex digits that follow the pictures' content. Of pictures in files they are computed, from
                 the files as they are now (content.py); of others they are what is given here.
    origin:      "mini", "full", "partial" (an incomplete copy of a data set of the full benchmark), "own", or
                 "" if nobody said so. It decides what a number may be compared with.
    places:      where the bytes of each picture lie, if the pictures are in files.
    left_out:    what one might expect in the set and what is not, with the reason.
    whole:       only for one of the `halves`: (labels of the whole data set, places of this half's pictures
                 in it).

    Raises ValueError for labels that do not fit the ids or the class names, and without `read` for places
    that do not fit the ids.
    """

    whole: tuple[np.ndarray, list[int]] | None = None

    def __init__(self, name: str, class_names: Sequence[str], labels: ArrayLike, ids: Sequence[str],
                 read: Callable[[int], Image.Image] | None, templates: str | Sequence[str] = (TEMPLATE,),
                 split: str = "test", fingerprint: str = "", origin: str = "",
                 places: Sequence[Place] | None = None, left_out: Sequence[LeftOut] = ()):
        self.name, self.split, self.origin, self._given = name, split, origin, fingerprint
        self.places = None if places is None else list(places)
        self.class_names, self.left_out = list(class_names), list(left_out)
        self.templates = [templates] if isinstance(templates, str) else list(templates)
        self.labels, self._ids = np.asarray(labels), list(ids)
        if read is None and len(self.places or ()) != len(self._ids):
            raise ValueError(f"data set {name!r}: {len(self.places or ())} places of pictures but "
                             f"{len(self._ids)} images, expected one for each, or a function `read`")
        self.reader = ReadPlaces(self.places or ()) if read is None else read
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

    @property
    def fingerprint(self) -> str:
        """16 hex digits that follow the pictures' content, or "" if nothing is known of it."""
        return self._given if self.places is None else of_files(self._ids, self.labels, self.places)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        i = range(len(self))[i]                                    # negative indices; IndexError past the end
        return self.reader(i), int(self.labels[i])

    def image_id(self, i: int) -> str:
        """Return the name of picture i, the same in every run and every subset."""
        return self._ids[i]

    def subset(self, indices: Sequence[int]) -> Dataset:
        """Return the pictures at `indices` as a data set with the same classes and labels."""
        rows = [range(len(self))[int(i)] for i in indices]
        ids = [self._ids[i] for i in rows]
        places = None if self.places is None else [self.places[i] for i in rows]
        read = None if isinstance(self.reader, ReadPlaces) else ReadSome(self.reader, rows)
        return Dataset(self.name, self.class_names, self.labels[rows], ids, read, self.templates, self.split,
                       self._given, self.origin, places, self.left_out)

    def of_classes(self, classes: Sequence[int]) -> Dataset:
        """Return only the pictures of `classes`, which get the labels 0, 1, … in that order (METHODS 3.5)."""
        new = {int(c): i for i, c in enumerate(classes)}
        part = self.subset([i for i, label in enumerate(self.labels) if int(label) in new])
        part.class_names = [self.class_names[c] for c in new]
        part.labels = np.array([new[int(label)] for label in part.labels], dtype=np.int64)
        part.left_out = [each if each.label is None else each._replace(label=new[each.label])
                         for each in self.left_out if each.label is None or each.label in new]
        return part

    def halves(self) -> tuple[Dataset, Dataset]:
        """Return the base classes and the novel ones, each with labels from 0 (METHODS 3.5).

        Base is the first half of the classes, and has one more where their number is odd."""
        n, border = len(self.class_names), (len(self.class_names) + 1) // 2
        base, novel = self.of_classes(range(border)), self.of_classes(range(border, n))
        base.whole = self.labels, np.flatnonzero(self.labels < border).tolist()
        novel.whole = self.labels, np.flatnonzero(self.labels >= border).tolist()
        return base, novel

    @property
    def accounts(self) -> dict:
        """{"found": number of pictures, used or not, "left_out": {reason: number}}."""
        unused = sum(each.number for each in self.left_out if each.reason not in NOT_PICTURES)
        return {"found": len(self) + unused, "left_out": count_reasons(self.left_out)}

    def __repr__(self) -> str:
        left = "".join(f", {n} left out: {reason}" for reason, n in count_reasons(self.left_out).items())
        return (f"Dataset({self.name!r}, split={self.split!r}, {len(self)} images, "
                f"{len(self.class_names)} classes{left})")
