"""Which pictures of a training set are learned from: a few of each class."""

import random
from collections.abc import Iterable
from typing import Any

from .content import of_dataset


def few_shot(labels: Iterable[int], shots: int | None, seed: int) -> list[int]:
    """Choose at most `shots` items of each class by Dassl's rule (METHODS 3.4); all for None. -> positions.

    Classes come in the order in which they first appear, and `random.sample` draws from one seeded stream. A
    class with fewer items keeps them all.
    """
    by_label: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(int(label), []).append(index)
    if shots is None:
        return [i for items in by_label.values() for i in items]
    rng = random.Random(seed)
    chosen = [rng.sample(items, shots) if len(items) >= shots else items for items in by_label.values()]
    return [i for items in chosen for i in items]


def few_shot_images(train_set: Any, shots: int | None, seed: int) -> list[int]:
    """Apply `few_shot` to a data set. -> positions.

    Of a base half these are the images that the rule takes on the whole set: Dassl samples first and splits
    afterwards.
    """
    if (whole := getattr(train_set, "whole", None)) is None:
        return few_shot(train_set.labels, shots, seed)
    labels, rows = whole
    place = {row: i for i, row in enumerate(rows)}
    return [place[row] for row in few_shot(labels, shots, seed) if row in place]


def learned_pictures(train_set: Any, shots: int | None, seed: int) -> str:
    """16 hex digits for the content of the pictures that a training takes of `train_set`."""
    return of_dataset(train_set.subset(few_shot_images(train_set, shots, seed))
                      if hasattr(train_set, "subset") else train_set)
