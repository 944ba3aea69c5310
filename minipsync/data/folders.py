"""Your own pictures: one folder per class."""
from __future__ import annotations

import mimetypes
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..paths import expand
from ..pixels import to_rgb
from .checks import SUFFIXES, fingerprint
from .dataset import TEMPLATE, Dataset


def open_image(path: str | Path) -> Image.Image:
    """The first frame of a picture file as RGB, as `to_rgb` says; OSError for whatever PIL cannot read."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except (OSError, MemoryError):
        raise
    except Exception as error:                            # PIL's decoders raise all sorts for damaged files
        raise OSError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class PictureFiles:
    """Reads picture i from the file `base / paths[i]`. A class, not a local function: it can be pickled for
    processes that read pictures."""

    base: Path
    paths: Sequence[str]

    def __call__(self, i: int) -> Image.Image:
        return open_image(self.base / self.paths[i])


def folder(path: str | Path, class_names: Sequence[str] | dict[str, str] | None = None,
           templates: Sequence[str] = (TEMPLATE,)) -> Dataset:
    """The pictures below `path`, one sub-folder per class, as a `Dataset`.

    The label of a picture is its folder's place in the sorted list of folders. Class names are, in this order
    of preference: `class_names` (a list in that order, or {folder: name}), a file `classnames.txt` in `path`
    with lines "folder name words", else the folders' names with underscores as spaces. Pictures are read as
    they are stored (EXIF's rotation is not followed), their first frame, transparent parts on white.
    Raises FileNotFoundError without such a folder, ValueError for an empty class or names that do not fit;
    warns of pictures of kinds that PIL may not know (.heic), which are left out. What cannot be read is found
    when it is read: `evaluate` leaves it out and counts it in `result.skipped`.
    """
    root = expand(path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}; expected one with a sub-folder of "
                                "pictures for each class")
    folders = sorted(d.name for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    if not folders:
        raise ValueError(f"the folder {str(root)!r} has no sub-folders; expected one for each class, "
                         "holding its pictures")
    files, labels, strange = [], [], []
    for label, name in enumerate(folders):
        inside = sorted(f for f in (root / name).rglob("*") if not f.name.startswith(".") and not f.is_dir())
        found = [f for f in inside if f.suffix.lower() in SUFFIXES]
        strange += [f for f in inside if f.suffix.lower() not in SUFFIXES and _is_picture(f)]
        if not found:
            raise ValueError(f"the class folder {name!r} in {str(root)!r} holds no picture "
                             f"({', '.join(SUFFIXES)}); add some or remove the folder")
        files += found
        labels += [label] * len(found)
    if deep := [name for name in folders if not any(f.suffix.lower() in SUFFIXES
                                                    for f in (root / name).iterdir())]:
        warnings.warn(f"the class folder {deep[0]!r} in {str(root)!r} has pictures in its sub-folders only; "
                      "if those are the classes, name this folder instead", stacklevel=2)
    if strange:
        warnings.warn(f"{len(strange)} pictures in {str(root)!r} are left out, first {strange[0].name!r}; "
                      f"expected {', '.join(SUFFIXES)}: convert them", stacklevel=2)
    ids = [f.relative_to(root).as_posix() for f in files]
    if odd := [i for i in ids if i.encode(errors="replace").decode() != i or {"\n", "\r"} & {*i}]:
        raise ValueError(f"the file name {odd[0]!r} in {str(root)!r} cannot be kept in records; rename it")
    names = _names(root, folders, class_names)
    sizes = [f"{i} {f.stat().st_size}" for i, f in zip(ids, files, strict=True)]
    warn_of_twins(names, str(root))
    return Dataset(root.resolve().name, names, labels, ids, PictureFiles(root.absolute(), ids), templates,
                   fingerprint=fingerprint(sizes), origin="own")    # two folders of one name are not one set


def warn_of_twins(names: Sequence[str], where: str) -> None:
    """Two classes of one name are one sentence to CLIP: a picture of the second counts as wrong."""
    if twins := sorted(name for name, n in Counter(names).items() if n > 1):
        warnings.warn(f"{len(twins)} class names in {where!r} stand for several classes, first {twins[0]!r}; "
                      "CLIP cannot tell those apart: give them names of their own", stacklevel=3)


def _names(root: Path, folders: list[str], given: Sequence[str] | dict[str, str] | None) -> list[str]:
    """Class names in the order of `folders`, from where `folder` says."""
    listed = root / "classnames.txt"
    if isinstance(given, str):
        raise TypeError(f"class_names={given!r} is a str; expected a list of names or {{folder: name}}")
    if given is None and listed.is_file():
        given = _listed(listed, folders)
    if given is None:
        return [f.replace("_", " ") for f in folders]
    if isinstance(given, dict):
        if missing := [f for f in folders if f not in given]:
            raise ValueError(f"no class name for the folder{'s' * (len(missing) > 1)} "
                             f"{', '.join(missing[:5])} of {str(root)!r}; expected a line 'folder name' "
                             "for each")
        return [given[f].strip() for f in folders]
    if len(given) != len(folders):
        raise ValueError(f"{len(given)} class names for {len(folders)} folders in {str(root)!r}; expected "
                         "one for each folder, in sorted order")
    return list(given)


def _listed(file: Path, folders: list[str]) -> dict[str, str]:
    """{folder: name} of the lines of a file; ValueError for a line that is not for one of `folders`."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()         # -sig: editors on Windows write it
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 text ({error}); save it as UTF-8") from None
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split(maxsplit=1)
        if words and (len(words) == 1 or words[0] not in folders or words[0] in names):
            raise ValueError(f"line {number} of {str(file)!r} is {line!r}; expected 'folder name', once for "
                             f"each of the {len(folders)} folders ({', '.join(folders[:3])}, …)")
        names.update([words] if words else [])
    return names


def _is_picture(file: Path) -> bool:
    return (mimetypes.guess_type(file.name)[0] or "").startswith("image/")
