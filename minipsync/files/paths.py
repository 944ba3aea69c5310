"""Paths with "~", text in UTF-8 whatever the machine's own encoding is, files that are written whole."""

import errno
import os
from contextlib import contextmanager
from pathlib import Path

ROOM = "make room there, or name another folder"
MEND = {errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EFBIG: ROOM,
        errno.EEXIST: "a file is where a folder is expected: move it away, or name another folder",
        errno.ENOTDIR: "a file is where a folder is expected: move it away, or name another folder",
        errno.EISDIR: "a folder is where a file is expected: move it away, or name another file"}


def expand(path: str | Path) -> Path:
    """The path with "~" replaced by the home folder. FileNotFoundError if no home folder is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:                             # no HOME, and a user who is in no list of users
        raise FileNotFoundError(f"the path {str(path)!r} begins with '~', and no home folder is known for it "
                                "(HOME is not set); write the path out") from None


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark. Raises ValueError for other encodings,
    OSError where there is none."""
    path = expand(path)
    try:
        return path.read_text(encoding="utf-8-sig")    # -sig: editors on Windows write it
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text ({error}); save it as UTF-8") from None


def write_whole(path: str | Path, content: bytes, what: str = "the file") -> Path:
    """Write `content` to `path`, with the folders above it, whole or not at all. Returns the path.

    A kill leaves what was there before. Raises OSError that names the path and says what to do."""
    path = expand(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
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
    """Raise the OSError of `write_whole` now if there is no such place, before hours of work."""
    path = expand(path)
    trial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with told_what_to_do(path, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()


@contextmanager
def told_what_to_do(path: Path, what: str, otherwise: str = ""):
    """Let an OSError of writing `path` say so, why, and what to do, with `otherwise` as another way."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        mend = MEND.get(error.errno, "name a folder that you may write to")
        text = f"{what} cannot be written ({why}); {mend}{otherwise}"
        raise OSError(error.errno, text, str(path)) from error
