"""Your own pictures: one folder per class."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from .dataset import TEMPLATE, Dataset

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


def open_image(path: str | Path) -> Image.Image:
    """The first frame of a picture file, upright by its EXIF note, transparent parts on white, as RGB."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


def folder(path: str | Path, class_names: Sequence[str] | dict[str, str] | None = None,
           templates: Sequence[str] = (TEMPLATE,)) -> Dataset:
    """The pictures below `path`, one sub-folder per class, as a `Dataset`.

    The label of a picture is its folder's place in the sorted list of folders. Class names are, in this order
    of preference: `class_names` (a list in that order, or {folder: name}), a file `classnames.txt` in `path`
    with lines "folder name words", else the folders' names with underscores as spaces.
    Raises FileNotFoundError without such a folder, ValueError for an empty class or names that do not fit.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}; expected one with a sub-folder of "
                                "pictures for each class")
    folders = sorted(d.name for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    if not folders:
        raise ValueError(f"the folder {str(root)!r} has no sub-folders; expected one for each class, "
                         "holding its pictures")
    files, labels = [], []
    for label, name in enumerate(folders):
        found = sorted(f for f in (root / name).rglob("*") if f.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f"the class folder {name!r} in {str(root)!r} holds no picture "
                             f"({', '.join(SUFFIXES)}); add some or remove the folder")
        files += found
        labels += [label] * len(found)
    ids = [f.relative_to(root).as_posix() for f in files]
    return Dataset(root.name, _names(root, folders, class_names), labels, ids, lambda i: open_image(files[i]),
                   templates)


def _names(root: Path, folders: list[str], given: Sequence[str] | dict[str, str] | None) -> list[str]:
    """Class names in the order of `folders`, from where `folder` says."""
    listed = root / "classnames.txt"
    if given is None and listed.is_file():
        lines = listed.read_text(encoding="utf-8").splitlines()
        given = dict(line.split(maxsplit=1) for line in lines if len(line.split()) > 1)
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
