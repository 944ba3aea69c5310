"""Finding a data set's folders and telling what is missing from them."""
from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")       # of pictures


def find_folder(root: Path, places: Sequence[str], name: str, home: str) -> Path:
    """The first of `places` below `root` that is a folder.

    Raises FileNotFoundError that tells where it should be and, in `home`, who gives it out.
    """
    for place in places:
        if (root / place).is_dir():
            return root / place
    others = f" (or {', '.join(repr(str(root / p)) for p in places[1:])})" if len(places) > 1 else ""
    raise FileNotFoundError(f"data set {name!r} is not there: expected the folder {str(root / places[0])!r}"
                            f"{others}. It comes from {home}.")


def list_files(folder: Path) -> set[str]:
    """Names of the files in `folder`; none if there is no such folder."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not entry.is_dir()}


def list_pictures(folder: Path) -> list[str]:
    """Names of the pictures in `folder`, sorted; hidden files are none."""
    return sorted(f for f in list_files(folder) if f.lower().endswith(SUFFIXES) and not f.startswith("."))


def some(items: Sequence, n: int = 3) -> str:
    """The first n items in words, and how many more there are."""
    rest = f" and {len(items) - n} more" if len(items) > n else ""
    return ", ".join(repr(i) if isinstance(i, str) else str(i) for i in items[:n]) + rest


def fingerprint(words: Sequence) -> str:
    """sha256[:16] of a list, one item a line (METHODS 3.2, 3.3)."""
    return hashlib.sha256("\n".join(map(str, words)).encode()).hexdigest()[:16]


def settle(name: str, where: Path, problems: list[str], partial: bool, mend: str):
    """Raise ValueError that tells every problem of a copy and the mend; with `partial` only warn."""
    if not problems:
        return
    told = f"data set {name!r} in {str(where)!r} is not the published one: {'; '.join(problems)}."
    if not partial:
        raise ValueError(f"{told} {mend} To work with an incomplete copy, say "
                         "benchmark('full', partial=True) or --partial; its numbers are not the papers'.")
    warnings.warn(f"{told} Going on, as `partial` says; numbers are not the papers'.", stacklevel=4)
