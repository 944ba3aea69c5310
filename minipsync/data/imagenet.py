"""ImageNet, its four variants and PUG-ImageNet: one folder of pictures for each class (METHODS 3.1 to 3.3).

A label comes from what a folder is called, a WordNet id or a number, never from its place in a listing: as
text, "10" comes before "2", and code that numbers ImageNetV2's folders as they are listed scores near 0 %
(METHODS 6.7). PUG alone is numbered by its sorted folders, as PromptAlign does. Class names are those of
CLIP's notebook.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from .checks import find_folder, fingerprint, list_pictures, settle, some
from .dataset import Dataset
from .folders import PictureFiles

CLASSES = Path(__file__).resolve().parent.parent / "assets/imagenet_classes.txt"
NAMES = "571ae1c583b4be7d"                         # fingerprint of CLIP's 1000 names (METHODS 3.2)


@dataclass(frozen=True)
class Folders:
    """Where a data set lies below the root and what it must hold."""

    places: dict[str, tuple[str, ...]]             # split: folders, the first that exists is taken
    home: str                                      # who gives it out
    sizes: dict[str, int] = field(default_factory=dict)    # split: number of pictures, where a source says
    classes: str = "all"                           # all 1000, the 200 of "a" or "r", or PUG's own "pug"
    numbers: bool = False                          # folders are called 0 … 999, not by WordNet ids
    each: int | None = None                        # test pictures of every class, where that is one number


PUG = {"worlds": "Worlds", "camera_yaw": "Camera_Yaw", "camera_pitch": "Camera_Pitch",
       "camera_roll": "Camera_Roll", "object_yaw": "Object_Yaw", "object_pitch": "Object_Pitch",
       "object_roll": "Object_Roll", "object_scale": "Object_Scale", "object_texture": "Object_Texture",
       "scene_light": "Scene_Light"}
PUG_CLASSES = 151
FOLDERS = {
    "imagenet": Folders(
        {"test": ("imagenet/images/val", "imagenet/val"),
         "train": ("imagenet/images/train", "imagenet/train")},
        "image-net.org (ILSVRC2012, after registration)", {"test": 50_000, "train": 1_281_167}, each=50),
    "v2": Folders(
        {"test": ("imagenetv2/imagenetv2-matched-frequency-format-val",
                  "imagenetv2-matched-frequency-format-val")},
        "github.com/modestyachts/ImageNetV2 (matched frequency)", {"test": 10_000}, numbers=True, each=10),
    "sketch": Folders(
        {"test": ("imagenet-sketch/images", "imagenet-sketch/ImageNet-Sketch", "imagenet-sketch/sketch")},
        "github.com/HaohanWang/ImageNet-Sketch", {"test": 50_889}),
    "a": Folders({"test": ("imagenet-adversarial/imagenet-a", "imagenet-a")},
                 "github.com/hendrycks/natural-adv-examples", {"test": 7_500}, "a"),
    "r": Folders({"test": ("imagenet-rendition/imagenet-r", "imagenet-r")},
                 "github.com/hendrycks/imagenet-r", {"test": 30_000}, "r"),
    **{f"pug_{key}": Folders({"test": (f"PUG_ImageNet/{folder}",)}, "pug.metademolab.com (PUG: ImageNet)",
                             classes="pug")
       for key, folder in PUG.items()},
}


@cache
def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[int, ...]]]:
    """The 1000 WordNet ids in order, their class names, and the indices of the 200 classes of "a" and "r".

    The ids are timm's, copied into the package; the names are open_clip's. Raises RuntimeError if open_clip
    has changed them.
    """
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # here, because open_clip loads torch models
    if (found := fingerprint(IMAGENET_CLASSNAMES)) != NAMES:
        raise RuntimeError("open_clip's IMAGENET_CLASSNAMES are not the names of CLIP's notebook "
                           f"(fingerprint {found}, expected {NAMES}); install open_clip_torch 3.3.0, "
                           "which has them")
    rows = [line.split() for line in CLASSES.read_text(encoding="utf-8").splitlines()]
    part = {key: tuple(i for i, row in enumerate(rows) if key in row[1:]) for key in ("a", "r")}
    return tuple(row[0] for row in rows), tuple(IMAGENET_CLASSNAMES), {"all": tuple(range(len(rows))), **part}


def load_folders(name: str, split: str, root: Path, partial: bool = False) -> Dataset:
    """The data set `name` of `FOLDERS`; ids are "folder/file".

    Raises FileNotFoundError if it is not below `root`, ValueError for folders that belong to another data set
    and, unless `partial`, for classes or pictures that are missing or too many.
    """
    spec = FOLDERS[name]
    base = find_folder(root, spec.places[split], name, spec.home)
    folders = sorted(f.name for f in base.iterdir() if f.is_dir() and not f.name.startswith("."))
    keys, class_names = _pug_classes(base, folders) if spec.classes == "pug" else _classes(spec)
    label = {key: i for i, key in enumerate(keys)}
    _refuse_others(name, base, folders, label)
    found = {f: list_pictures(base / f) for f in folders}
    problems = _missing(name, split, found, keys)
    settle(name, base, problems, partial and any(found.values()),
           f"Unpack it again; it comes from {spec.home}.")
    order = [key for key in keys if key in found]
    ids = [f"{key}/{picture}" for key in order for picture in found[key]]
    labels = np.repeat([label[key] for key in order], [len(found[key]) for key in order])
    return Dataset(name, class_names, labels, ids, PictureFiles(base.absolute(), ids), split=split,
                   origin="partial" if problems else "full")


def _classes(spec: Folders) -> tuple[list[str], list[str]]:
    """Folder names in label order, and the class names."""
    wnids, names, part = imagenet_classes()
    chosen = part[spec.classes]
    return [str(i) if spec.numbers else wnids[i] for i in chosen], [names[i] for i in chosen]


def _pug_classes(base: Path, folders: list[str]) -> tuple[list[str], list[str]]:
    """The sorted folders, and what classnames.txt beside the variants calls them ("folder name words")."""
    file = base.parent / "classnames.txt"
    if not file.is_file():
        raise FileNotFoundError(f"expected PUG's class names in {str(file)!r}, a line 'folder name words' "
                                "for each class folder; the file is linked from docs/datasets.md of "
                                "github.com/jameelhassan/PromptAlign")
    lines = [line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines()]
    names = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    if nameless := [f for f in folders if f not in names]:
        raise ValueError(f"{str(file)!r} has no name for {some(nameless)}; expected a line "
                         f"'folder name words' for each class folder of {str(base)!r}")
    return folders, [names[f] for f in folders]


def _refuse_others(name: str, base: Path, folders: list[str], label: dict[str, int]):
    """Raise ValueError for folders that are no class of this data set, and for pictures without folders."""
    if not folders and (loose := list_pictures(base)):
        raise ValueError(f"{str(base)!r} holds {len(loose)} pictures without class folders; expected a "
                         f"folder for each class, like {some(list(label), 2)}. Sort them by the list of "
                         "labels that came with the data")
    if unknown := [f for f in folders if f not in label]:
        raise ValueError(f"{str(base)!r} has {len(unknown)} folders that are no class of data set {name!r}: "
                         f"{some(unknown)}; expected names like {some(list(label), 2)}, {len(label)} classes."
                         " Move them away, or put the right data set there")


def _missing(name: str, split: str, found: dict[str, list[str]], keys: list[str]) -> list[str]:
    """In words, what differs from the published data set."""
    spec, problems = FOLDERS[name], []
    wanted, total = PUG_CLASSES if spec.classes == "pug" else len(keys), sum(map(len, found.values()))
    absent, empty = [key for key in keys if key not in found], [key for key in found if not found[key]]
    if len(found) != wanted:
        problems.append(f"{len(found)} class folders, expected {wanted}"
                        + (f" (no {some(absent)})" if absent else ""))
    if empty:
        problems.append(f"{len(empty)} class folders without a picture ({some(empty)})")
    if total != spec.sizes.get(split, total):
        problems.append(f"{total} pictures, expected {spec.sizes[split]}")
    if spec.each and split == "test" and (uneven := [key for key, f in found.items()
                                                     if len(f) not in (0, spec.each)]):
        problems.append(f"{len(uneven)} folders have not the {spec.each} pictures that each should have "
                        f"({some(uneven)})")
    return problems
