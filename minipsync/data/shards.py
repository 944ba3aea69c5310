"""Your own pictures in tar shards, as webdataset writes them: "0001.jpg" beside "0001.cls", its label."""

import os
import re
import tarfile
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..files.lines import read_numbered
from ..files.paths import expand, read_text
from . import listing
from .checks import some
from .content import Place
from .dataset import TEMPLATE, Dataset
from .folders import own_dataset
from .listing import NOT_READ, SUFFIXES, LeftOut, is_hidden
from .names import check_class_names, warn_of_no_words

COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)


class Sample(NamedTuple):
    """A picture with a label in a shard: its id "shard.tar/key", its label, and where its bytes lie."""

    id: str
    label: int
    place: Place


def webdataset(path: str | Path, class_names: Sequence[str] | None = None,
               templates: str | Sequence[str] | None = None, name: str | None = None) -> Dataset:
    """Return the pictures in the shards at `path`, a .tar file or a folder of them, as a `Dataset`.

    class_names: names in the order of the labels. By default the lines of a file classnames.txt in the folder
                 of the shards or the one above, the first line for label 0.
    templates:   sentences with {} for the class name; by default, likewise, the lines of
                 zeroshot_classification_templates.txt, with {c} for the name (CLIP benchmark has both files).
    name:        what tables call the data set; see `folder`, also for which pictures are read and how.

    Ids are "shard.tar/key". The shards are read once, to find where their pictures lie; later reading a
    picture takes one seek and one read.

    Raises FileNotFoundError without shards; ValueError for a shard that is compressed or cut off, a picture
    without a label, a label without a picture or without a name, and missing class names. Warns of classes
    without a picture and of shards that are missing, by nshards.txt or by the numbers of the others.
    """
    path = expand(path).absolute()
    shards, left_out = ([path], []) if path.is_file() else _shards(path)
    samples: list[Sample] = []
    for shard in shards:
        found, others = _samples(shard)
        samples += found
        left_out += others or [LeftOut(shard.name, listing.EMPTY)] * (not found)
    if not samples:
        raise ValueError(f"the shards in {str(path)!r} hold no picture with a label; expected pairs like "
                         "'0001.jpg', '0001.cls'")
    home = shards[0].parent
    given, source = class_names, "class_names"
    if given is None:
        given, source = _listed(home, "classnames.txt")
        if given is None:
            raise ValueError(f"no class names for {str(path)!r}: expected a file 'classnames.txt' beside the "
                             "shards, a line for each label from 0 on, or class_names=[…]")
        warn_of_no_words(given, source, f"Write the name of each class to {source!r}")
    names = [each.strip() for each in check_class_names(given)]
    if templates is None:
        templates = [t.replace("{c}", "{}") for t in
                     _listed(home, "zeroshot_classification_templates.txt")[0] or [TEMPLATE]]
    ids, labels, places = [s.id for s in samples], [s.label for s in samples], [s.place for s in samples]
    if wrong := [i for i, label in enumerate(labels) if not 0 <= label < len(names)]:
        raise ValueError(f"labels from {min(labels)} to {max(labels)}, but the {len(names)} names of "
                         f"{source!r} are for 0 … {len(names) - 1}; the first without a name is "
                         f"{labels[wrong[0]]}, of {ids[wrong[0]]!r}")
    return own_dataset(name, home, names, labels, ids, places, templates, left_out, str(path))


def _listed(home: Path, name: str) -> tuple[list[str] | None, str]:
    """Return the lines of a file in the folder of the shards or the one above, and its path; else None."""
    home = Path(os.path.abspath(home))
    for file in (home / name, home.parent / name):
        if file.is_file():
            return read_numbered(file), str(file)
    return None, ""


# ---- which shards ------------------------------------------------------------------------------------
def _shards(path: Path) -> tuple[list[Path], list[LeftOut]]:
    """Return the shards in a folder, sorted, and those that are missing, too many or compressed.

    Raises FileNotFoundError if there are none."""
    names = [name for name in (sorted(os.listdir(path)) if path.is_dir() else []) if not is_hidden(name)]
    tars = [name for name in names if name.lower().endswith(".tar") and not (path / name).is_dir()]
    left_out = [LeftOut(name, listing.PACKED) for name in names if COMPRESSED.search(name)]
    gone = [name for name in tars if not (path / name).exists()]           # links to nowhere
    missing, beyond = _by_number(path, tars)
    left_out += [LeftOut(name, listing.NO_SHARD) for name in dict.fromkeys([*gone, *missing])]
    left_out += [LeftOut(name, listing.BEYOND) for name in beyond]
    if found := [path / name for name in tars if name not in {*gone, *beyond}]:
        return found, left_out
    inner = [name for name in names if (path / name).is_dir() and any((path / name).glob("*.tar"))]
    hint = f"; there are shards in {some(inner)}: name one of these" * bool(inner)
    hint += f"; {some([each.name for each in left_out])}: unpack to .tar, or copy again" * bool(left_out)
    raise FileNotFoundError(f"there are no .tar files at {str(path)!r}; expected a shard or the folder that "
                            f"holds the shards{hint}")


def _by_number(path: Path, tars: list[str]) -> tuple[list[str], list[str]]:
    """Return the names of the shards that are missing and of those that are too many.

    Both follow from the numbers in the shards' names ("7.tar", "train-000007.tar") and from nshards.txt, as
    CLIP benchmark's export writes it. Raises ValueError if that file holds no number."""
    series: dict[str, dict[int, str]] = defaultdict(dict)
    for name in tars:
        if match := re.fullmatch(r"(.*?)(\d+)\.tar", name, re.IGNORECASE):
            series[match[1]][int(match[2])] = name
    total, file = None, path / "nshards.txt"
    if file.is_file():
        text = read_text(file).strip()
        if not text.isdecimal():
            raise ValueError(f"{str(file)!r} says {text[:40]!r}; expected the number of shards, or no such "
                             "file")
        total = int(text)
    missing, beyond = [], []
    for stem, numbers in series.items():
        count = total if len(numbers) == len(tars) else None       # of several series, which is meant?
        first = int(0 not in numbers and (1 if count is None else count) in numbers)
        end = max(numbers) + 1 if count is None else first + count
        beyond += [name for i, name in sorted(numbers.items()) if i >= end]
        # numbers with wide gaps do not count shards; they may be dates
        if count is not None or end - first <= 10 * len(numbers) + 10:
            width = min(len(name) for name in numbers.values()) - len(stem) - len(".tar")
            missing += [f"{stem}{i:0{width}}.tar" for i in range(first, end) if i not in numbers]
    if total is not None and len(tars) - len(beyond) + len(missing) != total:
        warnings.warn(f"{str(file)!r} says {total} shards, and there are {len(tars)}: {some(tars)}",
                      stacklevel=4)
    return missing, beyond


# ---- what is in a shard ------------------------------------------------------------------------------
def _samples(shard: Path) -> tuple[list[Sample], list[LeftOut]]:
    """Return the samples of a shard, in its order, and what is left out of it.

    Raises ValueError for a shard that cannot be read, and for one that does not say which label belongs to
    which picture."""
    pictures: dict[str, Place | None] = {}                 # key -> place, None if there are no plain bytes
    labels: dict[str, int] = {}
    others: dict[str, str] = {}                            # key -> member, a picture of a kind not read
    places: dict[str, Place] = {}                          # member -> place, for the hard links to it
    dotted: dict[str, set[tuple[str, str]]] = defaultdict(set)     # key -> "a" of "key.a.cls", "key.a.jpg"
    suffixes: set[str] = set()
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
                if any(map(is_hidden, parts)) or not (member.isreg() or member.islnk() or member.issym()):
                    continue
                key, suffix = _key_and_suffix(member.name)
                suffixes.add(suffix)
                before, _, last = suffix[1:].rpartition(".")
                if before and (last == "cls" or f".{last}" in SUFFIXES):
                    dotted[key].add((before, "cls" if last == "cls" else "picture"))
                elif suffix == ".cls":
                    if key in labels:
                        raise ValueError(f"{str(shard)!r} has two labels called {member.name!r}; "
                                         "expected one a sample")
                    content = tar.extractfile(member)
                    labels[key] = _label(shard, member.name, content.read(40) if content else b"")
                elif suffix in SUFFIXES:
                    if key in pictures:
                        raise ValueError(f"{str(shard)!r} has two pictures called {key!r}; "
                                         "expected one a sample")
                    if member.isreg() and not member.issparse():
                        places[member.name] = Place(shard, member.offset_data, member.size)
                    pictures[key] = places.get(member.linkname if member.islnk() else member.name)
                elif suffix in NOT_READ:
                    others[key] = member.name
            _check_end(shard, tar.offset)
    except (tarfile.TarError, EOFError, KeyError) as error:        # KeyError: a link to no member
        raise ValueError(f"{str(shard)!r} cannot be read as a tar file ({error}); it must be complete and "
                         "not compressed: copy it again, or unpack a .tar.gz to .tar first") from error
    for key, ends in dotted.items():
        if twice := sorted(b for b, last in ends if last == "cls" and (b, "picture") in ends):
            raise ValueError(f"{f'{key}.{twice[0]}.cls'!r} in {str(shard)!r} has a dot in its name: "
                             f"webdataset takes what is before the first one, {key!r}, for the sample's "
                             "name; rename it")
    there = {*pictures, *others, *(key for key in dotted if key not in labels)}
    if single := sorted(there ^ labels.keys()):
        raise ValueError(f"{str(shard)!r} has {len(single)} samples without a picture or without a label: "
                         f"{some(single)}; expected pairs like '0001.jpg', '0001.cls', and it has files that "
                         f"end in {', '.join(sorted(suffixes)[:8])}")
    unread = [LeftOut(f"{shard.name}/{key}", listing.SPECIAL, labels[key])
              for key, place in pictures.items() if place is None]
    unread += [LeftOut(f"{shard.name}/{name}", listing.KIND, labels[key])
               for key, name in others.items() if key not in pictures]
    return [Sample(f"{shard.name}/{key}", labels[key], place) for key, place in pictures.items()
            if place is not None], unread


def _key_and_suffix(member: str) -> tuple[str, str]:
    """Split "folder/0001.Seg.JPG" at the first dot of the file's name: "folder/0001", ".seg.jpg"."""
    folder, _, file = member.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, f".{suffix.lower().lstrip('.')}"


def _label(shard: Path, name: str, text: bytes) -> int:
    """Return the label that a .cls member holds. Raises ValueError if it is no number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name!r} in {str(shard)!r} says {text!r}, expected the number of a "
                         "class, 0, 1, …") from None


def _check_end(shard: Path, end: int) -> None:
    """Warn if a tar file has no end mark, and raise ValueError if it goes on behind it: samples are lost."""
    with open(shard, "rb") as file:
        file.seek(end)
        rest = file.read(1 << 20)
    if not rest:
        warnings.warn(f"{str(shard)!r} has no end mark: if its writing or copying was stopped, samples are "
                      "missing. Copy it again", stacklevel=4)
    if any(rest):
        raise ValueError(f"{str(shard)!r} goes on behind its end mark, where no tar file is read: files that "
                         "were joined byte by byte must be unpacked and packed as one")
