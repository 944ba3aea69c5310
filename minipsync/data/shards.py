"""Pictures in tar shards, as webdataset writes them: "0001.jpg" beside "0001.cls", its label."""
from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..paths import expand
from .checks import SUFFIXES, fingerprint, some
from .dataset import TEMPLATE, Dataset
from .folders import open_image, warn_of_twins


@dataclass(frozen=True)
class PictureMembers:
    """Reads picture i from the samples (shard, key, place and size in bytes, label). A class, not a local
    function: it can be pickled for processes that read pictures."""

    samples: Sequence[tuple[Path, str, int, int, int]]

    def __call__(self, i: int) -> Image.Image:
        shard, _, at, size, _ = self.samples[i]
        with open(shard, "rb") as file:
            file.seek(at)
            return open_image(io.BytesIO(file.read(size)))


def webdataset(path: str | Path, class_names: Sequence[str] | None = None,
               templates: Sequence[str] | None = None) -> Dataset:
    """The samples of the shards at `path`: a .tar file, or a folder of them. Ids are "shard.tar/key".

    The shards are read once for the places of their members; a picture is then one seek and one read. Class
    names are `class_names`, else the lines of `classnames.txt` in the folder of the shards or above it;
    templates likewise, from `zeroshot_classification_templates.txt` (CLIP benchmark's data sets have both).
    Raises FileNotFoundError without shards, ValueError for a shard that is compressed or cut off, a picture
    without a label, a label without a picture, and missing class names.
    """
    shards = _shards(expand(path).absolute())
    # shard, key, place and size in bytes, label
    samples = [(shard, *sample) for shard in shards for sample in _index(shard)]
    if not samples:
        raise ValueError(f"the shards in {str(path)!r} hold no picture with a label; expected pairs like "
                         "'0001.jpg', '0001.cls'")
    home = shards[0].parent
    names = class_names if class_names is not None else _listed(home, "classnames.txt")
    if names is None:
        raise ValueError(f"no class names for {str(path)!r}: expected a file 'classnames.txt' beside the "
                         "shards, a line for each label from 0 on, or class_names=[…]")
    if templates is None:
        templates = [t.replace("{c}", "{}")
                     for t in _listed(home, "zeroshot_classification_templates.txt") or [TEMPLATE]]

    warn_of_twins(names, str(path))
    ids = [f"{s[0].name}/{s[1]}" for s in samples]
    return Dataset(home.resolve().name, names, [s[4] for s in samples], ids, PictureMembers(samples),
                   templates, origin="own",
                   fingerprint=fingerprint(f"{i} {s[3]}" for i, s in zip(ids, samples, strict=True)))


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if found := sorted(path.glob("*.tar")):
        return found
    raise FileNotFoundError(f"there are no .tar files at {str(path)!r}; expected a shard or the folder that "
                            "holds the shards")


def _listed(home: Path, name: str) -> list[str] | None:
    """The lines of a file in the folder of the shards or the one above; None without such a file."""
    for file in (home / name, home.parent / name):
        if file.is_file():
            return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return None


def _index(shard: Path) -> list[tuple[str, int, int, int]]:
    """Key, place, size (bytes) and label of every sample of a shard."""
    pictures, labels = {}, {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, file = member.name.rpartition("/")
                stem, dot, suffix = file.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not member.isreg() or not stem:         # folders, links, hidden files
                    continue
                if dot + suffix.lower() in SUFFIXES:
                    if key in pictures:
                        raise ValueError(f"{str(shard)!r} has two pictures called {key!r}; "
                                         "expected one a sample")
                    pictures[key] = member.offset_data, member.size
                elif suffix.lower() == "cls":
                    labels[key] = _label(shard, member.name, tar.extractfile(member).read(40))
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{str(shard)!r} cannot be read as a tar file ({error}); it must be complete and "
                         "not compressed: copy it again, or unpack a .tar.gz to .tar first") from error
    if single := sorted(pictures.keys() ^ labels.keys()):
        raise ValueError(f"{str(shard)!r} has {len(single)} samples without a picture or without a label: "
                         f"{some(single)}; expected pairs like '0001.jpg', '0001.cls'")
    return [(key, *place, labels[key]) for key, place in pictures.items()]


def _label(shard: Path, name: str, text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name!r} in {str(shard)!r} says {text!r}, expected the number of a "
                         "class, 0, 1, …") from None
