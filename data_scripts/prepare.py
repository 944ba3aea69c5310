"""Bring data sets of the full benchmark to where they are expected, and tell which are there.

A data set is good if `minipsync.benchmark("full", root)` loads it: that counts pictures and classes and
compares class names. Everything else follows from it: what is good is not fetched again, what was fetched
must become good, and `check` reports what the loading says.
"""
from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import minipsync as mp
from minipsync.data.imagenet import FOLDERS
from minipsync.data.splits import PARTS, read_json

from .download import Unavailable, download, local, need_space
from .extract import BadArchive, find, unpack
from .sources import SOURCES, Mirror, Piece, Source

DOWNLOADS = ".downloads"                           # below the root: files on their way
MOST_MEMBERS = 500_000                             # of an archive; the largest data set has 109,000 pictures
ROOM, BOUND = 2.2, 4.0                             # times the download: free disk wanted, unpacked at most
PROBES = 5                                         # pictures of a split that `check` opens


@dataclass
class Status:
    """What there is of a data set: "have" (its test split loads), "missing" or "damaged"."""

    name: str
    word: str = "have"
    counts: dict[str, int] = field(default_factory=dict)       # split: number of pictures
    problems: dict[str, str] = field(default_factory=dict)     # split: why it does not load

    @property
    def complete(self) -> bool:
        """Nothing is left to fetch. ImageNet's training pictures count only if they are there."""
        return self.word == "have" and (self.name == "imagenet" or not self.problems)


def status(name: str, root: Path) -> Status:
    """Load every split of a data set, open a few pictures of each, and tell what is wrong."""
    bench, found = mp.benchmark("full", root), Status(name)
    for split in FOLDERS[name].places if name in FOLDERS else PARTS:
        try:
            data = bench.dataset(name, split)
            for i in range(0, len(data), max(1, len(data) // PROBES)):
                _probe(data, i)
            found.counts[split] = len(data)
        except FileNotFoundError as error:
            found.problems[split] = str(error)
        except (ValueError, OSError) as error:
            found.problems[split], found.word = str(error), "damaged"
    if "test" not in found.counts and found.word == "have":
        begun = any(_begun(root / piece.target) for piece in SOURCES[source_of(name)].pieces)
        found.word = "damaged" if begun else "missing"
    return found


def check(names: list[str], root: Path) -> int:
    """Print what there is of each data set and what to do; -> 1 if one of them is not good, else 0."""
    bad = 0
    for name in names:
        found = status(name, root)
        bad += found.word != "have"
        counts = ", ".join(f"{split} {n:,}" for split, n in found.counts.items())
        print(f"{name:18} {found.word:8} {counts}".rstrip())
        for split, problem in found.problems.items():
            if found.word != "missing" or split == "test":
                print(f"    {split}: {problem}")
        if not found.complete:
            print(f"    What to do: {_mend(found, root)}")
    print(f"{len(names) - bad} of {len(names)} good, below {str(root)!r}")
    return int(bad > 0)


def prepare(names: list[str], root: Path, again: bool = False, keep: bool = False) -> int:
    """Fetch data sets, one after the other; -> 1 if one of them is not good at the end, else 0.

    again: fetch what is there, too, and replace it.
    keep:  leave the downloaded archives in `.downloads` when they are unpacked.
    """
    root.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, list[str]] = {}              # source: data sets
    for name in names:
        wanted.setdefault(source_of(name), []).append(name)
    told = {}
    for key, members in wanted.items():
        try:
            told |= _prepare_source(key, members, root, again, keep)
        except (OSError, ValueError, RuntimeError) as error:
            told |= {name: f"FAILED: {error}" for name in members}
            print(f"{key}: {error}\n")
    print("\n".join(f"{name:18} {text.splitlines()[0]}" for name, text in told.items()))
    return int(any(text.startswith("FAILED") for text in told.values()))


def source_of(name: str) -> str:
    """The entry of SOURCES that has the data set `name`."""
    return next((key for key, source in SOURCES.items() if name in source.names), name)


def _prepare_source(key: str, members: list[str], root: Path, again: bool, keep: bool) -> dict[str, str]:
    """Fetch what is not there of one source; -> {data set: "ready, …"}. Raises what went wrong."""
    source, downloads = SOURCES[key], root / DOWNLOADS
    states = [status(name, root) for name in members]
    if all(s.complete for s in states) and not (again and source.pieces):
        return {s.name: f"ready, was there: {_counts(s)}" for s in states}
    missing = [p for p in source.pieces if p.mirrors and (again or not _present(root / p.target))]
    if missing:
        print(f"{key}: about {source.gb:g} GB from {source.home}\n    Terms: {source.terms}")
        here = sum(f.stat().st_size for f in _files(source, downloads))
        need_space(root, ROOM * source.gb * 1e9 - here, key)
    came: dict[Piece, Mirror] = {}
    refused: set[str] = set()                      # addresses that sent something else than was expected
    while missing and (again or not all(s.complete for s in states)):
        try:
            mirror, placed = _fetch(missing, source, root, refused)
        except RuntimeError:
            if missing[0] not in came:
                raise
            break                                  # nobody has a better one: what is wrong with it, below
        came |= dict.fromkeys(placed, mirror)
        missing = [piece for piece in missing if piece not in placed]
        states = [status(name, root) for name in members]
        if not missing and any(s.word != "have" for s in states):
            missing = [p for p, m in came.items() if not m.check and not p.target.endswith(".json")
                       and {other.url for other in p.mirrors} - refused - {m.url}]
            refused |= {came[piece].url for piece in missing}
    if bad := next((s for s in states if s.word != "have"), None):
        raise RuntimeError(f"{next(iter(bad.problems.values()))}\nWhat to do: {_mend(bad, root)}")
    if not keep:
        for file in _files(source, downloads):
            file.unlink()
    return {s.name: f"ready: {_counts(s)}" for s in states}


def _fetch(missing: list[Piece], source: Source, root: Path,
           refused: set[str]) -> tuple[Mirror, list[Piece]]:
    """Get the first of the missing pieces, and with it the others that the same archive has.

    -> the mirror that had them, and those placed. Raises RuntimeError with every mirror's reason if none
    has it.
    """
    downloads, reasons = root / DOWNLOADS, []
    mirrors = [mirror for mirror in missing[0].mirrors if mirror.url not in refused]
    for mirror in sorted(mirrors, key=lambda m: not local(m, downloads).is_file()):    # what is here first
        host, name = urlsplit(mirror.url).hostname, local(mirror, downloads).name[9:]
        try:
            print(f"    {name} from {host}", flush=True)
            file = download(mirror, downloads)
            also = [(p, m) for p in missing[1:] for m in p.mirrors if m.take and m.url == mirror.url]
            return mirror, _place(file, [(missing[0], mirror), *also], source, root)
        except Unavailable as error:
            reasons.append(f"{name} from {host}: {error}")
        except BadArchive as error:
            local(mirror, downloads).unlink()
            reasons.append(f"{name} from {host}: {error}")
        print(f"      {reasons[-1]}", flush=True)
    raise RuntimeError(f"no mirror has {missing[0].target!r}. Tried:\n    " + "\n    ".join(reasons)
                       + f"\nTry again later (what has come is kept), or put it at "
                         f"{str(root / missing[0].target)!r} by hand; it comes from {source.home}")


def _place(file: Path, pieces: list[tuple[Piece, Mirror]], source: Source, root: Path) -> list[Piece]:
    """Move what `pieces` name out of a downloaded file to where they belong; -> those that it has.

    The first must be in it. Everything is unpacked into a hidden folder beside the first of them, and each
    piece appears by one rename: a run that is killed leaves either all of a piece or nothing.
    """
    hidden = (root / pieces[0][0].target).parent / f".unpacking-{file.name[:8]}"
    shutil.rmtree(hidden, ignore_errors=True)      # of a run that was killed
    hidden.mkdir(parents=True)
    bound, placed = (int(BOUND * source.gb * 1e9), MOST_MEMBERS), []
    try:
        if pieces[0][1].take is None:
            shutil.copyfile(file, hidden / file.name)
        else:
            unpack(file, hidden, *bound)
            if inner := pieces[0][1].inner:
                unpack(find(hidden, inner), hidden, *bound)
        for piece, mirror in pieces:
            try:
                found = find(hidden, mirror.take or file.name)
                if piece.target.endswith(".json"):
                    read_json(found, "test")
            except ValueError as error:            # BadArchive, or what is no split file
                if not placed:
                    raise BadArchive(str(error)) from error
                continue                           # another mirror may have this one
            _replace(found, root / piece.target, hidden)
            placed.append(piece)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return placed


def _replace(new: Path, target: Path, hidden: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        raise OSError(f"{str(target)!r} is a link, and what it leads to is yours; remove the link first")
    if target.is_dir():
        os.replace(target, hidden / ".replaced")   # a folder cannot be renamed onto one that is not empty
    os.replace(new, target)
    shutil.rmtree(hidden / ".replaced", ignore_errors=True)


def _present(target: Path) -> bool:
    """Whether a piece need not be fetched; of folders only the loading can tell more."""
    try:
        if target.suffix == ".json" and target.is_file():
            read_json(target, "test")
        return _begun(target)
    except ValueError:
        return False


def _begun(target: Path) -> bool:
    return target.is_file() or (target.is_dir() and any(target.iterdir()))


def _files(source: Source, downloads: Path) -> list[Path]:
    """What of a source's files is in `downloads`, whole or in part."""
    whole = {local(m, downloads) for piece in source.pieces for m in piece.mirrors}
    return [file for f in whole for end in ("", ".part", ".part.etag")
            if (file := f.with_name(f.name + end)).is_file()]


def _probe(data, i: int) -> None:
    """Open one picture; raises ValueError that names it if it is damaged."""
    try:
        data[i]
    except Exception as error:                     # Pillow raises many kinds
        raise ValueError(f"the picture {data.image_id(i)!r} of {data.name!r} cannot be opened "
                         f"({type(error).__name__}: {error}); fetch the data set again") from error


def _counts(found: Status) -> str:
    return ", ".join(f"{split} {n:,}" for split, n in found.counts.items())


def _mend(found: Status, root: Path) -> str:
    """What a person should do about a data set that is not good, or not complete."""
    source = SOURCES[source_of(found.name)]
    lacking = [piece for piece in source.pieces if not _present(root / piece.target)]
    if not any(piece.mirrors for piece in lacking or source.pieces):
        return source.by_hand.format(root=root)
    command = f"python -m data_scripts prepare {found.name} --root {str(root)!r}"
    return command if lacking else f"{command} --again, which fetches it anew and replaces what is there"
