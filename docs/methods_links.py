"""Sections of METHODS.md by their numbers, and the places elsewhere that name them ("METHODS 6, point 11").

METHODS.md is written to be read as plain text: its headings have numbers, and so have the points below some
of them. Here they get anchors and become paragraphs, and what names them is found, to become a link.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEADING = re.compile(r"(?P<marks>#{2,4} )(?P<key>\d+(?:\.\d+)*)\.? (?P<rest>.*)")
_SECTION = re.compile(r"(?P<key>\d+(?:\.\d+)+) (?P<rest>\S.*)")            # "5.9.2 Formulation …", no heading
_POINT = re.compile(r" {0,1}(?P<key>\d{1,2}|[a-z]) (?P<rest>\S.*)")           # " 6 Duplicate …", " d Eval: …"
_LIST = re.compile(r"[-*] ")

# one place: "5.9.2", "7d", "7, d", "6.11", "6, point 11", "6, points 1 and 2"
_NUMBER = r"\d+(?:\.\d+)*"
_POINTS = r",\s+points?\s+\d+(?:(?:,\s+|\s+and\s+|\s+to\s+)\d+)*|,\s+[a-z](?=[).;,]|$)|[a-z]\b"
_PLACE = rf"{_NUMBER}\b(?:{_POINTS})?|{_NUMBER}[a-z]\b"
# between two places; a comment goes on behind the # of the next line
_GAP = r"\s+(?:#\s+)?"
_MORE = rf"(?:,{_GAP}and{_GAP}|[,;]{_GAP}|{_GAP}and{_GAP}|{_GAP}to{_GAP})"
_MENTION = re.compile(rf"METHODS(?:\.md)?`?(?:\]\([^)]*\))?,?{_GAP}(?:section{_GAP})?"
                      rf"(?P<places>(?:{_PLACE})(?:{_MORE}(?:{_PLACE}))*)")
_LATER = re.compile(r"\((?P<places>\d+\.\d+\.\d+)\)")                  # "METHODS has …, the choices (5.9.4)"


class Mention(NamedTuple):
    """Where a text names sections: text[start:end] stands for `keys` (for two points, "6.1" and "6.2")."""

    start: int
    end: int
    keys: tuple[str, ...]


def anchor(key: str) -> str:
    """The anchor of a section or point: "5.9.2" -> "section-5-9-2"."""
    return "section-" + key.replace(".", "-")


def sections(text: str) -> list[str]:
    """Numbers of all sections and points of METHODS.md, "5.9.2" and "6.11" and "7.d", in their order."""
    return [key for key, *_ in _parts(text) if key]


def with_anchors(text: str) -> str:
    """METHODS.md with an anchor before every section and point, points as paragraphs, formulas on lines."""
    lines, in_list = [], False
    parts = list(_parts(text))
    for (key, shown, line), (next_key, _, following) in zip(parts, [*parts[1:], ("", "", "")], strict=True):
        if key:
            lines += ["", f"({anchor(key)})=", shown]
            in_list = False
        else:
            lines.append(shown)
            in_list = bool(_LIST.match(line)) or in_list and line.startswith(" ")
        titled = key and _SECTION.fullmatch(line) and not following.startswith(" ")
        if titled or line.startswith("|") and not following.startswith("|"):
            lines.append("")                                                  # a title and a table end here
        elif line.strip() and following.strip() and not next_key and not in_list \
                and (_is_formula(line) or _is_formula(following)):
            lines[-1] += "\\"                                             # the line ends here when shown, too
    return "\n".join(lines) + "\n"


def mentions(text: str, later: bool = False) -> Iterator[Mention]:
    """Every place in a text that names sections of METHODS, in order; one mention for each part of a list.

    later: also count "(5.9.4)" in a text that mentions METHODS somewhere.
    """
    for found in _MENTION.finditer(text):
        start = found.start("places")
        for place in re.finditer(_PLACE, found["places"]):
            number, *points = re.findall(rf"{_NUMBER}|\b[a-z]\b|(?<=\d)[a-z]\b", place[0])
            keys = tuple(f"{number}.{point}" for point in points) or (number,)
            yield Mention(start + place.start(), start + place.end(), keys)
    if later and "METHODS" in text:
        for found in _LATER.finditer(text):
            yield Mention(found.start("places"), found.end("places"), (found["places"],))


def _parts(text: str) -> Iterator[tuple[str, str, str]]:
    """(key or "", the line as it is to be shown, the line) of every line of METHODS.md."""
    section, previous = "", ""
    for line in text.splitlines():
        if found := _HEADING.fullmatch(line):
            section, previous = found["key"], ""
            yield section, line, line
        elif (found := _SECTION.fullmatch(line)) and found["key"].startswith(section.split(".")[0] + "."):
            section, previous = found["key"], ""
            yield section, f"**{section}** {found['rest']}", line
        elif (found := _POINT.fullmatch(line)) and section and found["key"] in _next(previous):
            previous = found["key"]
            yield f"{section}.{previous}", f"**{previous}** {found['rest']}", line
        else:
            yield "", line, line


def _next(previous: str) -> tuple[str, ...]:
    """What the point after `previous` is called; the first is 1 or a."""
    if not previous:
        return "1", "a"
    return (str(int(previous) + 1),) if previous.isdigit() else (chr(ord(previous) + 1),)


def _is_formula(line: str) -> bool:
    return bool(re.match(r"  \S.*=", line))
