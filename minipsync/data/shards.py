"""Pictures in tar shards, as webdataset writes them: "0001.jpg" beside "0001.cls", its label."""
from __future__ import annotations

import os
import re
import tarfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..files.paths import expand
from .checks import read_numbered, some
from .content import Place, name_of_own
from .dataset import TEMPLATE, Dataset
from .listing import (
    BEYOND,
    EMPTY,
    KIND,
    NO_SHARD,
    NOT_READ,
    PACKED,
    SPECIAL,
    SUFFIXES,
    LeftOut,
    is_hidden,
    tell_left_out,
)
from .names import check_class_names, warn_of_empty, warn_of_no_words, warn_of_twins

Sample = tuple[str, int, int, int]                 # key, place and size in bytes, label
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)


def webdataset(path: str | Path, class_names: Sequence[str] | None = None,
               templates: Sequence[str] | None = None, name: str | None = None) -> Dataset:
    """The samples of the shards at `path`: a .tar file, or a folder of them. Ids are "shard.tar/key".

    The shards are read once for the places of their members; a picture is then one seek and one read. Class
    names are `class_names`, else the lines of `classnames.txt` in the folder of the shards or above it, where
    line 1 names label 0; templates likewise, from `zeroshot_classification_templates.txt` (CLIP benchmark's
    data sets have both). Which pictures are read, which left out, and how, and for `name`, see `folder`.

    Raises FileNotFoundError without shards, ValueError for a shard that is compressed or cut off, a picture
    without a label, a label without a picture, a label without a name, and missing class names. Warns of a
    shard that `nshards.txt` or the numbers of the others say should be there, and of classes without picture.
    """
    path = expand(path).absolute()
    shards, left_out = ([path], []) if path.is_file() else _shards(path)
    samples: list[tuple[Path, Sample]] = []
    for shard in shards:
        found, others = _index(shard)
        samples += [(shard, sample) for sample in found]
        left_out += others or [LeftOut(shard.name, EMPTY)] * (not found)
    if not samples:
        raise ValueError(f"the shards in {str(path)!r} hold no picture with a label; expected pairs like "
                         "'0001.jpg', '0001.cls'")
    home = shards[0].parent
    names, source = class_names, "class_names"
    if names is None:
        names, source = _listed(home, "classnames.txt")
        if names is None:
            raise ValueError(f"no class names for {str(path)!r}: expected a file 'classnames.txt' beside the "
                             "shards, a line for each label from 0 on, or class_names=[…]")
        warn_of_no_words(names, source, f"Write the name of each class to {source!r}")
    names = [name.strip() for name in check_class_names(names)]
    if templates is None:
        listed, _ = _listed(home, "zeroshot_classification_templates.txt")
        templates = [t.replace("{c}", "{}") for t in listed or [TEMPLATE]]
    labels, ids = [s[3] for _, s in samples], [f"{shard.name}/{s[0]}" for shard, s in samples]
    if wrong := [i for i, label in enumerate(labels) if not 0 <= label < len(names)]:
        raise ValueError(f"labels from {min(labels)} to {max(labels)}, but the {len(names)} names of "
                         f"{source!r} are for 0 … {len(names) - 1}; the first without a name is "
                         f"{labels[wrong[0]]}, of {ids[wrong[0]]!r}")
    places = [Place(shard, at, size) for shard, (_, at, size, _) in samples]
    data = Dataset(name_of_own(home, name, ids, labels, places), names, labels, ids, None, templates,
                   origin="own", places=places, left_out=left_out)
    tell_left_out(left_out, str(path))
    warn_of_empty(data, str(path))
    warn_of_twins(names, str(path))
    return data


def _listed(home: Path, name: str) -> tuple[list[str] | None, str]:
    """The lines of a file in the folder of the shards or the one above, and its path; None without such."""
    home = Path(os.path.abspath(home))
    for file in (home / name, home.parent / name):
        if file.is_file():
            return read_numbered(file), str(file)
    return None, ""


# ---- which shards ------------------------------------------------------------------------------------
def _shards(path: Path) -> tuple[list[Path], list[LeftOut]]:
    """The shards in a folder, sorted, and those that should be there or should not."""
    names = [name for name in (sorted(os.listdir(path)) if path.is_dir() else []) if not is_hidden(name)]
    tars = [name for name in names if name.lower().endswith(".tar") and not (path / name).is_dir()]
    left_out = [LeftOut(name, PACKED) for name in names if COMPRESSED.search(name)]
    gone = [name for name in tars if not (path / name).exists()]           # links to nowhere
    missing, beyond = _by_number(path, tars)
    left_out += [LeftOut(name, NO_SHARD) for name in dict.fromkeys([*gone, *missing])]
    left_out += [LeftOut(name, BEYOND) for name in beyond]
    if found := [path / name for name in tars if name not in {*gone, *beyond}]:
        return found, left_out
    inner = [name for name in names if (path / name).is_dir() and any((path / name).glob("*.tar"))]
    hint = f"; there are shards in {some(inner)}: name one of these" * bool(inner)
    hint += f"; {some([each.name for each in left_out])}: unpack to .tar, or copy again" * bool(left_out)
    raise FileNotFoundError(f"there are no .tar files at {str(path)!r}; expected a shard or the folder that "
                            f"holds the shards{hint}")


def _by_number(path: Path, tars: list[str]) -> tuple[list[str], list[str]]:
    """Names of the shards that are missing, and of those that are too many, by their numbers ("7.tar",
    "train-000007.tar") and by nshards.txt, as CLIP benchmark's export writes it."""
    series: dict[str, dict[int, str]] = defaultdict(dict)
    for name in tars:
        if match := re.fullmatch(r"(.*?)(\d+)\.tar", name, re.IGNORECASE):
            series[match[1]][int(match[2])] = name
    total, file = None, path / "nshards.txt"
    if file.is_file():
        text = file.read_text(encoding="utf-8-sig", errors="replace").strip()
        if not text.isdecimal():
            raise ValueError(f"{str(file)!r} says {text[:40]!r}; expected the number of shards, or no such "
                             "file")
        total = int(text)
    missing, beyond = [], []
    for stem, numbers in series.items():
        alone = total is not None and len(numbers) == len(tars)
        first = int(0 not in numbers and (total if alone else 1) in numbers)
        end = first + total if alone else max(numbers) + 1
        beyond += [name for i, name in sorted(numbers.items()) if i >= end]
        if alone or end - first <= 10 * len(numbers) + 10:                 # else the number is a date, …
            width = min(len(name) for name in numbers.values()) - len(stem) - len(".tar")
            missing += [f"{stem}{i:0{width}}.tar" for i in range(first, end) if i not in numbers]
    if total is not None and len(tars) - len(beyond) + len(missing) != total:
        warnings.warn(f"{str(file)!r} says {total} shards, and there are {len(tars)}: {some(tars)}",
                      stacklevel=4)
    return missing, beyond


# ---- what is in a shard ------------------------------------------------------------------------------
def _index(shard: Path) -> tuple[list[Sample], list[LeftOut]]:
    """Key, place, size (bytes) and label of every sample of a shard, and what is left out of it."""
    pictures, labels, others, places = {}, {}, {}, {}
    dotted, suffixes = defaultdict(set), Counter()
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
                if any(map(is_hidden, parts)) or not (member.isreg() or member.islnk() or member.issym()):
                    continue
                stem, _, suffix = file.partition(".")
                key, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower().lstrip(".")
                suffixes[f".{suffix}"] += 1
                before, _, last = suffix.rpartition(".")
                if before and (last == "cls" or f".{last}" in SUFFIXES):
                    dotted[key].add((before, "cls" if last == "cls" else "picture"))
                elif suffix == "cls":
                    if key in labels:
                        raise ValueError(f"{str(shard)!r} has two labels called {member.name!r}; "
                                         "expected one a sample")
                    labels[key] = _label(shard, member.name, tar.extractfile(member).read(40))
                elif f".{suffix}" in SUFFIXES:
                    if key in pictures:
                        raise ValueError(f"{str(shard)!r} has two pictures called {key!r}; "
                                         "expected one a sample")
                    if member.isreg() and not member.issparse():
                        places[member.name] = member.offset_data, member.size
                    pictures[key] = places.get(member.linkname if member.islnk() else member.name)
                elif f".{suffix}" in NOT_READ:
                    others[key] = member.name
            _check_end(shard, tar.offset)
    except (tarfile.TarError, EOFError, KeyError) as error:        # KeyError: a link out of it
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
    unread = [LeftOut(f"{shard.name}/{key}", SPECIAL, labels[key])
              for key, place in pictures.items() if place is None]
    unread += [LeftOut(f"{shard.name}/{name}", KIND, labels[key])
               for key, name in others.items() if key not in pictures]
    return [(key, *place, labels[key]) for key, place in pictures.items() if place], unread


def _check_end(shard: Path, end: int) -> None:
    """Look for the empty block that ends a tar file: without it, or with more behind it, samples are lost."""
    with open(shard, "rb") as file:
        file.seek(end)
        rest = file.read(1 << 20)
    if not rest:
        warnings.warn(f"{str(shard)!r} has no end mark: if its writing or copying was stopped, samples are "
                      "missing. Copy it again", stacklevel=4)
    if any(rest):
        raise ValueError(f"{str(shard)!r} goes on behind its end mark, where no tar file is read: files that "
                         "were joined byte by byte must be unpacked and packed as one")


def _label(shard: Path, name: str, text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name!r} in {str(shard)!r} says {text!r}, expected the number of a "
                         "class, 0, 1, …") from None
