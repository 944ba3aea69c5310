"""Figures of the notebooks.

Every function returns a matplotlib Figure that pyplot no longer shows by itself: as the last line of a cell
it appears once, and `figure.savefig("name.png")` keeps it.

Images are PIL images, arrays [H, W, 3] (0..1 or 0..255) or tensors [3, H, W] with values 0..1 (as
clip.denormalize gives). Colours are seaborn's colour-blind-safe palette, and no figure tells anything by
colour alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluation.results import Result
from . import drawing as draw
from .drawing import BLUE, BROWN, GREEN, GREY, ORANGE, PURPLE, RED, SKY, STYLE, Numbers, Picture

__all__ = ["BLUE", "BROWN", "GREEN", "GREY", "ORANGE", "PURPLE", "RED", "SKY", "STYLE", "accuracy_bars",
           "class_probabilities", "contact_sheet", "forest", "gains", "prototype_distances", "prototype_map",
           "reliability", "view_grid"]


def accuracy_bars(results: Sequence[Result] | pd.DataFrame, title: str = "", chance: float | None = None
                  ) -> Figure:
    """Accuracy with 95 % intervals, one bar a line.

    results: `Result`s, or a DataFrame with columns method, accuracy, low, high (fractions) and n; with a
             column dataset, each data set gets a panel
    chance:  a fraction to mark, such as 1 / classes"""
    table = results
    if not isinstance(table, pd.DataFrame):
        table = pd.DataFrame([result.row() for result in results])
    draw.check_columns("accuracy_bars", table, "method", "accuracy", "low", "high", "n")
    groups = list(table.groupby("dataset", sort=False)) if "dataset" in table else [("", table)]
    lines = max(len(group) for _, group in groups)
    with plt.rc_context(STYLE):
        size = (5.2 * len(groups) + 1.3, 0.42 * lines + 1.3)
        figure, axes = draw.new_figure(1, len(groups), size, sharex=True)
        for axis, (dataset, group) in zip(axes[0], groups, strict=True):
            _bars(axis, group, chance)
            few, many = group["n"].min(), group["n"].max()
            n = f"n = {few}" if few == many else f"n = {few} to {many}"
            axis.set_title(", ".join(filter(None, [title, f"{dataset}, {n}"])))
    return figure


def _bars(axis: Axes, group: pd.DataFrame, chance: float | None) -> None:
    value, low, high = draw.in_percent(group, "accuracy")
    y = np.arange(len(group))
    axis.barh(y, value, height=0.66, color=BLUE, alpha=0.85)
    axis.errorbar(value, y, xerr=[value - low, high - value], fmt="none", color="black", capsize=3)
    for position, number, end in zip(y, value, high, strict=True):
        axis.text(float(end) + 1.5, float(position), f"{number:.1f}", va="center")
    if chance is not None:
        axis.axvline(100 * chance, color=RED, linestyle="--", linewidth=1.2)
        axis.text(100 * chance + 0.5, -0.62, "chance", color=RED, va="center", fontsize=9)
    draw.name_lines(axis, group["method"], -0.55 if chance is None else -0.85, grid=False)
    axis.set(xlim=(0, max(high.max() + 12, 20)), xlabel="accuracy in %, with 95 % interval")


def view_grid(views: Sequence[Picture] | Tensor, entropies: Numbers | None = None, selected: Numbers = (),
              columns: int = 8, title: str = "") -> Figure:
    """The views of one image; the selected ones are framed and marked, the entropy (nats) is written below.

    views: V images; entropies: V numbers or None; selected: positions of the views that are kept."""
    below = None if entropies is None else draw.as_numbers(entropies)
    chosen = {int(i) for i in draw.as_numbers(selected)}
    count = len(views) if below is None else len(below)
    if not len(views) or count != len(views) or not chosen <= set(range(count)):
        raise ValueError(f"view_grid: {len(views)} views, {count} entropies and selected={sorted(chosen)} do "
                         "not belong together")
    columns = min(columns, len(views))
    rows, height = math.ceil(len(views) / columns), 0.82 if below is None else 1.0
    with plt.rc_context(STYLE):
        figure, axes = draw.new_figure(rows, columns, (0.8 * columns, height * rows + 0.4))
        for i, axis in enumerate(axes.flat):
            if i >= len(views):
                axis.set_visible(False)
                continue
            draw.show_picture(axis, views[i], frame=i in chosen)
            if below is not None:
                axis.set_xlabel(f"{'✓ ' if i in chosen else ''}{below[i]:.2f}", labelpad=2, fontsize=8.5,
                                fontweight="bold" if i in chosen else "normal")
        figure.suptitle(title or "views" + (": entropy in nats" if below is not None else "")
                        + (f", ✓ = the {len(chosen)} selected" if chosen else ""), fontsize=11)
    return figure


def class_probabilities(before: Numbers, after: Numbers, class_names: Sequence[str], label: int | None = None,
                        k: int = 8, title: str = "") -> Figure:
    """Class probabilities of one image before and after adaptation: the k classes that either puts first.

    before, after: C numbers that add up to 1; label: the true class, marked with an asterisk."""
    before, after = draw.as_numbers(before), draw.as_numbers(after)
    draw.check_lengths("class_probabilities", before=before, after=after, class_names=class_names)
    shown = draw.pick_classes(-np.maximum(before, after), -after, label, k)
    y = np.arange(len(shown))
    with plt.rc_context(STYLE):
        figure, [[axis]] = draw.new_figure(1, 1, (6.4, 0.46 * len(shown) + 1.3))
        for offset, values, colour, name, hatch in ((-0.19, before, GREY, "before", ""),
                                                    (0.19, after, BLUE, "after", "//")):
            axis.barh(y + offset, 100 * values[shown], height=0.36, color=colour, label=name, hatch=hatch,
                      edgecolor="white")
            for position, value in zip(y + offset, 100 * values[shown], strict=True):
                axis.text(value + 1, position, f"{value:.1f}", va="center", fontsize=8.5)
        draw.name_classes(axis, class_names, shown, label, title or "class probabilities", -0.5, grid=False)
        axis.set(xlabel="probability in %", xlim=(0, 110 * max(before.max(), after.max()) + 4))
        axis.legend(loc="lower right")
    return figure


def prototype_distances(before: Numbers, after: Numbers, class_names: Sequence[str], label: int | None = None,
                        k: int = 10, quantity: str = "distance to the class prototype", title: str = ""
                        ) -> Figure:
    """How far one image is from the class prototypes before and after adaptation: the k nearest classes.

    before, after: C distances; an arrow goes from one to the other. label: the true class, marked with an
    asterisk and always shown."""
    before, after = draw.as_numbers(before), draw.as_numbers(after)
    draw.check_lengths("prototype_distances", before=before, after=after, class_names=class_names)
    shown = draw.pick_classes(np.minimum(before, after), before, label, k)
    y = np.arange(len(shown))
    with plt.rc_context(STYLE):
        figure, [[axis]] = draw.new_figure(1, 1, (6.4, 0.36 * len(shown) + 1.3))
        for position, c in zip(y, shown, strict=True):
            axis.annotate("", (after[c], position), (before[c], position),
                          arrowprops={"arrowstyle": "->", "color": "0.35", "shrinkA": 3, "shrinkB": 3})
        axis.scatter(before[shown], y, color=GREY, marker="o", s=42, label="before", zorder=3)
        axis.scatter(after[shown], y, color=BLUE, marker="D", s=42, label="after", zorder=3)
        draw.name_classes(axis, class_names, shown, label, title or quantity, -0.6)
        axis.set_xlabel(quantity)
        axis.margins(x=0.08)
        axis.legend(**draw.BESIDE)
    return figure


def prototype_map(prototypes: Tensor, features: Tensor, labels: Numbers, class_names: Sequence[str],
                  images_are: str = "", title: str = "") -> Figure:
    """Class prototypes (stars) and image features in the plane that spreads the prototypes most (PCA).

    prototypes: [K, D], K at least 3; features: [N, D]; labels: N numbers 0 … K - 1; class_names: K names.
    A line joins each image with the prototype of its class. images_are: title of the legend."""
    centres, points = (np.asarray(x.detach().float().cpu()) for x in (prototypes, features))
    labels = draw.as_numbers(labels).astype(int)
    draw.check_lengths("prototype_map", prototypes=centres, class_names=class_names)
    draw.check_lengths("prototype_map", features=points, labels=labels)
    middle = centres.mean(0)
    plane = np.linalg.svd(centres - middle, full_matrices=False)[2][:2].T                # [D, 2]
    centres, points = (centres - middle) @ plane, (points - middle) @ plane
    with plt.rc_context(STYLE):
        figure, [[axis]] = draw.new_figure(1, 1, (7.6, 4.4))
        for k, (name, colour) in enumerate(zip(class_names, draw.PALETTE * len(class_names), strict=False)):
            own, marker = points[labels == k], draw.MARKERS[k % len(draw.MARKERS)]
            for point in own:
                axis.plot(*zip(centres[k], point, strict=True), color=colour, linewidth=0.8, alpha=0.5)
            axis.scatter(*own.T, color=colour, marker=marker, s=30, zorder=3, label=name)
            axis.scatter(*centres[k], color=colour, marker="*", s=260, edgecolor="black", zorder=6)
            axis.annotate(name, centres[k], (0, 9), textcoords="offset points", ha="center", va="bottom",
                          fontsize=9, zorder=5, bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5})
        axis.scatter([], [], color="0.6", edgecolor="black", marker="*", s=160, label="class prototype")
        axis.set(xlabel="first principal axis of the prototypes", ylabel="second principal axis", title=title)
        axis.margins(0.1)
        axis.legend(title=images_are or None, alignment="left", **draw.BESIDE)
    return figure


def gains(table: pd.DataFrame, title: str = "", reference: str = "zero-shot") -> Figure:
    """Differences to a reference, with 95 % intervals, on base and on novel classes.

    table: columns panel, line (a panel for each of the first, in it a line for each of the second), classes
           ("base" or "novel"), difference, low and high (fractions)"""
    draw.check_columns("gains", table, "panel", "line", "classes", "difference", "low", "high")
    panels, lines = table["panel"].unique(), list(table["line"].unique())
    with plt.rc_context(STYLE):
        size = (3.0 * len(panels) + 1.6, 0.44 * len(lines) + 1.4)
        figure, axes = draw.new_figure(1, len(panels), size, sharex=True, sharey=True)
        for axis, panel in zip(axes[0], panels, strict=True):
            for classes, colour, marker, shift in (("base", BLUE, "o", -0.14), ("novel", ORANGE, "D", 0.14)):
                part = table[(table["panel"] == panel) & (table["classes"] == classes)]
                value, low, high = draw.in_percent(part, "difference")
                axis.errorbar(value, [lines.index(line) + shift for line in part["line"]],
                              xerr=[value - low, high - value], color=colour, marker=marker, markersize=5,
                              linestyle="none", capsize=2.5, label=f"{classes} classes")
            axis.axvline(0, color="0.3", linewidth=1)
            draw.name_lines(axis, lines, -0.5, grid=False)
            axis.set(title=panel, xlabel=f"points over {reference}")
        axes[0, -1].legend(**draw.BESIDE)
        figure.suptitle(title, fontsize=11)
    return figure


def forest(table: pd.DataFrame, title: str) -> Figure:
    """Differences to a reference, with 95 % intervals: filled where told apart, open where not.

    table: columns panel, line (a panel for each of the first, in it a line for each of the second), n,
           difference, low and high (fractions), and verdict ("better" and "worse" are told apart)"""
    draw.check_columns("forest", table, "panel", "line", "n", "difference", "low", "high", "verdict")
    panels, lines = table["panel"].unique(), list(table["line"].unique())
    with plt.rc_context(STYLE):
        size = (1.7 * len(panels) + 2.6, 0.26 * len(lines) + 1.5)
        figure, axes = draw.new_figure(1, len(panels), size, sharex=True, sharey=True)
        for axis, panel in zip(axes[0], panels, strict=True):
            part = table[table["panel"] == panel]
            value, low, high = draw.in_percent(part, "difference")
            for y, x, left, right, found in zip(map(lines.index, part["line"]), value, low, high,
                                                part["verdict"], strict=True):
                axis.plot([left, right], [y, y], color=BLUE)
                axis.plot(x, y, "o", color=BLUE,
                          markerfacecolor=BLUE if found in ("better", "worse") else "white")
            axis.axvline(0, color="black", linewidth=1)
            draw.name_lines(axis, lines, -0.5)
            axis.set(title=panel, xlabel=f"points\nn = {part['n'].max():,}")
        figure.suptitle(title, fontsize=11)
    return figure


def reliability(results: Result | Sequence[Result], bins: int = 15, title: str = "") -> Figure:
    """Is a confidence of 80 % right 80 % of the time?

    One panel per `Result`: accuracy in each bin of confidence (bar) against the diagonal, and below it how
    many images fall into the bin."""
    panels = [results] if isinstance(results, Result) else list(results)
    edges = np.linspace(0, 1, bins + 1)
    with plt.rc_context(STYLE):
        figure, axes = draw.new_figure(2, len(panels), (3.7 * len(panels) + 0.5, 4.5), sharex=True,
                                       sharey="row", height_ratios=[3, 1])
        for (top, bottom), result in zip(axes.T, panels, strict=True):
            rows = result.records
            # the rule of the ECE: a bin holds its lower edge, the last one 1 too
            place = np.clip(np.digitize(rows["confidence"], edges) - 1, 0, bins - 1)
            count = np.bincount(place, minlength=bins)
            right = np.bincount(place, weights=rows["correct"], minlength=bins) / np.maximum(count, 1)
            middle, width = 100 * (edges[:-1] + edges[1:]) / 2, 100 / bins
            top.bar(middle, 100 * right, width=width * 0.92, color=BLUE, alpha=0.85)
            top.plot([0, 100], [0, 100], color=RED, linestyle="--", label="perfectly calibrated")
            top.set(xlim=(0, 100), ylim=(0, 100), aspect="auto",
                    title=f"{result.method}, {result.dataset}\nECE {100 * result.ece:.1f} %, n = {result.n}")
            bottom.bar(middle, count, width=width * 0.92, color=GREY)
            bottom.set(xlabel="confidence in %")
        axes[0, 0].set_ylabel("accuracy in %")
        axes[1, 0].set_ylabel("images")
        axes[0, 0].legend(loc="upper left", fontsize=9)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def contact_sheet(images: Sequence[Sequence[Picture | None]], row_names: Sequence[Any],
                  column_names: Sequence[Any], title: str = "", size: float = 0.9) -> Figure:
    """Images in rows and columns with their names; None leaves a gap.

    images: a list of rows, each a list of images; size: inches per image."""
    if len(images) != len(row_names) or any(len(row) != len(column_names) for row in images):
        raise ValueError(f"contact_sheet: {len(row_names)} row names and {len(column_names)} column names do "
                         f"not fit {len(images)} rows of {sorted({len(row) for row in images})} images")
    margin = 0.09 * max(len(str(name)) for name in row_names) + 0.2
    lengths = [len(str(name)) for name in column_names]
    slope = 30 if max(lengths) * 0.085 > size else 0
    width, height = size * len(lengths) + margin, size * len(images) + (0.9 if title else 0.6)
    beyond = 0.0
    if slope:           # a sloping name begins above the middle of its column; the last ones may stick out
        beyond = max(0.0, *(0.066 * n - size * (len(lengths) - c - 0.5) for c, n in enumerate(lengths)))
        height += 0.034 * max(lengths)
    with plt.rc_context(STYLE):
        figure, axes = draw.new_figure(len(images), len(lengths), (width + beyond, height))
        figure.set_layout_engine("constrained", rect=(0, 0, width / (width + beyond), 1))
        for axis, image in zip(axes.flat, (image for row in images for image in row), strict=True):
            draw.show_picture(axis, image)
        for axis, name in zip(axes[0], column_names, strict=True):
            axis.set_title(str(name), fontsize=9, loc="center", rotation=slope,
                           ha="left" if slope else "center")
        for axis, name in zip(axes[:, 0], row_names, strict=True):
            axis.set_ylabel(str(name), rotation=0, ha="right", va="center", fontsize=9)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure
