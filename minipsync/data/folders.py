"""Your own pictures: one folder per class."""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..files.paths import expand
from .content import Place, name_of_own
from .dataset import TEMPLATE, Dataset
from .listing import DEAD, LOOSE, SUFFIXES, LeftOut, is_hidden, list_pictures, tell_left_out
from .names import folder_names, warn_of_empty, warn_of_twins


def folder(path: str | Path, class_names: Sequence[str] | dict[str, str] | None = None,
           templates: Sequence[str] = (TEMPLATE,), name: str | None = None) -> Dataset:
    """The pictures below `path`, one sub-folder per class, as a `Dataset`.

    The label of a picture is its folder's place in the list of folders, sorted as text ("10" before "2").
    Class names are, in this order of preference: `class_names` (a list in that order, or {folder: name}), a
    file `classnames.txt` in `path` with lines "folder name words", else the folders' names with underscores
    as spaces, or ImageNet's names where the folders are called by its WordNet ids. Pictures are read as they
    are stored (EXIF's rotation is not followed), their first frame, transparent parts on white. `name` is
    what tables call the data set; by default the folder's name and six digits of its content.

    A picture is what is called so (`listing.SUFFIXES`), in the class folder or a folder in it, links
    followed; hidden files and folders are passed over. Pictures of other kinds (.heic), without such an
    ending, or beside the class folders are left out with a warning, see `Dataset.left_out`. What cannot be
    read, as a link to nowhere, is found when it is read: `evaluate` counts it in `result.skipped`. A class
    without pictures stays a class, with a warning.

    Raises FileNotFoundError without such a folder, ValueError where it holds no picture at all, and for names
    that do not fit. Warns of names that say nothing to CLIP or that it cannot tell apart.
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
    left_out = [LeftOut(name, LOOSE) for name in loose]
    left_out += [each if each.reason == DEAD else each._replace(reason=LOOSE) for each in beside]
    ids, labels = [], []
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
    data = Dataset(name_of_own(root, name, ids, labels, places), folder_names(root, folders, class_names),
                   labels, ids, None, templates, origin="own", places=places, left_out=left_out)
    tell_left_out(left_out, str(root))
    warn_of_empty(data, str(root))
    warn_of_twins(data.class_names, str(root))
    return data
