"""Which files are pictures, and what is left out of a data set.

A file is a picture by the end of its name alone (`SUFFIXES`). So a data set is the same on every machine, and
whether a picture can be read shows only when it is read. Files that must be pictures too, by an ending in
`NOT_READ` or by their first bytes, are left out with a warning. Hidden files and folders do not belong to a
data set.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif",
            ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k")
# pictures that Pillow reads on some machines only, or never
NOT_READ = (".avif", ".heic", ".heif", ".jxl", ".jxr", ".svg", ".psd", ".xcf", ".tga", ".pcx", ".ico", ".eps",
            ".exr", ".hdr", ".pfm", ".dcm", ".fits", ".qoi", ".dds", ".dng", ".cr2", ".cr3", ".nef", ".arw",
            ".orf", ".rw2", ".raf")
# folders that systems and archives leave behind, beside those that begin with a dot
SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")     # kinds of HEIF
# why something is left out
KIND, NAME, LOOSE = "kind not read", "name not of a picture", "outside the class folders"
SPECIAL, BACK, CLOSED = "no regular file", "folder seen before", "folder cannot be read"
MISSING, NO_SHARD, PACKED = "missing", "shard missing", "shard compressed"
BEYOND, EMPTY, DEAD = "shard beyond nshards.txt", "shard without samples", "link to nowhere"
# reasons that do not stand for a picture that was found
NOT_PICTURES = {BACK, CLOSED, MISSING, NO_SHARD, PACKED, BEYOND, EMPTY, DEAD}
# what the user can do about it
MENDS = {KIND: f"read are {', '.join(SUFFIXES)}: convert them", CLOSED: "see to its permissions",
         NAME: "a picture's name must end in .jpg, .png, …: rename those files",
         DEAD: "mend or remove the links", LOOSE: "move each picture to the folder of its class",
         PACKED: "unpack it to .tar", NO_SHARD: "copy it again",
         BEYOND: "delete it, or correct the number of shards"}


class LeftOut(NamedTuple):
    """Something that one might expect in a data set: its name, why it is left out, its class where known."""

    name: str
    reason: str
    label: int | None = None
    number: int = 1                                        # of pictures, where one name stands for several


def count_reasons(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """Return {reason: number of pictures left out for it}."""
    counts: Counter = Counter()
    for each in left_out:
        counts[each.reason] += each.number
    return dict(counts)


def tell_left_out(left_out: list[LeftOut], where: str, stacklevel: int = 3) -> None:
    """Warn of what was left out of a data set: for each reason the number, the first name and the mend."""
    if not left_out:
        return
    first = {each.reason: each.name for each in reversed(left_out)}
    said = [f"{n} ({reason}, first {first[reason]!r})" for reason, n in count_reasons(left_out).items()]
    mends = [text for reason, text in MENDS.items() if reason in first]
    warnings.warn("; ".join([f"left out of {where!r}: {', '.join(said)}", *mends]), stacklevel=stacklevel)


def is_hidden(name: str) -> bool:
    """Does a file or folder of this name belong to no data set?"""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def list_files(folder: Path) -> set[str]:
    """Return the names of the files in `folder`, links to nowhere included; none without such a folder."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not _is_folder(entry)}


def list_pictures(folder: Path, deep: bool = False) -> tuple[list[str], list[LeftOut]]:
    """Return the pictures in `folder`, as sorted paths below it, and what is left out.

    deep: look into its sub-folders too, also through links, but into each folder only once.
    A link to nowhere and a file that may not be read count as pictures, which `evaluate` then reports."""
    pictures, left_out, todo = [], [], [""]
    links: list[str] = []
    seen = {_identity(parent) for parent in folder.resolve().parents} if deep else set()
    while todo or links:
        inner = todo.pop() if todo else links.pop(0)       # real folders before links to them
        try:
            if (this := _identity(folder / inner)) in seen:
                left_out.append(LeftOut(inner, BACK))
                continue
            seen.add(this)
            entries = sorted(os.scandir(folder / inner), key=lambda entry: entry.name)
        except PermissionError:
            left_out.append(LeftOut(inner or ".", CLOSED))
            continue
        for entry in entries:
            path = f"{inner}/{entry.name}" if inner else entry.name
            kind = None if is_hidden(entry.name) else _kind(entry)
            if kind == "folder":
                if deep:
                    (links if entry.is_symlink() else todo).append(path)
            elif kind == "picture":
                pictures.append(path)
            elif kind is not None:
                left_out.append(LeftOut(path, kind))
    return sorted(pictures, key=lambda path: path.split("/")), left_out


def _identity(folder: Path) -> tuple[int, int]:
    """Return what is the same for a folder whatever path leads to it."""
    about = os.stat(folder)
    return about.st_dev, about.st_ino


def _kind(entry: os.DirEntry) -> str | None:
    """Return "folder", "picture", the reason why a picture is left out, or None for what is no picture."""
    if _is_folder(entry):
        return "folder"
    try:
        regular = entry.is_file()
    except OSError:                                        # a link to itself
        regular = False
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES:
        return "picture" if regular or entry.is_symlink() else SPECIAL
    if suffix in NOT_READ:
        return KIND
    if not suffix and not regular and entry.is_symlink():
        return DEAD                                        # it may have been a folder
    return NAME if regular and begins_as_picture(entry.path) else None


def _is_folder(entry: os.DirEntry) -> bool:
    """Is this a folder, or a link to one?"""
    try:
        return entry.is_dir()
    except OSError:                                        # a link to itself
        return False


def begins_as_picture(path: str | Path) -> bool:
    """Do the first bytes of a file say that it is a picture, whatever it is called?"""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return (head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*",
                             b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ", b"\xff\x0a"))
            or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")
            or (head[4:8] == b"ftyp" and head[8:12] in BRANDS)
            or (head[:2], head[6:10]) == (b"BM", bytes(4)))
