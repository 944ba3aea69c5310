"""Which pictures a data set holds: a fingerprint that follows what is in its files, not what they are called.

It stands for every picture's id, label, size in bytes and content. Pictures of at most `WHOLE` bytes are read
whole, of larger ones `PIECE` bytes at the beginning, in the middle and at the end (all of them where pixels
are stored uncompressed, since there a change stays where it is). Of more than `MOST` pictures, those whose
ids have the lowest hashes are read, and of the others the size counts. So a million pictures cost a million
`stat` calls and at most `MOST` short reads, and the second time only the `stat` calls: a fingerprint is kept
under the inodes, sizes and times of all its files (benchmarks/fingerprint.py measures both).
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files.paths import expand, write_whole

WHOLE, PIECE, MOST = 2**16, 2**14, 100_000
UNCOMPRESSED = (".bmp", ".dib", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff")
FRESH = 2.0                                        # seconds: the coarsest clock of a file system (FAT)
THREADS = 16                                       # what waits is a disk or a network, not the processor
CACHE = "fingerprints.json"                        # in a folder of records, prompts or statistics

_known: dict[str, str] = {}                        # stamp of the files -> fingerprint


class Place(NamedTuple):
    """Where the bytes of a picture lie: a file, or `size` bytes of it from `start` on (a member of a tar)."""

    path: Path
    start: int = 0
    size: int | None = None


def of_dataset(data, cache: str | Path | None = None) -> str:
    """16 hex digits for the pictures of a data set of any kind; cache: see `of_files`.

    What is made of no files has a fingerprint of its own (the mini benchmark), or its pixels count."""
    if (places := getattr(data, "places", None)) is not None:
        return of_files([data.image_id(i) for i in range(len(data))], data.labels, places, cache)
    return getattr(data, "fingerprint", "") or of_pictures(data)


def name_of_own(folder: Path, name: str | None, ids, labels, places) -> str:
    """The name that a user gave to data of one's own, else one that tells two folders called "test" apart:
    the folder's and six digits of its content."""
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ValueError(f"name={name!r}: expected a word or two that stand for the data set in tables")
    return name.strip() if name else f"{folder.resolve().name}-{of_files(ids, labels, places)[:6]}"


def of_files(ids: Sequence[str], labels: Iterable[int], places: Sequence[Place],
                         cache: str | Path | None = None) -> str:
    """16 hex digits for the pictures at `places`, whatever the folder above them is called.

    cache: a folder; what took over a second to find is kept there, and found again while no file has changed.
    A picture that cannot be read counts as unreadable; nothing is raised for it."""
    began = time.time()
    stamps, newest = _stamps(places)
    key = _hash(f"{i} {label} {stamp} {place.start} {place.size}" for i, label, stamp, place
                in zip(ids, labels, stamps, places, strict=True))
    file = None if cache is None else expand(cache) / CACHE
    found = _known.get(key) or _read(file).get(key)
    if found is None:
        found = _hash(sorted(f"{i} {label} {content}" for i, label, content
                             in zip(ids, labels, _contents(ids, places, stamps), strict=True)))
        # a file that was written just now can be written again within the same tick of its clock
        if newest < began - FRESH:
            if file is not None and time.time() - began > 1:
                _keep(file, key, found)
            _known[key] = found
    return found


def of_pictures(data, most: int = 1000) -> str:
    """16 hex digits for the pixels of a data set that is not made of files; of more than `most` pictures,
    those whose ids have the lowest hashes."""
    ids = [str(data.image_id(i) if hasattr(data, "image_id") else i) for i in range(len(data))]
    lines = [f"{name} {int(label)}" for name, label in zip(ids, data.labels, strict=True)]
    for i in _chosen(ids, most):
        try:
            lines[i] += f" {of_pixels(data[i][0])}"
        except Exception as error:                 # whatever a reader of somebody's own may raise
            lines[i] += f" {type(error).__name__}"
    return _hash(sorted(lines))


def of_picture(data, i: int, image) -> str:
    """16 hex digits for picture i of `data`: for its file, else for the pixels of `image`, which it gave."""
    places = getattr(data, "places", None)
    if places is None:
        return of_pixels(image)
    size = places[i].size
    return _content(places[i], os.stat(places[i].path).st_size if size is None else size)


def of_pixels(image) -> str:
    """16 hex digits for the pixels of a PIL image."""
    return _hash([f"{image.mode} {image.size}", np.asarray(image).tobytes()])


# ---- parts ------------------------------------------------------------------------------------------
def _stamps(places):
    """For each place what tells that its file is as it was, and the time of the newest change of any."""
    def stat(path):
        try:
            found = os.stat(path)
            return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        except OSError as error:
            return (type(error).__name__,)

    paths = list(dict.fromkeys(place.path for place in places))
    stamps = dict(zip(paths, _in_threads(stat, paths), strict=True))
    newest = max((max(stamp[2:]) for stamp in stamps.values() if len(stamp) > 1), default=0) / 1e9
    return [stamps[place.path] for place in places], newest


def _contents(ids, places, stamps):
    """Size and, if it is one of those that are read, a hash of the content of each picture."""
    sizes = [place.size if place.size is not None else stamp[1] if len(stamp) > 1 else "unreadable"
             for place, stamp in zip(places, stamps, strict=True)]
    contents = [str(size) for size in sizes]
    chosen = _chosen(ids, MOST)
    for i, digest in zip(chosen, _in_threads(lambda i: _content(places[i], sizes[i]), chosen), strict=True):
        contents[i] += f" {digest}"
    return contents


def _in_threads(what, items):
    """[what(item), …], many at a time."""
    parts = [items[s:s + 256] for s in range(0, len(items), 256)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [x for found in pool.map(lambda part: [what(item) for item in part], parts) for x in found]


def _content(place, size):
    try:
        with open(place.path, "rb", buffering=0) as file:
            if size <= WHOLE or place.path.suffix.lower() in UNCOMPRESSED:
                file.seek(place.start)
                return _hash([file.read(size)])
            pieces = []
            for at in (0, (size - PIECE) // 2, size - PIECE):
                file.seek(place.start + at)
                pieces.append(file.read(PIECE))
            return _hash(pieces)
    except (OSError, TypeError):                   # TypeError: the size is "unreadable"
        return "unreadable"


def _chosen(ids, most):
    """All positions, or those of the `most` ids with the lowest hashes: the same in every copy."""
    if len(ids) <= most:
        return list(range(len(ids)))
    return sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())[:most]


def _read(file):
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    except (OSError, ValueError):
        return {}


def _keep(file, key, found):
    """Add a line to the cache; where it cannot be written the next run computes anew."""
    with contextlib.suppress(OSError):
        write_whole(file, json.dumps(_read(file) | {key: found}, indent=0).encode())


def _hash(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update((part if isinstance(part, bytes) else part.encode(errors="surrogateescape")) + b"\n")
    return digest.hexdigest()[:16]
