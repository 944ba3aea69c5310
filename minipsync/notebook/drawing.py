"""What the figures of plots.py share: colours, axes, lines with names, pictures, checks of what is drawn."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = PALETTE
MARKERS = "osD^vP"                                        # so that classes differ by more than colour
STYLE = {**sns.axes_style("whitegrid"), "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10,
         "axes.titlelocation": "left", "axes.axisbelow": True, "legend.frameon": False, "figure.dpi": 72}
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}                    # a legend right of the axes

Picture = Image.Image | np.ndarray | Tensor
Numbers = Sequence[float] | np.ndarray | Tensor


def new_figure(rows: int, columns: int, size: tuple[float, float], **options: Any
               ) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches and its axes [rows, columns]; options go to `plt.subplots`."""
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    plt.close(figure)                                     # a notebook shows it as a value, not a second time
    return figure, axes


def name_lines(axis: Axes, names: Iterable[str], top: float, grid: bool = True) -> None:
    """Name the lines of a horizontal chart from the top down, at 0, 1, …"""
    names = list(names)
    axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, top))
    axis.grid(axis="y", visible=grid)


def name_classes(axis: Axes, class_names: Sequence[str], shown: Sequence[int], label: int | None, title: str,
                 top: float, grid: bool = True) -> None:
    """Name the lines of the classes `shown`, the true one with an asterisk, which the title explains."""
    name_lines(axis, (f"{class_names[c]} *" if c == label else str(class_names[c]) for c in shown), top, grid)
    axis.set_title(title + ("" if label is None else ", * = true class"))


def pick_classes(first: np.ndarray, order: np.ndarray, label: int | None, k: int) -> list[int]:
    """The k classes with the smallest value in `first`, `label` among them, sorted by `order`."""
    shown = list(np.argsort(first, kind="stable")[:k])
    if label is not None and label not in shown:
        shown[-1] = label
    return sorted(shown, key=lambda c: order[c])


def show_picture(axis: Axes, image: Picture | None, frame: bool = False) -> None:
    """Draw a picture without ticks. A transparent one is laid on white; None leaves the place empty."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set(visible=frame, color=ORANGE, linewidth=3)
    if isinstance(image, Image.Image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    elif isinstance(image, Tensor):
        image = image.detach().float().cpu().permute(1, 2, 0)
    if image is not None:
        values = np.asarray(image)
        values = values if values.dtype == np.uint8 else np.clip(values, 0, 1 if values.max() <= 2 else 255)
        axis.imshow(values, interpolation="nearest")


def in_percent(table: pd.DataFrame, value: str) -> list[np.ndarray]:
    """The columns `value`, low and high in percent."""
    return [100 * table[name].to_numpy(dtype=float) for name in (value, "low", "high")]


def as_numbers(values: Numbers) -> np.ndarray:
    """Numbers of any kind as a flat float64 array."""
    values = values.detach().float().cpu() if isinstance(values, Tensor) else values
    return np.asarray(values, dtype=float).reshape(-1)


def check_columns(function: str, table: pd.DataFrame, *columns: str) -> None:
    """ValueError unless the table has rows and these columns."""
    lacking = sorted(set(columns) - set(table))
    if lacking or table.empty:
        raise ValueError(f"{function}: expected results, or a table with {', '.join(columns)}; "
                         + ("it is empty" if table.empty else f"it lacks {', '.join(lacking)}"))


def check_lengths(function: str, **lists: Sequence | np.ndarray) -> None:
    """ValueError unless all lists are of one length; `function` and their names go into the message."""
    if len({len(values) for values in lists.values()}) > 1:
        said = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise ValueError(f"{function}: {said}; expected as many of each")
