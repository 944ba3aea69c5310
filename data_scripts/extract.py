"""Unpacking archives that strangers made: nothing may land outside the folder, fill the disk or be a link."""
from __future__ import annotations

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from tqdm import tqdm

CHUNK = 1 << 20                                    # bytes
BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
          RuntimeError, FileExistsError, IsADirectoryError, NotADirectoryError)    # damaged, locked, muddled
ZIP = (b"PK\3\4", b"PK\5\6")                      # how a zip file begins, and an empty one


class BadArchive(ValueError):
    """An archive is damaged, dangerous, or not the one that was expected. The message says what and where."""


def unpack(archive: Path, folder: Path, max_bytes: int, max_members: int) -> None:
    """Unpack a tar (plain or compressed) or zip file into `folder`, by its content, whatever it is called.

    Raises BadArchive for a member that would leave the folder, is a link, a device or anything else that is
    no file and no folder, for more than `max_bytes` or `max_members` unpacked, and for a damaged archive.
    What was unpacked until then stays: unpack into a folder that is removed afterwards.
    """
    written = 0
    try:
        for count, (name, kind, content) in enumerate(_members(archive)):
            if count >= max_members:
                raise BadArchive(f"{archive.name!r} has more than {max_members} members; the data set has "
                                 "far fewer, so this is another file, or one made to fill the disk")
            target = _inside(archive, folder, name)
            if kind not in ("file", "folder"):
                raise BadArchive(f"{archive.name!r} has {name!r}, {kind}; expected only files and folders: "
                                 "nothing of it is used")
            if target is None:
                continue
            if kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            written = _copy(archive, content, target, written, max_bytes)
    except BROKEN as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        raise BadArchive(f"{archive.name!r} cannot be unpacked ({what}); it is cut off, damaged, or no tar "
                         "or zip file") from error


def find(folder: Path, take: str) -> Path:
    """What the unpacked archive calls `take` ("images", "dtd/images"), at the smallest depth it occurs.

    Raises BadArchive if it is nowhere, or more than once at that depth.
    """
    level = [folder]
    while level:
        if hits := [place for place in (f.joinpath(*PurePosixPath(take).parts) for f in level)
                    if place.exists()]:
            if len(hits) > 1:
                raise BadArchive(f"the archive has {take!r} more than once: "
                                 f"{', '.join(str(h.relative_to(folder)) for h in hits[:3])}")
            return hits[0]
        level = [Path(entry.path) for f in level for entry in os.scandir(f) if entry.is_dir()]
    top = sorted(entry.name for entry in os.scandir(folder))
    raise BadArchive(f"the archive has no {take!r}; at the top it has {', '.join(top[:5]) or 'nothing'}")


def _members(archive: Path) -> Iterator[tuple[str, str, IO[bytes] | None]]:
    """Name, kind and content of every member, in the archive's order, read once from front to back."""
    with open(archive, "rb") as file:
        is_zip = file.read(4) in ZIP
    bar = dict(desc=f"unpacking {archive.name}", unit=" files", disable=None, leave=False)
    if is_zip:
        with zipfile.ZipFile(archive) as zipped:
            for info in tqdm(zipped.infolist(), **bar):
                kind = _zip_kind(info)
                if kind != "file":
                    yield info.filename, kind, None
                else:
                    with zipped.open(info) as content:
                        yield info.filename, kind, content
    else:
        with tarfile.open(archive, "r:*") as tar:
            for member in tqdm(tar, **bar):
                kind = _tar_kind(member)
                yield member.name, kind, tar.extractfile(member) if kind == "file" else None


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16                # unix file mode; 0 where another system made the archive
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device or other special file"
    return "folder" if info.is_dir() else "file"


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym():
        return f"a symbolic link to {member.linkname!r}"
    if member.islnk():
        return f"a hard link to {member.linkname!r}"
    if member.isdir():
        return "folder"
    return "file" if member.isreg() else "a device or other special file"


def _inside(archive: Path, folder: Path, name: str) -> Path | None:
    """Where a member goes; None for the folder itself and for what macOS adds to zip files."""
    path = PurePosixPath(name.replace("\\", "/"))  # which on Windows divides folders
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        raise BadArchive(f"{archive.name!r} has {name!r}, which leads out of the folder it is unpacked to: "
                         "nothing of it is used")
    return folder.joinpath(*path.parts) if path.parts and path.parts[0] != "__MACOSX" else None


def _copy(archive: Path, content: IO[bytes], target: Path, written: int, max_bytes: int) -> int:
    """Write one member, counting what really comes, not what the archive says; -> bytes written so far."""
    with open(target, "wb") as file:
        while block := content.read(CHUNK):
            written += len(block)
            if written > max_bytes:
                raise BadArchive(f"{archive.name!r} unpacks to more than {max_bytes / 1e9:.3g} GB; the data "
                                 "set is smaller, so this is another file, or one made to fill the disk")
            file.write(block)
    return written
