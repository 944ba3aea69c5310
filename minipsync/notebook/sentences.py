"""Sentences with numbers that are computed from a run, so that they are true with any parameters.

    say(f"MaPLe is {told(compare(maple, zero_shot))}.", grouped({"tpt": c1, "promptalign": c2}))

A difference here is what `compare` or `resampling.paired` gave, or a row of a stored table of differences: it
has `difference`, `interval` or `low` and `high`, and, if no interval without 0 is enough, a `verdict`.
"""

from collections.abc import Mapping
from typing import Any

from ..evaluation.results import LEVEL, NOT_TOLD_APART, verdict


def points(d: Any) -> str:
    """A difference with its interval, in points of accuracy: "+2.1 (0.3 to 3.9)"."""
    difference, low, high, _ = _parts(d)
    return f"{_signed(difference)} ({_plain(low)} to {_plain(high)})"


def told(d: Any) -> str:
    """What a difference shows of its first method: "better by 2.1 points (0.3 to 3.9)", "worse by …", "level
    …" or "not told apart (+0.4, −1.2 to 2.0)"."""
    difference, low, high, found = _parts(d)
    if found in (NOT_TOLD_APART, LEVEL):
        return f"{found} ({_signed(difference)}, {_plain(low)} to {_plain(high)})"
    low, high = sorted((abs(low), abs(high)))
    return f"{found} by {_plain(abs(difference))} points ({_plain(low)} to {_plain(high)})"


def grouped(differences: Mapping[str, Any]) -> str:
    """All differences by what they show: "Better: a +2.1 (0.3 to 3.9). Not told apart: b …", in Markdown."""
    found: dict[str, list[str]] = {kind: [] for kind in ("better", "worse", LEVEL, NOT_TOLD_APART)}
    for name, d in differences.items():
        found[_parts(d)[3]].append(f"{name} {points(d)}")
    return " ".join(f"**{kind.capitalize()}**: {'; '.join(names)}." for kind, names in found.items() if names)


def say(*sentences: Any) -> Any:
    """Sentences as a paragraph of the notebook: an IPython.display.Markdown."""
    from IPython.display import Markdown

    return Markdown(" ".join(map(str, sentences)))


def _parts(d: Any) -> tuple[float, float, float, str]:
    """Difference, both ends of its interval, verdict."""
    low, high = d.interval if hasattr(d, "interval") else (d.low, d.high)
    return d.difference, low, high, d.verdict if hasattr(d, "verdict") else verdict(low, high)


def _signed(x: float) -> str:
    return f"{100 * x:+.1f}".replace("-", "−")


def _plain(x: float) -> str:
    return f"{100 * x:.1f}".replace("-", "−")
