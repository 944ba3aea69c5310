"""Finding the folders of the papers' data sets, and saying what is missing from them."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path


def find_folder(root: Path, places: Sequence[str], name: str, home: str) -> Path:
    """Return the first of `places` below `root` that is a folder.

    Raises FileNotFoundError that says where the data set `name` should be and, from `home`, who gives it out.
    """
    for place in places:
        if (root / place).is_dir():
            return root / place
    others = f" (or {', '.join(repr(str(root / p)) for p in places[1:])})" if len(places) > 1 else ""
    raise FileNotFoundError(f"data set {name!r} is not there: expected the folder {str(root / places[0])!r}"
                            f"{others}. It comes from {home}.")


def settle(name: str, where: Path, problems: list[str], partial: bool, mend: str) -> None:
    """Raise ValueError with all the problems of a copy and how to mend them; if `partial`, only warn."""
    if not problems:
        return
    told = f"data set {name!r} in {str(where)!r} is not the published one: {'; '.join(problems)}."
    if not partial:
        raise ValueError(f"{told} {mend} To work with an incomplete copy, say "
                         "benchmark('full', partial=True) or --partial; its numbers are not the papers'.")
    warnings.warn(f"{told} Going on, as `partial` says; numbers are not the papers'.", stacklevel=4)


def some(items: Sequence, n: int = 3) -> str:
    """Return the first n items in words, and how many more there are: "'a', 'b', 'c' and 4 more"."""
    rest = f" and {len(items) - n} more" if len(items) > n else ""
    return ", ".join(repr(i) if isinstance(i, str) else str(i) for i in items[:n]) + rest


def fingerprint(words: Sequence) -> str:
    """Return 16 hex digits of the sha256 of a list, one item a line (METHODS 3.2, 3.3)."""
    return hashlib.sha256("\n".join(map(str, words)).encode()).hexdigest()[:16]
