"""Paths as people write them: with "~", and text that is UTF-8 whatever the machine's own encoding is."""

from pathlib import Path


def as_path(path: str | Path) -> Path:
    """The path with "~" as the home folder; unchanged where there is no home folder."""
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:                               # no HOME, or no such user
        return path


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark. Raises ValueError for other encodings,
    OSError where there is none."""
    path = as_path(path)
    try:
        return path.read_text(encoding="utf-8-sig")    # -sig: editors on Windows write it
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text ({error}); save it as UTF-8") from None
