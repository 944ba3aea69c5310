"""How many images tell two methods apart? `python -m benchmarks.power A.csv B.csv`.

A and B are record files of two methods on the same images. Of n images, `each` of one class, the difference
of two accuracies has the variance

    d * (1 + (each - 1) * r) / n,

d: share of images that only one of the two got right (the difference is 1 or -1 there, so that its square
is d, up to the square of the mean); r: correlation of these differences within a class, 0 where images are
independent. A two-sided test at 5 % finds a true difference D in 80 % of samples (the power) if D is
1.96 + 0.84 standard errors. The table has the n, and the number of classes, for some D, with as many images
of a class as the records have, and with one.
"""
from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd

from minipsync.report.writers import to_markdown

ERRORS = 1.96 + 0.8416                             # standard errors: 5 % two-sided, power 80 %


def images_needed(difference: float, discordant: float, correlation: float, each: float) -> int:
    """n for a true `difference` (a fraction), as above; correlation is r."""
    return math.ceil(ERRORS**2 * discordant * (1 + (each - 1) * correlation) / difference**2)


def measured(gap: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """(d, r, images of a class) of differences [n] in -1, 0, 1: r by the analysis of variance, 0 or more."""
    _, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    classes, each = len(count), len(gap) / len(count)
    means = np.bincount(code, gap) / count
    within = ((gap - means[code]) ** 2).sum() / max(len(gap) - classes, 1)
    between = (count * (means - gap.mean()) ** 2).sum() / max(classes - 1, 1)
    r = (between - within) / (between + (each - 1) * within) if each > 1 else 0.0
    return float(np.mean(gap != 0)), max(0.0, float(r)), each


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("records", nargs=2, type=Path, help="record files of two methods on the same images")
    p.add_argument("--differences", type=float, nargs="+", default=(1.0, 1.5, 2.0, 3.0), help="in points")
    args = p.parse_args()
    a, b = (pd.read_csv(path, keep_default_na=False).set_index("image") for path in args.records)
    gap = (a["correct"] - b["correct"]).dropna()
    discordant, r, each = measured(gap.to_numpy(), a["label"].reindex(gap.index).to_numpy())
    print(f"n = {len(gap)}, {each:.1f} images of a class; only one is right on {discordant:.1%} of the "
          f"images; correlation within a class {r:.2f}\n")
    rows = [{"difference (points)": points, "images of a class": k, "images": n, "classes": math.ceil(n / k)}
            for points in args.differences for k in (round(each), 1)
            for n in [images_needed(points / 100, discordant, r, k)]]
    print(to_markdown(pd.DataFrame(rows), digits=1))


if __name__ == "__main__":
    main()
