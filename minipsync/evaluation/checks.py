"""What `evaluate` looks at before the first image: its arguments, the data set, and whether both fit."""

import numbers
from collections.abc import Sequence
from typing import Any


def check_arguments(method: Any, data: Any, limit: Any, batch_size: Any, sample_seed: Any
                    ) -> tuple[list[str], list[int]]:
    """(image ids, labels) of `data`. Raises TypeError or ValueError if anything cannot be worked with."""
    wanted = ("name", "class_names", "labels", "image_id", "__len__", "__getitem__")
    lacking = [attribute for attribute in wanted if not hasattr(data, attribute)]
    if lacking:
        raise TypeError(f"data={type(data).__name__} has no {', '.join(lacking)}; expected a minipsync "
                        'dataset, as benchmark("mini").dataset("sketch") or folder("path/to/images") give')
    if limit is not None:
        _check_whole("limit", limit, 1, "a whole number of images, 1 or more, or None for all")
    _check_whole("batch_size", batch_size, 1, "a whole number of images, 1 or more")
    _check_whole("sample_seed", sample_seed, None, "a whole number")
    if hasattr(method, "check_device"):
        method.check_device()
    _check_classes(list(method.class_names), list(data.class_names), data.name)
    if len(data) == 0:
        raise ValueError(f"{data.name} has no images; check its folder")
    ids, labels = [str(data.image_id(i)) for i in range(len(data))], [int(label) for label in data.labels]
    if len(set(ids)) < len(ids) or any("\n" in name or "\r" in name for name in ids):
        raise ValueError(f"the image ids of {data.name} must differ from each other and be one line each")
    if len(labels) != len(ids) or min(labels) < 0 or max(labels) >= len(data.class_names):
        raise ValueError(f"the {len(labels)} labels of {data.name}, {min(labels)} to {max(labels)}, do not "
                         f"fit its {len(ids)} images and {len(data.class_names)} classes")
    return ids, labels


def _check_whole(name: str, value: Any, low: int | None, expected: str) -> None:
    good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not good or (low is not None and value < low):
        raise ValueError(f"{name}={value!r}: expected {expected}")


def _check_classes(ours: Sequence[str], theirs: Sequence[str], name: str) -> None:
    if ours == theirs:
        return
    shorter = min(len(ours), len(theirs))
    at = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
    first, second = (repr(names[at]) if at < len(names) else "none" for names in (ours, theirs))
    raise ValueError(f"the method knows {len(ours)} classes and {name} has {len(theirs)}; from class {at} on "
                     f"they differ ({first} and {second}): build the method with data.class_names, or call "
                     "method.set_class_names(data.class_names)")
