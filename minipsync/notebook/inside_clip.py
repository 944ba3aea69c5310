"""Pictures of what CLIP computes: cosines of images and sentences, and what a token attends to."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import seaborn as sns
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from . import drawing as draw
from .drawing import STYLE, Picture


def cosines(pictures: Sequence[Picture], sentences: Sequence[str], values: Tensor, title: str = "") -> Figure:
    """A table of cosines, a line for each picture, which stands in front of it, a column for each sentence.

    values: [pictures, sentences]. Raises ValueError where their numbers do not fit."""
    if tuple(values.shape) != (len(pictures), len(sentences)):
        raise ValueError(f"cosines: values of shape {tuple(values.shape)}; expected {len(pictures)} pictures "
                         f"by {len(sentences)} sentences")
    wrapped = ["\n".join([" ".join(s.split()[:2]), " ".join(s.split()[2:4]), " ".join(s.split()[4:])])
               for s in sentences]
    with plt.rc_context(STYLE):
        size = (0.78 * len(sentences) + 1.4, 0.44 * len(pictures) + 0.7)
        figure, axes = draw.new_figure(len(pictures), 2, size, width_ratios=[1, 11])
        for axis, picture in zip(axes[:, 0], pictures, strict=True):
            draw.show_picture(axis, picture)
        grid = axes[0, 1].get_gridspec()
        for axis in axes[:, 1]:
            axis.remove()
        right = figure.add_subplot(grid[:, 1])
        sns.heatmap(draw.as_numbers(values).reshape(values.shape), annot=True, fmt=".2f", cmap="Blues",
                    ax=right, xticklabels=wrapped, yticklabels=False, cbar_kws={"label": "cosine"})
        right.set_title(title)
        plt.setp(right.get_xticklabels(), rotation=0, fontsize=9)
    return figure


def attended(pictures: Sequence[Tensor], weights: Sequence[Tensor], names: Sequence[str], title: str = "",
             most: int = 6) -> Figure:
    """Pictures, and beside each what one token attends to: the brighter a patch, the more. The brightest of
    each head is its largest weight.

    pictures: [3, S, S] each, with values 0..1; weights: [heads, patches] each; names: of the pictures.
    most: heads to show. Raises ValueError for patches that are no square."""
    heads = min(most, len(weights[0]))
    side = math.isqrt(weights[0].shape[1])
    if side * side != weights[0].shape[1]:
        raise ValueError(f"attended: weights for {weights[0].shape[1]} patches; expected a square number")
    with plt.rc_context(STYLE):
        size = (1.1 * (heads + 1) + 0.4, 1.15 * len(pictures) + 0.5)
        figure, axes = draw.new_figure(len(pictures), heads + 1, size)
        for k in range(heads):
            axes[0, k + 1].set_title(f"head {k + 1}", fontsize=9, loc="center")
        for line, picture, own, name in zip(axes, pictures, weights, names, strict=True):
            draw.show_picture(line[0], picture)
            line[0].set_ylabel(name, fontsize=9)
            for k, axis in enumerate(line[1:]):
                shares = (own[k] / own[k].max()).float().cpu().reshape(1, 1, side, side)
                light = F.interpolate(shares, size=picture.shape[1:])[0]                      # [1, S, S]
                draw.show_picture(axis, picture.float().cpu().mean(0, keepdim=True).expand(3, -1, -1) * 0.7
                                  * (0.12 + 0.88 * light) + 0.3 * light.expand(3, -1, -1))
        axes[0, 0].set_title("picture", fontsize=9, loc="center")
        figure.suptitle(title, fontsize=11)
    return figure
