"""The lists that data sets themselves come with: each picture's path and label, and class names as in CoOp.

Each function takes the data set's folder and returns (items, names): (path below the folder of pictures,
label) of every test picture, and the class names in the order of the labels (METHODS 3.2). A list that is not
there raises FileNotFoundError, a picture of a class that is not listed ValueError.
"""

import re
from pathlib import Path

import numpy as np

from ..files.lines import read_lines, read_numbered

Items = list[tuple[str, int]]                      # path below the folder of pictures, label


def aircraft(folder: Path, split: str) -> tuple[Items, list[str]]:
    """FGVC Aircraft, any split: lines "1025794 707-320"; labels are the lines of variants.txt."""
    names = read_numbered(folder / "variants.txt")
    file = folder / f"images_variant_{split}.txt"
    rows = [line.split(" ", 1) for line in _lines(file)]
    return [(f"{row[0]}.jpg", _label(names, row[-1], file)) for row in rows], names


def pets(folder: Path) -> tuple[Items, list[str]]:
    """Oxford-IIIT Pets: lines "Abyssinian_201 1 1 1" of annotations/test.txt hold names and labels."""
    file = folder / "annotations/test.txt"
    rows = [line.split() for line in _lines(file) if not line.startswith("#")]
    names = {int(row[1]) - 1: row[0].rpartition("_")[0].lower() for row in rows}
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"{str(file)!r} has the classes {sorted(names)}, expected 1, 2, … without a gap")
    return [(f"{row[0]}.jpg", int(row[1]) - 1) for row in rows], [names[i] for i in range(len(names))]


def cars(folder: Path) -> tuple[Items, list[str]]:
    """Stanford Cars: two .mat files; "AM General Hummer SUV 2000" becomes "2000 AM General Hummer SUV"."""
    names = [str(name) for name in _mat(folder / "devkit/cars_meta.mat", "class_names")]
    annotations = _mat(folder / "cars_test_annos_withlabels.mat", "annotations")
    items = [(f"cars_test/{row['fname']}", int(row["class"]) - 1) for row in annotations]
    return items, [" ".join([name.split(" ")[-1], *name.split(" ")[:-1]]) for name in names]


def sun397(folder: Path) -> tuple[Items, list[str]]:
    """SUN397, first partition: "/a/apse/indoor/sun_x.jpg" belongs to the class "indoor apse"."""
    keys = read_numbered(folder / "ClassName.txt")
    file = folder / "Testing_01.txt"
    items = [(line[1:], _label(keys, line.rpartition("/")[0], file)) for line in _lines(file)]
    return items, [" ".join(reversed(key.split("/")[2:])) for key in keys]


def ucf101(folder: Path) -> tuple[Items, list[str]]:
    """UCF101, first split: the frame of "HighJump/v_HighJump_g01_c01.avi" lies in the folder High_Jump."""
    lists = folder / "ucfTrainTestlist"
    keys = [line.split()[1] for line in read_numbered(lists / "classInd.txt")]
    names = ["_".join(re.findall("[A-Z][^A-Z]*", key)) for key in keys]
    items = []
    for line in _lines(lists / "testlist01.txt"):
        action, video = line.split()[0].split("/")
        label = _label(keys, action, lists / "testlist01.txt")
        items.append((f"{names[label]}/{video.removesuffix('.avi')}.jpg", label))
    return items, names


def _lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank."""
    return [line.strip() for line in read_lines(file) if line.strip()]


def _label(keys: list[str], key: str, file: Path) -> int:
    """Return the place of `key` among the classes. Raises ValueError if it is none of them."""
    if key not in keys:
        raise ValueError(f"{str(file)!r} has a picture of {key!r}, which is none of the {len(keys)} listed "
                         "classes; the lists belong to different versions or are damaged")
    return keys.index(key)


def _mat(file: Path, key: str) -> np.ndarray:
    """Return an array of a .mat file, flat."""
    from scipy.io import loadmat  # here: slow to import, and needed by one data set
    if not file.is_file():
        raise FileNotFoundError(2, "no such file", str(file))
    try:
        return np.atleast_1d(loadmat(file, squeeze_me=True)[key])
    except Exception as error:                      # scipy raises many kinds of errors for damaged files
        raise ValueError(f"{str(file)!r} cannot be read ({type(error).__name__}: {error}); expected a .mat "
                         f"file with {key!r}: fetch it again") from error
