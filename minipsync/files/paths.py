"""Paths with "~", text in UTF-8 on every machine, and files that are written whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE_ROOM = "make room there, or name another folder"
MOVE_FILE = "a file is where a folder is expected: move it away, or name another folder"
# what the user can do about an operating system's error, by its number
MEND = {errno.ENOSPC: MAKE_ROOM, errno.EDQUOT: MAKE_ROOM, errno.EFBIG: MAKE_ROOM,
        errno.EEXIST: MOVE_FILE, errno.ENOTDIR: MOVE_FILE,
        errno.EISDIR: "a folder is where a file is expected: move it away, or name another file"}


def expand(path: str | Path) -> Path:
    """Return the path with a leading "~" replaced by the user's home folder.

    Raises FileNotFoundError if no home folder is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:                  # HOME is not set, and the system does not know the user either
        raise FileNotFoundError(f"the path {str(path)!r} begins with '~', and no home folder is known for it "
                                "(HOME is not set); write the path out") from None


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file, without the byte order mark that some editors put first.

    Raises ValueError if the file has another encoding, and OSError if it cannot be read."""
    path = expand(path)
    try:
        return path.read_text(encoding="utf-8-sig")       # "-sig" drops the byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text ({error}); save it as UTF-8") from None


def write_whole(path: str | Path, content: bytes, what: str = "the file") -> Path:
    """Write `content` to `path` in one step, creating the folders above it. Returns the path.

    If the program is stopped on the way, the file is as it was before. Raises OSError with the path and what
    to do about it; `what` is what the message calls the file."""
    path = expand(path)
    partial = _partial(path)
    with told_what_to_do(path, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return path


def check_writable(path: str | Path, what: str = "the file") -> None:
    """Raise the OSError of `write_whole` now if `path` cannot be written, rather than after hours of work."""
    path = expand(path)
    with told_what_to_do(path, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        _partial(path).touch()
        _partial(path).unlink()


@contextmanager
def told_what_to_do(path: Path, what: str, otherwise: str = "") -> Iterator[None]:
    """Add to an OSError raised inside the `with` block why `path` cannot be written and what to do.

    `what` is what the message calls the file, `otherwise` an alternative to add at the message's end."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        mend = MEND.get(error.errno or 0, "name a folder that you may write to")
        text = f"{what} cannot be written ({why}); {mend}{otherwise}"
        raise OSError(error.errno, text, str(path)) from error


def _partial(path: Path) -> Path:
    """Where this process keeps the file until it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")
