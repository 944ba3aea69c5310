"""The ten transfer sets with CoOp's splits (METHODS 3.1, 3.2).

CoOp's authors drew the pictures for train and val at random, for five of the sets also those for test, and
published the draw as JSON files, {"train": [[path, label, class name], …], "val": …, "test": …}. Everyone
after them takes labels and class names from these files. FGVC Aircraft needs none, and where the test split
is the data set's official one, official.py reads it without the file. Nothing else can be had without it,
since another draw would be another data set.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from ..files.paths import read_text
from . import official
from .checks import find_folder, fingerprint, settle, some
from .content import Place
from .dataset import TEMPLATE, Dataset
from .listing import MISSING, LeftOut, list_files


@dataclass(frozen=True)
class Split:
    """Where a data set lies below the root and what it must hold."""

    folder: str                                    # its folder below the root
    images: tuple[str, ...]                        # folders of pictures below `folder`: CoOp's, then TPT's
    file: str | None                               # CoOp's file in `folder`; None if none is needed
    sizes: tuple[int, int, int]                    # pictures in train, val and test (METHODS 3.1)
    classes: int                                   # number of classes
    names: str                                     # fingerprint of the names, with spaces for underscores
    template: str                                  # CoOp's sentence for zero-shot CLIP
    home: str                                      # who gives the data set out
    # reads the official test split, where that is CoOp's too: folder -> (items, names)
    read_test: Callable[[Path], tuple[official.Items, list[str]]] | None = None


VGG, COOP = "robots.ox.ac.uk/~vgg/data", "DATASETS.md of github.com/KaiyangZhou/CoOp"
SPLITS = {
    "caltech101": Split(
        "caltech-101", ("101_ObjectCategories", "."), "split_zhou_Caltech101.json", (4128, 1649, 2465), 100,
        "32e75ba1ea076239", TEMPLATE, "vision.caltech.edu (Caltech 101)"),
    "oxford_pets": Split(
        "oxford_pets", ("images", "."), "split_zhou_OxfordPets.json", (2944, 736, 3669), 37,
        "325452254a1c260e", "a photo of a {}, a type of pet.", f"{VGG}/pets", official.pets),
    "stanford_cars": Split(
        "stanford_cars", (".",), "split_zhou_StanfordCars.json", (6509, 1635, 8041), 196,
        "2caca90b5c02b65f", TEMPLATE, "ai.stanford.edu/~jkrause/cars", official.cars),
    "oxford_flowers": Split(
        "oxford_flowers", ("jpg",), "split_zhou_OxfordFlowers.json", (4093, 1633, 2463), 102,
        "0d27092c2140383d", "a photo of a {}, a type of flower.", f"{VGG}/flowers/102"),
    "food101": Split(                              # TPT's own list swaps the classes 16 and 17 (METHODS 3.2)
        "food-101", ("images",), "split_zhou_Food101.json", (50_500, 20_200, 30_300), 101,
        "9c0eeb5a368baacb", "a photo of {}, a type of food.", "data.vision.ee.ethz.ch (Food-101)"),
    "fgvc_aircraft": Split(
        "fgvc_aircraft", ("images",), None, (3334, 3333, 3333), 100,
        "e1c9e72060e63d52", "a photo of a {}, a type of aircraft.", f"{VGG}/fgvc-aircraft"),
    "sun397": Split(
        "sun397", ("SUN397", "."), "split_zhou_SUN397.json", (15_880, 3970, 19_850), 397,
        "2c2220ec5edea86f", TEMPLATE, "vision.princeton.edu/projects/2010/SUN", official.sun397),
    "dtd": Split(
        "dtd", ("images",), "split_zhou_DescribableTextures.json", (2820, 1128, 1692), 47,
        "681d23b9cd3c2ede", "{} texture.", f"{VGG}/dtd"),
    "eurosat": Split(
        "eurosat", ("2750", "."), "split_zhou_EuroSAT.json", (13_500, 5400, 8100), 10,
        "bcff3a8022b63397", "a centered satellite photo of {}.", "github.com/phelber/EuroSAT"),
    "ucf101": Split(
        "ucf101", ("UCF-101-midframes", "."), "split_zhou_UCF101.json", (7639, 1898, 3783), 101,
        "911d40df1647f15a", "a photo of a person doing {}.",
        f"{COOP} (the videos' middle frames)", official.ucf101),
}
PARTS = ("train", "val", "test")


def load_split(name: str, split: str, root: Path, partial: bool = False) -> Dataset:
    """Return the data set `name` of `SPLITS` from below `root`; ids are paths below the folder of pictures.

    Raises FileNotFoundError for a missing folder or list, ValueError for a broken list and, unless `partial`,
    for numbers of pictures, class names or files that are not as published.
    """
    spec = SPLITS[name]
    folder = find_folder(root, (spec.folder,), name, spec.home)
    items, names = _items(name, split, folder)
    base, present = _pictures(folder, spec.images, items)
    problems, size = [], spec.sizes[PARTS.index(split)]
    if len(items) != size:
        problems.append(f"its list of {split} has {len(items)} pictures, expected {size}")
    if (len(names), fingerprint(names)) != (spec.classes, spec.names):
        problems.append(f"{len(names)} class names with fingerprint {fingerprint(names)}, expected "
                        f"{spec.classes} with {spec.names}: names or their order differ from CoOp's")
    if gone := [path for path, _ in items if path not in present]:
        problems.append(f"{len(gone)} of {len(items)} pictures of {split} are not in {str(base)!r}: "
                        f"{some(gone)}")
    settle(name, folder, problems, partial and bool(present),
           f"Pictures come from {spec.home}{f', {spec.file} from {COOP}' if spec.file else ''}.")
    left_out = [LeftOut(path, MISSING, label) for path, label in items if path not in present]
    items = [(path, label) for path, label in items if path in present]
    templates = [spec.template] + [TEMPLATE] * (spec.template != TEMPLATE)
    return Dataset(name, names, [label for _, label in items], [path for path, _ in items],
                   None, templates, split, origin="partial" if problems else "full",
                   places=[Place(base / path) for path, _ in items], left_out=left_out)


def _items(name: str, split: str, folder: Path) -> tuple[official.Items, list[str]]:
    """Return what the lists in `folder` say: pictures with their labels, and class names with spaces."""
    spec = SPLITS[name]
    if spec.file is None:
        try:
            items, names = official.aircraft(folder, split)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"expected {str(error.filename)!r}, one of the lists that come with the "
                                    f"pictures from {spec.home}") from None
    elif (folder / spec.file).is_file():
        items, names = read_json(folder / spec.file, split)
    elif split == "test" and spec.read_test:
        try:
            items, names = spec.read_test(folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"expected CoOp's split {str(folder / spec.file)!r}, linked from {COOP}; "
                                    "or the official lists of the test split, of which "
                                    f"{str(error.filename)!r} is missing") from None
        except LookupError as error:
            raise ValueError(f"the lists of {name!r} in {str(folder)!r} are damaged, a line is too short "
                             f"({error}): fetch them again from {spec.home}") from error
    else:
        drawn = "train and val" if spec.read_test else "train, val and test"
        raise FileNotFoundError(
            f"expected CoOp's split {str(folder / spec.file)!r}, linked from {COOP}. Its authors drew "
            f"{drawn} of {name!r} at random and without a seed: another draw would be another data set, with "
            "numbers that cannot be compared"
            + ("; split='test' is the official one and works without the file" if spec.read_test else ""))
    return items, [n.replace("_", " ") for n in names]


def read_json(file: Path, split: str) -> tuple[official.Items, list[str]]:
    """Return one split of a file in CoOp's format, and the class names of all splits in label order.

    Raises ValueError for a file of another format, for paths that lead out of the folder, and for labels with
    two names or none.
    """
    def refuse(what: str) -> NoReturn:
        raise ValueError(f"{str(file)!r} {what}; expected CoOp's format, {{'train': [[path, label, name], …]"
                         ", 'val': …, 'test': …}, labels 0, 1, … with one name each: fetch it again")
    try:
        parts = json.loads(read_text(file))
        rows = {part: [(str(path), int(label), str(name)) for path, label, name in parts[part]]
                for part in PARTS}
    except (ValueError, TypeError, KeyError) as error:             # cut JSON, another shape, no such part
        refuse(f"cannot be read ({type(error).__name__}: {error})")
    names: dict[int, str] = {}
    for path, label, name in (row for part in PARTS for row in rows[part]):
        if names.setdefault(label, name) != name:
            refuse(f"calls label {label} both {names[label]!r} and {name!r}")
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            refuse(f"has the path {path!r}, which leads out of the folder of pictures")
    if sorted(names) != list(range(len(names))):
        refuse(f"has the labels {some(sorted(names), 5)}")
    return [(path, label) for path, label, _ in rows[split]], [names[label] for label in range(len(names))]


def _pictures(folder: Path, places: tuple[str, ...], items: official.Items) -> tuple[Path, set[str]]:
    """Return the first place that holds any of the pictures, else the first of all, and which it holds."""
    split = {path: path.rpartition("/") for path, _ in items}           # path -> (folder, "/", file)
    for place in places:
        listed = {parent: list_files(folder / place / parent) for parent, *_ in split.values()}
        if present := {path for path, (parent, _, file) in split.items() if file in listed[parent]}:
            return folder / place, present
    return folder / places[0], set()
