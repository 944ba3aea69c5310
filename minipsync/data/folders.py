"""Your own pictures: one folder per class."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..files.paths import expand
from .content import Place, of_files
from .dataset import TEMPLATE, Dataset
from .listing import DEAD, LOOSE, SUFFIXES, LeftOut, is_hidden, list_pictures, tell_left_out
from .names import folder_names, warn_of_empty, warn_of_twins


def folder(path: str | Path, class_names: Sequence[str] | dict[str, str] | None = None,
           templates: str | Sequence[str] = (TEMPLATE,), name: str | None = None) -> Dataset:
    """Return the pictures below `path`, which has one sub-folder for each class, as a `Dataset`.

    class_names: a list of names in the order of the sorted folders, or {folder: name}. By default the lines
                 "folder name words" of a file classnames.txt in `path`; without such a file the folders' own
                 names with spaces for underscores, or ImageNet's names if all are WordNet ids.
    templates:   sentences with {} for the class name.
    name:        what tables call the data set; by default the folder's name and six digits of its content.

    The label of a picture is the place of its folder among the folders sorted as text ("10" before "2").
    A file is a picture if its name ends as one (`listing.SUFFIXES`), in the class folder or in a folder
    inside it, links included; hidden files and folders are passed over. Other kinds of pictures (.heic),
    pictures without such an ending and pictures beside the class folders are left out with a warning
    (`Dataset.left_out`). Pictures are taken as they are stored: the rotation in EXIF is not followed, only
    the first frame is read, and transparent parts become white. Whether a picture can be read shows when it
    is read; `evaluate` counts those that cannot, such as links to nowhere, in `result.skipped`. A class
    without pictures stays a class, with a warning.

    Raises FileNotFoundError if there is no such folder, ValueError if it holds no picture and for class names
    that do not fit. Warns of names that say nothing to CLIP and of names that it cannot tell apart.
    """
    root = expand(path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}; expected one with a sub-folder of "
                                "pictures for each class")
    folders = sorted(d.name for d in root.iterdir() if d.is_dir() and not is_hidden(d.name))
    if not folders:
        raise ValueError(f"the folder {str(root)!r} has no sub-folders; expected one for each class, "
                         "holding its pictures")
    loose, beside = list_pictures(root)
    left_out = [LeftOut(picture, LOOSE) for picture in loose]
    left_out += [each if each.reason == DEAD else each._replace(reason=LOOSE) for each in beside]
    ids: list[str] = []
    labels: list[int] = []
    for label, each in enumerate(folders):
        found, others = list_pictures(root / each, deep=True)
        if found and all("/" in picture for picture in found):
            warnings.warn(f"the class folder {each!r} in {str(root)!r} has pictures in its sub-folders only; "
                          "if those are the classes, name this folder instead", stacklevel=2)
        ids += [f"{each}/{picture}" for picture in found]
        labels += [label] * len(found)
        left_out += [other._replace(name=f"{each}/{other.name}", label=label) for other in others]
    if not ids:
        raise ValueError(f"none of the {len(folders)} class folders in {str(root)!r} holds a picture "
                         f"({', '.join(SUFFIXES)}); add some")
    if odd := [i for i in ids if i.encode(errors="replace").decode() != i or {"\n", "\r"} & {*i}]:
        raise ValueError(f"the file name {odd[0]!r} in {str(root)!r} cannot be kept in records; rename it")
    places = [Place(root.absolute() / i) for i in ids]
    names = folder_names(root, folders, class_names)
    return own_dataset(name, root, names, labels, ids, places, templates, left_out, str(root))


def own_dataset(name: str | None, home: Path, class_names: Sequence[str], labels: Sequence[int],
                ids: Sequence[str], places: Sequence[Place], templates: str | Sequence[str],
                left_out: list[LeftOut], where: str) -> Dataset:
    """Return a user's own pictures as a `Dataset`, and warn of what may be wrong with them.

    Without a name it gets that of the folder `home` and six digits of its content, which tell two folders
    apart that are both called "test". `where` is what the warnings call it.
    Raises ValueError for an empty name.
    """
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ValueError(f"name={name!r}: expected a word or two that stand for the data set in tables")
    name = name.strip() if name else f"{home.resolve().name}-{of_files(ids, labels, places)[:6]}"
    data = Dataset(name, class_names, labels, ids, None, templates, origin="own", places=places,
                   left_out=left_out)
    tell_left_out(left_out, where, stacklevel=4)
    warn_of_empty(data, where, stacklevel=4)
    warn_of_twins(data.class_names, where, stacklevel=4)
    return data
