"""Text files that say something on each line."""

import re
from pathlib import Path

from .paths import read_text


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a UTF-8 file without the blank ones at its end. Raises as `read_text`.

    Only line feeds and carriage returns end a line, not the other characters that Python counts as such."""
    lines = read_text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_numbered(path: str | Path) -> list[str]:
    """Return the lines, without spaces around them, of a file in which the number of a line has a meaning.

    The first line may stand for the label 0, the second for 1. Raises ValueError for a blank line in between:
    leaving it out would give all the later lines another number."""
    lines = [line.strip() for line in read_lines(path)]
    if "" in lines:
        at = lines.index("") + 1
        raise ValueError(f"line {at} of {str(path)!r} is blank; the first line is for 0, the second for 1, "
                         "and so on, so that none between may be empty: write what belongs there, or take "
                         "the line out if it stands for nothing")
    return lines


def read_folder_names(file: Path) -> dict[str, tuple[str, int]]:
    """Return {folder: (name, number of the line)} of a file with lines "folder name words".

    Blank lines are skipped. Raises ValueError for a line without a name, and for a folder's second line."""
    names: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(read_lines(file), 1):
        words = re.split(r"[ \t]+", line.strip(), maxsplit=1)
        if words != [""]:
            if len(words) == 1 or words[0] in names:
                raise ValueError(f"line {number} of {str(file)!r} is {line!r}; expected 'folder name', once "
                                 "for each folder")
            names[words[0]] = words[1], number
    return names
