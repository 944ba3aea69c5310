"""Finding a data set's folders and telling what is missing from them."""
from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path


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
    """Names of the files in `folder`, links to nowhere among them; none if there is no such folder."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not is_folder(entry)}


def is_folder(entry: os.DirEntry) -> bool:
    """Is this a folder, or a link to one?"""
    try:
        return entry.is_dir()
    except OSError:                                        # a link to itself
        return False


def read_lines(file: Path) -> list[str]:
    """The lines of a text file in UTF-8, without blank ones at its end; only line feeds and carriage returns
    end a line. Raises ValueError for other encodings."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")      # -sig: editors on Windows write it
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 text ({error}); save it as UTF-8") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_numbered(file: Path) -> list[str]:
    """The lines of a file in which a line's number is its meaning, as a label, without spaces around.

    Raises ValueError for a blank line among them: without it all that follow would get another number."""
    lines = [line.strip() for line in read_lines(file)]
    if "" in lines:
        at = lines.index("") + 1
        raise ValueError(f"line {at} of {str(file)!r} is blank; the first line is for 0, the second for 1, "
                         "and so on, so that none between may be empty: write what belongs there, or take "
                         "the line out if it stands for nothing")
    return lines


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
