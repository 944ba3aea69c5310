"""The methods by name: `build(name, clip, class_names, **settings)` makes any of them."""

from collections.abc import Sequence
from typing import Any

from ..clip.encoders import Clip
from ..settings import did_you_mean
from .base import REGISTRY, Method


def register(cls: type[Method]) -> type[Method]:
    """Class decorator: make a method known to `build` under `cls.name`."""
    REGISTRY[cls.name] = cls
    return cls


def build(name: str, clip: Clip, class_names: Sequence[str], **settings: Any) -> Method:
    """Make the method called `name` for these classes; `settings` are the fields of its `Config`.

    It is bare: prompts are loaded by `load`, or learned by `fit`. `bench.build` does all of that at once.
    Raises ValueError for an unknown method or setting, with the list of good ones.
    """
    if not isinstance(name, str) or name not in REGISTRY:
        raise ValueError(f"unknown method {name!r}; the methods are {', '.join(REGISTRY)}."
                         f"{did_you_mean(name, REGISTRY)}")
    return REGISTRY[name](clip, class_names, **settings)
