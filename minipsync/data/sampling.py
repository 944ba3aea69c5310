"""Samples of a data set whose classes are not equally frequent."""
from __future__ import annotations

import hashlib

import numpy as np

from .dataset import Dataset

LONG_TAIL = "_longtail"           # at the end of the sample's name


def long_tailed(data: Dataset, limit: int, seed: int = 0) -> Dataset:
    """`limit` pictures of `data`, in which the class of rank r is 1/r times as frequent as that of rank 1.

    Which class has which rank, which of its pictures are taken and in what order they stand follows from
    `seed` and the pictures' ids alone (sha256): the same on every machine. The rarest classes may be left
    without a picture; class names and labels stay, and "_longtail" is added to the name, so that no table
    takes it for the balanced set. `bench.long_tailed(name, limit)` sees to it that there are enough pictures.

    Raises ValueError where a class has not as many pictures as its rank asks for.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}, expected 1 picture or more")

    def rank(*parts: object) -> bytes:
        return hashlib.sha256("\n".join(map(str, (seed, *parts))).encode()).digest()

    queues: dict[int, list[int]] = {}
    for i in sorted(range(len(data)), key=lambda i: rank(data.image_id(i))):
        queues.setdefault(int(data.labels[i]), []).append(i)
    ranked = sorted(queues, key=lambda label: rank("class", label))
    wanted = tail_counts(limit, len(ranked))
    for r, (label, n) in enumerate(zip(ranked, wanted, strict=True), 1):
        if n > (there := len(queues[label])):
            raise ValueError(f"data set {data.name!r} has {there} pictures of class "
                             f"{data.class_names[label]!r}, which is number {r} of a long tail of {limit} "
                             f"and needs {n}: ask for a smaller limit (about {limit * there // n}), or "
                             "give a data set with more pictures")
    rows = [i for label, n in zip(ranked, wanted, strict=True) for i in queues[label][:n]]
    sample = data.subset(sorted(rows, key=lambda i: rank("order", data.image_id(i))))
    sample.name += LONG_TAIL
    return sample


def balanced_name(name: str) -> str:
    """The name of the data set of which `name` is the long-tailed sample; others as they are."""
    return name.removesuffix(LONG_TAIL)


def tail_counts(limit: int, classes: int) -> list[int]:
    """How many of `limit` pictures each of `classes` ranks gets: in shares of 1/rank, rounded by largest
    remainders."""
    share = 1 / np.arange(1, classes + 1)
    exact = limit * share / share.sum()
    counts = np.floor(exact).astype(int)
    for r in np.argsort(counts - exact, kind="stable")[:limit - counts.sum()]:
        counts[r] += 1
    return counts.tolist()
