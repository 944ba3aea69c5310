"""Fetching one file from one mirror: resumed where it stopped, tried again when the line breaks, checked.

pooch and huggingface_hub cannot do all of this (pooch does not resume, neither goes on to another host), so
requests carries the bytes, and pooch compares checksums.
"""
from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from .sources import HF, Mirror

CHUNK = 1 << 20                                    # bytes
TIMEOUT = 15, 60                                   # seconds to connect, and without a byte
RETRIES = 4                                        # tries in a row that bring nothing new
PAUSE, LONGEST = 1.0, 60.0                         # seconds before the first of them, doubled up to
LINKED = "X-Linked-Etag"                           # in it the hub tells a file's sha256 when it redirects


class Unavailable(RuntimeError):
    """This mirror does not have the file that is wanted; the message says why. Another may have it."""


class Interrupted(RuntimeError):
    """The file came in part; what came is kept."""


def local(mirror: Mirror, folder: Path) -> Path:
    """Where the file of a mirror lies in `folder` when it is whole.

    Each mirror has its own place, since files of one name differ between hosts. The name is the fragment of
    the address, else its end.
    """
    parts = urlsplit(mirror.url)
    name = parts.fragment or parts.path.rpartition("/")[2]
    return folder / f"{hashlib.sha256(mirror.url.encode()).hexdigest()[:8]}-{name}"


def download(mirror: Mirror, folder: Path) -> Path:
    """The file of a mirror, in `folder`; only whole and checked files have their final name there.

    An earlier part (".part") is continued if the server can and still has the same file. Raises Unavailable
    if the mirror is dead, has not got it, has another one, or breaks off more than RETRIES times in a row
    without a new byte; OSError for a full disk.
    """
    file = local(mirror, folder)
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    part, tries, may_restart = file.with_name(f"{file.name}.part"), 0, True
    most, in_parts = _size(part), _size(part) > 0
    while True:
        try:
            told = _receive(mirror, part)
        except Interrupted as error:
            tries = 0 if _size(part) > most else tries + 1
            most, in_parts = max(most, _size(part)), True
            if tries > RETRIES:
                raise Unavailable(f"{error}, {tries} times in a row") from error
            time.sleep(min(PAUSE * 2 ** max(0, tries - 1), LONGEST))
            continue
        check = mirror.check or told
        if _matches(part, check):
            os.replace(part, file)
            _stamp(part).unlink(missing_ok=True)
            return file
        part.unlink()
        if not (in_parts and may_restart):         # else parts of two versions may have been joined
            raise Unavailable(f"its checksum is not {check}")
        may_restart = False


def need_space(folder: Path, wanted: float, what: str) -> None:
    """Raise OSError unless `wanted` bytes are free where `folder` is."""
    if (free := shutil.disk_usage(folder).free) < wanted:
        raise OSError(f"{what} needs {wanted / 1e9:.1f} GB of free disk in {str(folder)!r}, for the files "
                      f"and what is unpacked from them, but {free / 1e9:.1f} GB are free; make room, or "
                      "choose another --root")


def _receive(mirror: Mirror, part: Path) -> str | None:
    """Write the rest of the file to `part`; -> the checksum that the server told, if it told one.

    Raises Unavailable for an answer that trying again will not change, Interrupted for all others.
    """
    import requests  # here: they come with the "data" extra, which only downloads need
    from urllib3.exceptions import HTTPError
    start = _size(part)
    if mirror.size and start == mirror.size:       # killed before it was checked
        return None
    headers = {"Accept-Encoding": "identity", "User-Agent": "minipsync"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if _stamp(part).is_file():
            headers["If-Range"] = _stamp(part).read_text(encoding="utf-8")
    try:
        with requests.get(_address(mirror.url), headers=headers, stream=True, timeout=TIMEOUT) as answer:
            told = _told_checksum(answer)
            total = _total(answer, start)
            if answer.status_code == 416 and total == start:
                return told
            start = _accept(answer, mirror, part, start, total)
            _write(answer, part, start, total)
    except (requests.RequestException, HTTPError) as error:
        raise Interrupted(f"the connection failed ({type(error).__name__})") from error
    whole = mirror.size if total is None else total
    if whole is not None and _size(part) != whole:
        raise Interrupted(f"{_size(part)} of {whole} bytes came")
    return told


def _accept(answer, mirror: Mirror, part: Path, start: int, total: int | None) -> int:
    """Whether the answer is the file, or its rest; -> the byte from which to write."""
    code = answer.status_code
    if code in (408, 429) or code >= 500:
        raise Interrupted(f"the server is busy or broken (HTTP {code})")
    if code == 416:
        part.unlink()
        raise Interrupted("the server's file is shorter than the part that came earlier")
    if code not in (200, 206):
        raise Unavailable(f"HTTP {code} ({answer.reason})")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise Unavailable("it sent a web page, not the file (a sign-in, a quota, or a page that has moved)")
    if mirror.size and total is not None and total != mirror.size:
        raise Unavailable(f"its file has {total} bytes, expected {mirror.size}")
    if code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        return start
    if code == 206:
        part.unlink(missing_ok=True)
        raise Interrupted(f"asked for bytes {start}-, got {answer.headers.get('Content-Range')!r}")
    tag = answer.headers.get("ETag", "")
    stamp = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")    # weak tags will not do
    _stamp(part).write_text(stamp, encoding="utf-8") if stamp else _stamp(part).unlink(missing_ok=True)
    return 0                                       # the server does not continue files, or has a new one


def _write(answer, part: Path, start: int, total: int | None) -> None:
    """The bytes as they come, from `start` on, never decoded: some servers call a .tar.gz compressed HTTP."""
    with open(part, "ab" if start else "wb") as file, \
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.name[9:-5], disable=None,
                 leave=False) as bar:
        for block in answer.raw.stream(CHUNK, decode_content=False):
            file.write(block)
            bar.update(len(block))


def _total(answer, start: int) -> int | None:
    """Bytes of the whole file, if the server says so."""
    if found := re.search(r"/(\d+)$", answer.headers.get("Content-Range", "")):
        return int(found[1])
    length = answer.headers.get("Content-Length", "")
    return int(length) + (start if answer.status_code == 206 else 0) if length.isdigit() else None


def _told_checksum(answer) -> str | None:
    tags = [a.headers.get(LINKED, "").strip('"') for a in (*answer.history, answer)]
    return next((f"sha256:{tag}" for tag in tags if re.fullmatch("[0-9a-f]{64}", tag)), None)


def _matches(part: Path, check: str | None) -> bool:
    import pooch  # here: see _receive
    return pooch.hashes.hash_matches(str(part), check)


def _address(url: str) -> str:
    """HF_ENDPOINT is how users of the hub name a mirror of it."""
    return url.replace(HF, os.environ.get("HF_ENDPOINT", HF).rstrip("/"), 1) if url.startswith(HF) else url


def _stamp(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
