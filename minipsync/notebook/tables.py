"""What a notebook has measured, as tables: each method by itself, and methods in pairs on the same images.

    results = {"zero_shot": mp.evaluate(…), "tpt": mp.evaluate(…)}
    measured(results)                                    # accuracy, interval, n, calibration error, time
    in_pairs(results, [("tpt", "zero_shot")])            # difference, wins, losses, verdict
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from ..evaluation.results import Result, compare
from .sentences import points


def measured(results: Mapping[str, Result]) -> pd.DataFrame:
    """A line of text for each method: accuracy and calibration error in percent, time in ms per image."""
    lines = [{"method": name, "accuracy, %": f"{100 * r.accuracy:.1f}",
              "95 % interval": " to ".join(f"{100 * end:.1f}" for end in r.interval), "n": r.n,
              "ECE, %": f"{100 * r.ece:.1f}", "ms per image": f"{1000 * r.seconds_per_image:.0f}"}
             for name, r in results.items()]
    return pd.DataFrame(lines).set_index("method")


def in_pairs(results: Mapping[str, Result], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """A line of text for each pair (a, b) that was measured: a minus b in points, and what it shows.

    A win is an image that only a gets right, a loss one that only b does. Pairs with a method that `results`
    lacks are left out; ValueError if that leaves none."""
    known = [pair for pair in pairs if set(pair) <= set(results)]
    if not known:
        raise ValueError(f"pairs={list(pairs)}: expected some of which both were measured; there are "
                         f"{', '.join(results) or 'no results'}")
    found = {f"{a} − {b}": compare(results[a], results[b]) for a, b in known}
    return pd.DataFrame([{"": name, "points (95 % interval)": points(c), "wins": c.wins, "losses": c.losses,
                          "verdict": c.verdict} for name, c in found.items()]).set_index("")
