"""ImageNet, its four variants and PUG-ImageNet: one folder of pictures for each class (METHODS 3.1 to 3.3).

The label follows from what a folder is called, a WordNet id or a number, never from its place in a listing.
As text, "10" comes before "2", and code that numbers ImageNetV2's folders as they are listed scores near 0 %
(METHODS 6.7). Only PUG's labels are the places of its sorted folders, as in PromptAlign. Class names are
those of CLIP's notebook.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files.lines import read_folder_names
from .checks import find_folder, settle, some
from .content import Place
from .dataset import Dataset
from .imagenet_classes import imagenet_classes
from .listing import MISSING, LeftOut, is_hidden, list_pictures, tell_left_out


@dataclass(frozen=True)
class Folders:
    """Where a data set lies below the root and what it must hold."""

    places: dict[str, tuple[str, ...]]             # {split: folders}; the first that exists is taken
    home: str                                      # who gives the data set out
    sizes: dict[str, int] = field(default_factory=dict)    # {split: number of pictures}, where known
    classes: str = "all"                           # all 1000, the 200 of "a" or of "r", or PUG's own: "pug"
    numbers: bool = False                          # are the folders called 0 … 999, not by WordNet ids?
    each: int | None = None                        # test pictures of every class, where all have as many


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


def load_folders(name: str, split: str, root: Path, partial: bool = False) -> Dataset:
    """Return the data set `name` of `FOLDERS` from below `root`; ids are "folder/file".

    Raises FileNotFoundError if it is not there, ValueError for folders that belong to another data set and,
    unless `partial`, for classes or pictures that are missing or too many.
    """
    spec = FOLDERS[name]
    base = find_folder(root, spec.places[split], name, spec.home)
    folders = sorted(f.name for f in base.iterdir() if f.is_dir() and not is_hidden(f.name))
    keys, class_names = _pug_classes(base, folders) if spec.classes == "pug" else _classes(spec)
    label = {key: i for i, key in enumerate(keys)}
    _refuse_others(name, base, folders, label)
    found, left_out = {}, []
    for f in folders:
        found[f], others = list_pictures(base / f)
        left_out += [each._replace(name=f"{f}/{each.name}", label=label[f]) for each in others]
    problems = _missing(name, split, found, keys)
    settle(name, base, problems, partial and any(found.values()),
           f"Unpack it again; it comes from {spec.home}.")
    tell_left_out(left_out, str(base))
    if (number := spec.sizes.get(split, 0) - sum(map(len, found.values()))) > 0:
        left_out.append(LeftOut(f"pictures of {split}", MISSING, number=number))
    order = [key for key in keys if key in found]
    ids = [f"{key}/{picture}" for key in order for picture in found[key]]
    labels = np.repeat([label[key] for key in order], [len(found[key]) for key in order])
    return Dataset(name, class_names, labels, ids, None, split=split,
                   origin="partial" if problems else "full", places=[Place(base / i) for i in ids],
                   left_out=left_out)


def _classes(spec: Folders) -> tuple[list[str], list[str]]:
    """Return the folders' names in the order of the labels, and the class names."""
    wnids, names, part = imagenet_classes()
    chosen = part[spec.classes]
    return [str(i) if spec.numbers else wnids[i] for i in chosen], [names[i] for i in chosen]


def _pug_classes(base: Path, folders: list[str]) -> tuple[list[str], list[str]]:
    """Return the sorted folders, and their class names from classnames.txt beside PUG's variants."""
    file = base.parent / "classnames.txt"
    if not file.is_file():
        raise FileNotFoundError(f"expected PUG's class names in {str(file)!r}, a line 'folder name words' "
                                "for each class folder; the file is linked from docs/datasets.md of "
                                "github.com/jameelhassan/PromptAlign")
    names = {folder: name for folder, (name, _) in read_folder_names(file).items()}
    if nameless := [f for f in folders if f not in names]:
        raise ValueError(f"{str(file)!r} has no name for {some(nameless)}; expected a line "
                         f"'folder name words' for each class folder of {str(base)!r}")
    return folders, [names[f] for f in folders]


def _refuse_others(name: str, base: Path, folders: list[str], label: dict[str, int]) -> None:
    """Raise ValueError for folders that are no class of this data set, and for pictures without folders."""
    if not folders and (loose := list_pictures(base)[0]):
        raise ValueError(f"{str(base)!r} holds {len(loose)} pictures without class folders; expected a "
                         f"folder for each class, like {some(list(label), 2)}. Sort them by the list of "
                         "labels that came with the data")
    if unknown := [f for f in folders if f not in label]:
        raise ValueError(f"{str(base)!r} has {len(unknown)} folders that are no class of data set {name!r}: "
                         f"{some(unknown)}; expected names like {some(list(label), 2)}, {len(label)} classes."
                         " Move them away, or put the right data set there")


def _missing(name: str, split: str, found: dict[str, list[str]], keys: list[str]) -> list[str]:
    """Return in words what differs from the published data set."""
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
