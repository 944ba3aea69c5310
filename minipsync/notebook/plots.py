"""Figures of the notebooks. Every function returns a matplotlib Figure that is closed for pyplot: as the last
line of a cell it is shown once; `figure.savefig("name.png")` keeps it.

Images are PIL images, arrays [H, W, 3] (0..1 or 0..255) or tensors [3, H, W] with values 0..1 (as
clip.denormalize gives). Colours are seaborn's colour-blind-safe palette, and no figure tells anything by
colour alone.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

_PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = _PALETTE
_MARKERS = "osD^vP"                                       # so that classes differ by more than colour
STYLE = {**sns.axes_style("whitegrid"), "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10,
         "axes.titlelocation": "left", "axes.axisbelow": True, "legend.frameon": False, "figure.dpi": 72}


def accuracy_bars(results, title="", chance=None):
    """Accuracy with 95 % intervals, one bar a line.

    results: `Result`s, or a DataFrame with columns method, accuracy, low, high (fractions) and n; with a
             column dataset, each dataset gets a panel
    chance:  a fraction to mark, such as 1 / classes"""
    is_table = isinstance(results, pd.DataFrame)
    table = results if is_table else pd.DataFrame([result.row() for result in results])
    lacking = {"method", "accuracy", "low", "high", "n"} - set(table)
    if lacking or table.empty:
        said = "it is empty" if table.empty else f"it lacks {', '.join(sorted(lacking))}"
        raise ValueError(f"accuracy_bars: expected results, or a table with method, accuracy, low, high, n; "
                         f"{said}")
    groups = list(table.groupby("dataset", sort=False)) if "dataset" in table else [("", table)]
    lines = max(len(group) for _, group in groups)
    with plt.rc_context(STYLE):
        figure, axes = _figure(1, len(groups), (5.2 * len(groups) + 1.3, 0.42 * lines + 1.3), sharex=True)
        for axis, (dataset, group) in zip(axes[0], groups, strict=True):
            _bars(axis, group, chance)
            axis.set_title(", ".join(filter(None, [title, f"{dataset}, n = {_counts(group['n'])}"])))
    return figure


def _bars(axis, group, chance):
    value, low, high = (100 * group[name].to_numpy(dtype=float) for name in ("accuracy", "low", "high"))
    y = np.arange(len(group))
    axis.barh(y, value, height=0.66, color=BLUE, alpha=0.85)
    axis.errorbar(value, y, xerr=[value - low, high - value], fmt="none", color="black", capsize=3)
    for position, number, end in zip(y, value, high, strict=True):
        axis.text(end + 1.5, position, f"{number:.1f}", va="center")
    if chance is not None:
        axis.axvline(100 * chance, color=RED, linestyle="--", linewidth=1.2)
        axis.text(100 * chance + 0.5, -0.62, "chance", color=RED, va="center", fontsize=9)
    top = -0.55 if chance is None else -0.85
    axis.set(yticks=y, yticklabels=group["method"], ylim=(len(group) - 0.45, top),
             xlim=(0, max(high.max() + 12, 20)), xlabel="accuracy in %, with 95 % interval")
    axis.grid(axis="y", visible=False)


def view_grid(views, entropies=None, selected=(), columns=8, title=""):
    """The views of one image; the selected ones are framed and marked, the entropy (nats) is written below.

    views: V images; entropies: V numbers or None; selected: positions of the views that are kept."""
    entropies = None if entropies is None else _numbers(entropies)
    chosen = set(int(i) for i in _numbers(selected))
    count = len(views) if entropies is None else len(entropies)
    if not len(views) or count != len(views) or not chosen <= set(range(count)):
        raise ValueError(f"view_grid: {len(views)} views, {count} entropies and selected={sorted(chosen)} do "
                         "not belong together")
    columns = min(columns, len(views))
    rows = math.ceil(len(views) / columns)
    with plt.rc_context(STYLE):
        height = 0.82 if entropies is None else 1.0
        figure, axes = _figure(rows, columns, (0.8 * columns, height * rows + 0.4))
        for i, axis in enumerate(axes.flat):
            _bare(axis, frame=i in chosen)
            if i >= len(views):
                axis.set_visible(False)
                continue
            axis.imshow(_array(views[i]), interpolation="nearest")
            if entropies is not None:
                axis.set_xlabel(f"{'✓ ' if i in chosen else ''}{entropies[i]:.2f}", labelpad=2, fontsize=8.5,
                                fontweight="bold" if i in chosen else "normal")
        figure.suptitle(title or "views" + (": entropy in nats" if entropies is not None else "")
                        + (f", ✓ = the {len(chosen)} selected" if chosen else ""), fontsize=11)
    return figure


def class_probabilities(before, after, class_names, label=None, k=8, title=""):
    """Class probabilities of one image before and after adaptation: the k classes that either puts first.

    before, after: C numbers that add up to 1; label: the true class, marked with an asterisk."""
    before, after = _numbers(before), _numbers(after)
    _same_length("class_probabilities", before=before, after=after, class_names=class_names)
    shown = list(np.argsort(-np.maximum(before, after), kind="stable")[:k])
    if label is not None and label not in shown:
        shown[-1] = label
    shown.sort(key=lambda c: -after[c])
    y = np.arange(len(shown))
    with plt.rc_context(STYLE):
        figure, axes = _figure(1, 1, (6.4, 0.46 * len(shown) + 1.3))
        axis = axes[0, 0]
        kinds = ((-0.19, before, GREY, "before", ""), (0.19, after, BLUE, "after", "//"))
        for offset, values, colour, name, hatch in kinds:
            axis.barh(y + offset, 100 * values[shown], height=0.36, color=colour, label=name, hatch=hatch,
                      edgecolor="white")
            for position, value in zip(y + offset, 100 * values[shown], strict=True):
                axis.text(value + 1, position, f"{value:.1f}", va="center", fontsize=8.5)
        axis.set(yticks=y, yticklabels=[_named(class_names, c, label) for c in shown],
                 xlabel="probability in %", ylim=(len(shown) - 0.5, -0.5),
                 xlim=(0, 110 * max(before.max(), after.max()) + 4),
                 title=title or "class probabilities" + ("" if label is None else ", * = true class"))
        axis.grid(axis="y", visible=False)
        axis.legend(loc="lower right")
    return figure


def prototype_distances(before, after, class_names, label=None, k=10,
                        quantity="distance to the class prototype", title=""):
    """How far one image is from the class prototypes before and after adaptation: the k nearest classes.

    before, after: C distances; an arrow goes from one to the other; label: the true class, marked with an
    asterisk and always shown."""
    before, after = _numbers(before), _numbers(after)
    _same_length("prototype_distances", before=before, after=after, class_names=class_names)
    shown = list(np.argsort(np.minimum(before, after), kind="stable")[:k])
    if label is not None and label not in shown:
        shown[-1] = label
    shown.sort(key=lambda c: before[c])
    y = np.arange(len(shown))
    with plt.rc_context(STYLE):
        figure, axes = _figure(1, 1, (6.4, 0.36 * len(shown) + 1.3))
        axis = axes[0, 0]
        for position, c in zip(y, shown, strict=True):
            axis.annotate("", (after[c], position), (before[c], position),
                          arrowprops={"arrowstyle": "->", "color": "0.35", "shrinkA": 3, "shrinkB": 3})
        axis.scatter(before[shown], y, color=GREY, marker="o", s=42, label="before", zorder=3)
        axis.scatter(after[shown], y, color=BLUE, marker="D", s=42, label="after", zorder=3)
        axis.set(yticks=y, yticklabels=[_named(class_names, c, label) for c in shown], xlabel=quantity,
                 ylim=(len(shown) - 0.4, -0.6),
                 title=title or quantity + ("" if label is None else ", * = true class"))
        axis.margins(x=0.08)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def prototype_map(prototypes, features, labels, class_names, images_are="", title=""):
    """Class prototypes (stars) and image features (dots) in the plane that spreads the prototypes most.

    prototypes: [K, D], K at least 3; features: [N, D]; labels: N numbers 0 … K - 1; class_names: K names.
    A line joins each image with the prototype of its class, which carries the same marker; images_are: words
    before the class name in the legend."""
    centres, points = (np.asarray(x.detach().float().cpu()) for x in (prototypes, features))
    labels = _numbers(labels).astype(int)
    _same_length("prototype_map", prototypes=centres, class_names=class_names)
    _same_length("prototype_map", features=points, labels=labels)
    middle = centres.mean(0)
    axes_ = np.linalg.svd(centres - middle, full_matrices=False)[2][:2].T                # [D, 2]
    centres, points = (centres - middle) @ axes_, (points - middle) @ axes_
    with plt.rc_context(STYLE):
        figure, axes = _figure(1, 1, (5.8, 4.0))
        axis = axes[0, 0]
        axis.scatter([], [], color="white", edgecolor="black", marker="*", s=160, label="class prototype")
        for k, (name, colour) in enumerate(zip(class_names, _PALETTE * len(class_names), strict=False)):
            own, marker = points[labels == k], _MARKERS[k % len(_MARKERS)]
            for point in own:
                axis.plot(*zip(centres[k], point, strict=True), color=colour, linewidth=0.7, alpha=0.5)
            axis.scatter(*own.T, color=colour, marker=marker, s=30, zorder=3, label=f"{images_are}{name}")
            axis.scatter(*centres[k], color=colour, marker="*", s=260, edgecolor="black", zorder=4)
            axis.scatter(*centres[k], color="white", marker=marker, s=16, zorder=5)
        axis.set(xlabel="first principal axis of the prototypes", ylabel="second principal axis", title=title)
        axis.margins(0.1)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def gains(table, title="", reference="zero-shot"):
    """Differences to a reference, with 95 % intervals, on base and on novel classes.

    table: a DataFrame with columns panel, line (a panel for each of the first, in it a line for each of the
           second), classes ("base" or "novel"), difference, low and high (fractions)"""
    lacking = {"panel", "line", "classes", "difference", "low", "high"} - set(table)
    if lacking or table.empty:
        raise ValueError("gains: expected rows with panel, line, classes, difference, low and high; "
                         + (f"{', '.join(sorted(lacking))} missing" if lacking else "there are none"))
    panels, lines = table["panel"].unique(), list(table["line"].unique())
    with plt.rc_context(STYLE):
        size = (3.0 * len(panels) + 1.6, 0.44 * len(lines) + 1.4)
        figure, axes = _figure(1, len(panels), size, sharex=True, sharey=True)
        for axis, panel in zip(axes[0], panels, strict=True):
            for classes, colour, marker, shift in (("base", BLUE, "o", -0.14), ("novel", ORANGE, "D", 0.14)):
                part = table[(table["panel"] == panel) & (table["classes"] == classes)]
                names = ("difference", "low", "high")
                value, low, high = (100 * part[name].to_numpy(dtype=float) for name in names)
                axis.errorbar(value, [lines.index(line) + shift for line in part["line"]],
                              xerr=[value - low, high - value], color=colour, marker=marker, markersize=5,
                              linestyle="none", capsize=2.5, label=f"{classes} classes")
            axis.axvline(0, color="0.3", linewidth=1)
            axis.set(title=panel, yticks=range(len(lines)), yticklabels=lines, ylim=(len(lines) - 0.5, -0.5),
                     xlabel=f"points over {reference}")
            axis.grid(axis="y", visible=False)
        axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.suptitle(title, fontsize=11)
    return figure


def reliability(results, bins=15, title=""):
    """Is a confidence of 80 % right 80 % of the time?

    One panel per `Result`: accuracy in each bin of confidence (bar) against the diagonal, and below it how
    many images fall into the bin."""
    results = list(results) if isinstance(results, (list, tuple)) else [results]
    edges = np.linspace(0, 1, bins + 1)
    with plt.rc_context(STYLE):
        figure, axes = _figure(2, len(results), (3.7 * len(results) + 0.5, 4.5), sharex=True, sharey="row",
                               height_ratios=[3, 1])
        for (top, bottom), result in zip(axes.T, results, strict=True):
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


def contact_sheet(images, row_names, column_names, title="", size=0.9):
    """Images in rows and columns with their names; None leaves a gap.

    images: a list of rows, each a list of images; size: inches per image."""
    if len(images) != len(row_names) or any(len(row) != len(column_names) for row in images):
        raise ValueError(f"contact_sheet: {len(row_names)} row names and {len(column_names)} column names do "
                         f"not fit {len(images)} rows of {sorted({len(row) for row in images})} images")
    margin = 0.09 * max(map(len, map(str, row_names))) + 0.2
    slope = 30 if max(len(str(name)) for name in column_names) * 0.085 > size else 0
    width, height = size * len(column_names) + margin, size * len(images) + (0.9 if title else 0.6)
    # a sloping name begins above the middle of its column; the last ones may stick out on the right
    beyond = max(0.066 * len(str(name)) - size * (len(column_names) - c - 0.5)
                 for c, name in enumerate(column_names)) if slope else 0
    beyond = max(beyond, 0)
    height += 0.034 * max(map(len, map(str, column_names))) if slope else 0
    with plt.rc_context(STYLE):
        figure, axes = _figure(len(images), len(column_names), (width + beyond, height))
        figure.get_layout_engine().set(rect=(0, 0, width / (width + beyond), 1))
        for r, row in enumerate(images):
            for c, image in enumerate(row):
                axis = axes[r, c]
                _bare(axis)
                if image is not None:
                    axis.imshow(_array(image), interpolation="nearest")
                if r == 0:
                    axis.set_title(str(column_names[c]), fontsize=9, loc="center", rotation=slope,
                                   ha="left" if slope else "center")
                if c == 0:
                    axis.set_ylabel(str(row_names[r]), rotation=0, ha="right", va="center", fontsize=9)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


# ---- parts -------------------------------------------------------------------------------------------
def _figure(rows, columns, size, **options):
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    plt.close(figure)                                     # a notebook shows it as a value, not a second time
    return figure, axes


def _bare(axis, frame=False):
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set(visible=frame, color=ORANGE, linewidth=3)


def _array(image):
    """[H, W, 3] in 0..1; a transparent drawing is laid on white."""
    if isinstance(image, Image.Image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return np.asarray(image)
    if hasattr(image, "detach"):
        image = image.detach().float().cpu().numpy().transpose(1, 2, 0)
    image = np.asarray(image)
    return image if image.dtype == np.uint8 else np.clip(image, 0, 1 if image.max() <= 2 else 255)


def _numbers(values):
    values = values.detach().float().cpu() if hasattr(values, "detach") else values
    return np.asarray(values, dtype=float).reshape(-1)


def _same_length(function, **lists):
    if len({len(values) for values in lists.values()}) > 1:
        said = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise ValueError(f"{function}: {said}; expected as many of each")


def _named(class_names, c, label):
    return f"{class_names[c]} *" if c == label else str(class_names[c])


def _counts(n):
    return str(n.min()) if n.min() == n.max() else f"{n.min()} to {n.max()}"
