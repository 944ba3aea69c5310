"""Which pictures a data set holds: a fingerprint that follows what is in its files, not what they are called.

The fingerprint covers every picture's id, label, size in bytes and content. Files of at most `WHOLE` bytes
are read whole. Of larger ones three pieces of `PIECE` bytes are read, at the beginning, in the middle and at
the end, since in a compressed file a change usually shifts all that follows. Where pixels are stored
uncompressed a change stays where it is, so those files are read whole too. Of more than `MOST` pictures, only
those whose ids have the lowest hashes are read; of the others the size counts.

So a million pictures cost a million `stat` calls and at most `MOST` short reads. The next time they cost only
the `stat` calls, because a fingerprint is kept together with the inodes, sizes and times of all its files
(benchmarks/fingerprint.py measures both).
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..files.paths import expand, read_text, write_whole

WHOLE, PIECE, MOST = 2**16, 2**14, 100_000
UNCOMPRESSED = (".bmp", ".dib", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff")
FRESH = 2.0                                        # seconds: the coarsest clock of a file system (FAT)
THREADS = 16                                       # reading waits for a disk or a network, not the processor
CACHE = "fingerprints.json"                        # its name in a folder of records, prompts or statistics

_known: dict[str, str] = {}                        # hash of the files' stamps -> fingerprint


class Place(NamedTuple):
    """Where the bytes of a picture lie: a file, or `size` bytes of it from `start` on (a member of a tar)."""

    path: Path
    start: int = 0
    size: int | None = None


def of_dataset(data: Any, cache: str | Path | None = None) -> str:
    """Return 16 hex digits for the pictures of a data set of any kind; for `cache` see `of_files`.

    Without files they are the data set's own `fingerprint` (the mini benchmark), else those of its pixels."""
    if (places := getattr(data, "places", None)) is not None:
        return of_files([data.image_id(i) for i in range(len(data))], data.labels, places, cache)
    return getattr(data, "fingerprint", "") or of_pictures(data)


def of_files(ids: Sequence[str], labels: Iterable[int], places: Sequence[Place],
             cache: str | Path | None = None) -> str:
    """Return 16 hex digits for the pictures at `places`, whatever the folder above them is called.

    cache: a folder. A fingerprint that took over a second is kept there, and found again while no file has
           changed.
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


def of_pictures(data: Any, most: int = 1000) -> str:
    """Return 16 hex digits for the pixels of a data set that is not made of files.

    If it has more than `most` pictures, only those whose ids have the lowest hashes are looked at."""
    ids = [str(data.image_id(i) if hasattr(data, "image_id") else i) for i in range(len(data))]
    lines = [f"{name} {int(label)}" for name, label in zip(ids, data.labels, strict=True)]
    for i in _chosen(ids, most):
        try:
            lines[i] += f" {of_pixels(data[i][0])}"
        except Exception as error:                 # a user's own data set may raise anything
            lines[i] += f" {type(error).__name__}"
    return _hash(sorted(lines))


def of_picture(data: Any, i: int, image: Image.Image | None) -> str:
    """Return 16 hex digits for picture i: for its file if there is one, else for the pixels of `image`."""
    places = getattr(data, "places", None)
    if places is None:
        return of_pixels(image)
    return _content(places[i], os.stat(places[i].path).st_size if places[i].size is None else places[i].size)


def of_pixels(image: Any) -> str:
    """Return 16 hex digits for the pixels of a PIL image."""
    return _hash([f"{image.mode} {image.size}", np.asarray(image).tobytes()])


# ---- parts ------------------------------------------------------------------------------------------
def _stamps(places: Sequence[Place]) -> tuple[list[tuple], float]:
    """Return for each place what changes with its file, and the time of the latest change in seconds."""
    def stamp(path: Path) -> tuple:
        try:
            found = os.stat(path)
            return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        except OSError as error:
            return (type(error).__name__,)

    paths = list(dict.fromkeys(place.path for place in places))
    stamps = dict(zip(paths, _in_threads(stamp, paths), strict=True))
    newest = max((moment for found in stamps.values() for moment in found[2:]), default=0) / 1e9
    return [stamps[place.path] for place in places], newest


def _contents(ids: Sequence[str], places: Sequence[Place], stamps: Sequence[tuple]) -> list[str]:
    """Return each picture's size and, for those that are chosen, a hash of its bytes."""
    sizes = [place.size if place.size is not None else stamp[1] if len(stamp) > 1 else None
             for place, stamp in zip(places, stamps, strict=True)]
    contents = ["unreadable" if size is None else str(size) for size in sizes]
    chosen = _chosen(ids, MOST)
    for i, digest in zip(chosen, _in_threads(lambda i: _content(places[i], sizes[i]), chosen), strict=True):
        contents[i] += f" {digest}"
    return contents


def _in_threads(what: Callable, items: list) -> list:
    """Return [what(item), …], computed many at a time."""
    parts = [items[s:s + 256] for s in range(0, len(items), 256)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [x for found in pool.map(lambda part: [what(item) for item in part], parts) for x in found]


def _content(place: Place, size: int | None) -> str:
    """Return a hash of a picture's bytes, or of three pieces of them; "unreadable" if that fails."""
    if size is None:
        return "unreadable"
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
    except OSError:
        return "unreadable"


def _chosen(ids: Sequence[str], most: int) -> list[int]:
    """Return all indices, or those of the `most` ids with the lowest hashes: the same in every copy."""
    if len(ids) <= most:
        return list(range(len(ids)))
    return sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())[:most]


def _read(file: Path | None) -> dict[str, str]:
    """Return the fingerprints that a cache holds; none if it cannot be read."""
    try:
        return json.loads(read_text(file)) if file is not None else {}
    except (OSError, ValueError):
        return {}


def _keep(file: Path, key: str, found: str) -> None:
    """Add a fingerprint to the cache. If that fails, the next run computes it anew."""
    with contextlib.suppress(OSError):
        write_whole(file, json.dumps(_read(file) | {key: found}, indent=0).encode())


def _hash(parts: Iterable[str | bytes]) -> str:
    """Return 16 hex digits of the sha256 of the parts, each ended by a line feed."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update((part if isinstance(part, bytes) else part.encode(errors="surrogateescape")) + b"\n")
    return digest.hexdigest()[:16]
