"""Class names: where a folder's names come from, and warnings where CLIP can make nothing of them.

CLIP sees a name as tokens, in lower case, with spaces, entities and accents cleaned up. Two names that become
the same tokens cannot be told apart, and a number or an identifier says nothing.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files.lines import read_folder_names
from .checks import some
from .imagenet_classes import imagenet_classes

WORDNET = re.compile(r"n\d{8}")
NUMBERED = re.compile(r"(?:\d+|n\d{8})[\W_]+.*[^\W\d_]")     # "001.Black_footed_Albatross"


# ---- any class names ---------------------------------------------------------------------------------
def check_class_names(names: Any) -> list[str]:
    """Return the names as a list. Raises TypeError for no list, ValueError for an entry that is no name."""
    if isinstance(names, (str, Mapping, set, frozenset)) or not hasattr(names, "__iter__"):
        order = ", whose order says the labels" * isinstance(names, (Mapping, set, frozenset))
        raise TypeError(f"class_names={names!r} is a {type(names).__name__}; expected a list of "
                        f"strings{order}")
    names = list(names)
    if not names:
        raise ValueError("class_names is empty; expected at least one name")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.replace("_", " ").strip():
            raise ValueError(f"class_names[{i}]={name!r}; expected a non-empty string")
    return names


def warn_of_twins(names: Sequence[str], where: str = "", stacklevel: int = 3) -> None:
    """Warn of names that become the same text for CLIP: pictures of the second class then count as wrong."""
    import open_clip  # here, so that pictures can be had without torch models
    rows = open_clip.tokenize([name.replace("_", " ").strip() for name in names], context_length=256).tolist()
    texts: dict[tuple, list[str]] = {}
    for name, ids in zip(names, rows, strict=True):          # CLIP reads to the first end token, the top id
        texts.setdefault(tuple(ids[:ids.index(max(ids))]), []).append(name)
    if twins := [same for same in texts.values() if len(same) > 1]:
        said = "; ".join(" and ".join(map(repr, same)) for same in twins[:3])
        of = f" of {where!r}" * bool(where)
        warnings.warn(f"CLIP cannot tell some classes{of} apart: their names are one text to it, in lower "
                      f"case: {said}{'; …' * (len(twins) > 3)}. Give them names of their own, or one is "
                      "taken for the other", stacklevel=stacklevel)


def warn_of_no_words(names: Sequence[str], where: str, mend: str, stacklevel: int = 3) -> None:
    """Warn of class names that say nothing to CLIP: numbers, identifiers, one word with a number each."""
    if not names:
        return
    bare = [name for name in names if WORDNET.fullmatch(name) or name.isdecimal()]
    stems = {re.sub(r"\d+", "", name).casefold() for name in names}
    alike = len(names) > 1 and len(stems) == 1               # "class_0", "class_1", …
    if alike or all(map(_is_wordless, names)):
        bare = list(names)
    if bare:
        told = f"{some(bare)} are numbers or identifiers"
    elif all(map(NUMBERED.match, names)):
        told = f"{some(names)} begin with a number, which CLIP reads as part of the name"
    else:
        return
    by_number = sorted(names, key=_number_parts)
    text = f" Labels follow the names sorted as text: {some(names, 4)}" * (list(names) != by_number)
    warnings.warn(f"class names of {where!r}: {told}, and to CLIP a class is what its name says. {mend}."
                  f"{text}", stacklevel=stacklevel)


def _is_wordless(name: str) -> bool:
    """Has the name digits and no letter?"""
    return any(c.isdigit() for c in name) and not any(c.isalpha() for c in name)


def _number_parts(name: str) -> list:
    """Return a key that sorts "class 10" behind "class 2"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def empty_classes(data: Any) -> list[str]:
    """Return the names of the classes of which a data set has no picture."""
    counts = np.bincount(np.asarray(data.labels, dtype=np.int64), minlength=len(data.class_names))
    return [name for name, n in zip(data.class_names, counts, strict=True) if not n]


def warn_of_empty(data: Any, where: str, stacklevel: int = 3) -> None:
    """Warn of classes without a picture: pictures of other classes can still be taken for them."""
    if empty := empty_classes(data):
        warnings.warn(f"{len(empty)} of the {len(data.class_names)} classes of {where!r} have no picture: "
                      f"{some(empty)}. They stay classes that can be predicted", stacklevel=stacklevel)


# ---- those of a folder of class folders --------------------------------------------------------------
def folder_names(root: Path, folders: list[str], given: Any) -> list[str]:
    """Return the class names of `folders`: those given, else those of classnames.txt, else the folders' own.

    given: a list in the order of `folders`, a dict {folder: name}, or None.
    Raises TypeError and ValueError for names that do not fit the folders."""
    listed = root / "classnames.txt"
    if given is None and listed.is_file():
        given = _names_in_file(listed, folders)
    if given is None:
        return _names_of_folders(root, folders)
    if isinstance(given, Mapping):
        if missing := [f for f in folders if f not in given]:
            raise ValueError(f"no class name for the folder{'s' * (len(missing) > 1)} "
                             f"{', '.join(missing[:5])} of {str(root)!r}; expected a line 'folder name' "
                             "for each")
        if unused := [f for f in given if f not in folders]:
            warnings.warn(f"class_names has {some(unused)}, and {str(root)!r} has no such folder: it is no "
                          "class here. An empty folder keeps a class without pictures", stacklevel=3)
        names = check_class_names([given[f] for f in folders])
    else:
        names = check_class_names(given)
        _warn_of_order(root, folders, names)
    if len(names) != len(folders):
        raise ValueError(f"{len(names)} class names for {len(folders)} folders in {str(root)!r}; expected "
                         "one for each folder, in sorted order")
    return [name.strip() for name in names]


def _warn_of_order(root: Path, folders: list[str], names: list[str]) -> None:
    """Warn of a list of names for folders 0, 1, … whose order as text is not that of the numbers."""
    if not all(map(str.isdecimal, folders)) or len(names) != len(folders):
        return
    numbers = sorted(map(int, folders))
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))) != list(map(int, folders)):
        pairs = [f"{folder!r} is {name!r}" for folder, name in zip(folders, names, strict=True)]
        warnings.warn(f"the folders of {str(root)!r} are numbers, and class_names is taken in the order of "
                      f"the folders sorted as text: {', '.join(pairs[:3])}, …. Say class_names="
                      "{folder: name} to be sure", stacklevel=4)


def _names_in_file(file: Path, folders: list[str]) -> dict[str, str]:
    """Return {folder: name} of classnames.txt. Raises ValueError for a line of no folder that is there."""
    names = read_folder_names(file)
    for folder, (name, number) in names.items():
        if folder not in folders:
            raise ValueError(f"line {number} of {str(file)!r} is '{folder} {name}'; expected 'folder name', "
                             f"once for each of the {len(folders)} folders ({', '.join(folders[:3])}, …). An "
                             "empty folder keeps a class without pictures")
    return {folder: name for folder, (name, _) in names.items()}


def _names_of_folders(root: Path, folders: list[str]) -> list[str]:
    """Return the folders' own names with spaces for underscores, or ImageNet's names for its WordNet ids."""
    if all(map(WORDNET.fullmatch, folders)):
        wnids, words, _ = imagenet_classes()
        known = dict(zip(wnids, words, strict=True))
        if known.keys() >= set(folders):
            warnings.warn(f"the class folders of {str(root)!r} are WordNet ids: they got ImageNet's class "
                          f"names ({folders[0]} is {known[folders[0]]!r}). Say class_names or write "
                          "classnames.txt for others", stacklevel=4)
            return [known[folder] for folder in folders]
    warn_of_no_words(folders, str(root), f"Give class_names={{{folders[0]!r}: 'its name', …}}, or a file "
                     "classnames.txt with lines 'folder name'", stacklevel=5)
    return [folder.replace("_", " ").strip() for folder in folders]
