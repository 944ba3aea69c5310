"""Sentences with numbers that are computed from a run, so that they are true with any parameters.

    say(f"MaPLe is {told(compare(maple, zero_shot))}.", grouped({"tpt": c1, "promptalign": c2}))
"""

from collections.abc import Mapping
from typing import Any

from IPython.display import Markdown

from ..evaluation.results import LEVEL, NOT_TOLD_APART, Comparison


def points(c: Comparison) -> str:
    """A difference with its interval, in points of accuracy: "+2.1 (0.3 to 3.9)"."""
    low, high = c.interval
    return f"{_signed(c.difference)} ({_plain(low)} to {_plain(high)})"


def told(c: Comparison) -> str:
    """What a comparison shows of its first method: "better by 2.1 points (0.3 to 3.9)", "worse by …", "level
    …" or "not told apart (+0.4, −1.2 to 2.0)"."""
    low, high = sorted((abs(c.interval[0]), abs(c.interval[1])))
    if c.verdict in (NOT_TOLD_APART, LEVEL):
        return f"{c.verdict} ({_signed(c.difference)}, {_plain(c.interval[0])} to {_plain(c.interval[1])})"
    return f"{c.verdict} by {_plain(abs(c.difference))} points ({_plain(low)} to {_plain(high)})"


def grouped(comparisons: Mapping[str, Comparison]) -> str:
    """All comparisons by what they show: "**Better**: a +2.1 (0.3 to 3.9). **Not told apart**: b …"."""
    found: dict[str, list[str]] = {verdict: [] for verdict in ("better", "worse", LEVEL, NOT_TOLD_APART)}
    for name, c in comparisons.items():
        found[c.verdict].append(f"{name} {points(c)}")
    return " ".join(f"**{verdict.capitalize()}**: {'; '.join(names)}." for verdict, names in found.items()
                    if names)


def say(*sentences: Any) -> Markdown:
    """Sentences as a paragraph of the notebook."""
    return Markdown(" ".join(map(str, sentences)))


def _signed(x: float) -> str:
    return f"{100 * x:+.1f}".replace("-", "−")


def _plain(x: float) -> str:
    return f"{100 * x:.1f}".replace("-", "−")
