"""Corruptions of finished pictures with the strengths of ImageNet-C (Hendrycks & Dietterich 2019).

PromptSync's views draw them at random (views/augment.py), data set `c` of mini has them fixed (faults.py).
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

# severity 1 to 5
STRENGTH = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),                # standard deviation of Gaussian noise
    "blur": (1.0, 2.0, 3.0, 4.0, 6.0),           # sigma in px at 224 px; it shrinks with the root of the size
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),                 # factor on the distance from the mean colour
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),                # added; half of the draws subtract (ours)
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),                 # scale of the coarse grid
    "jpeg": (25.0, 18.0, 15.0, 10.0, 7.0),                  # quality
}
CORRUPTIONS = tuple(STRENGTH)
_LUMINANCE = torch.tensor([                                 # JPEG standard, annex K
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99.0]])


def corrupt_with(name: str, x: Tensor, strength: Tensor, generator: Generator) -> Tensor:
    """The corruption `name` on [m, 3, S, S], one strength [m, 1, 1, 1] per image, clipped to [0, 1]."""
    size = x.shape[-1]
    if name == "noise":
        y = x + strength * torch.randn(x.shape, generator=generator).to(x.device)
    elif name == "blur":
        # sigma * size / 224 would be a fifth of a pixel at severity 1 on small images: no blur at all (ours)
        y = _both_axes(_blur_matrix(size, strength[:, 0] * math.sqrt(size / 224)), x)
    elif name == "contrast":
        mean = x.mean((-2, -1), keepdim=True)
        y = mean + strength * (x - mean)
    elif name == "brightness":
        y = x + strength * (2 * torch.randint(0, 2, strength.shape, generator=generator).to(x.device) - 1)
    elif name == "pixelate":
        y = _both_axes(_pixel_matrix(size, strength[:, 0]), x)
    else:
        y = _jpeg(x, strength)
    return y.clamp(0, 1)


def _both_axes(matrix: Tensor, x: Tensor) -> Tensor:
    """M x M^T: a separable filter as two matrix products. matrix [m, S, S], x [m, 3, S, S]."""
    return matrix[:, None] @ x @ matrix[:, None].mT


def _blur_matrix(size: int, sigma: Tensor) -> Tensor:
    """Gaussian weights along an axis, renormalised at the border. sigma [m, 1, 1] in px -> [m, S, S]."""
    line = torch.arange(size, device=sigma.device)
    return torch.softmax(-((line[:, None] - line) ** 2) / (2 * sigma**2), dim=-1)


def _pixel_matrix(size: int, scale: Tensor) -> Tensor:
    """Means over the cells of a grid of round(scale * S) cells per axis. scale [m, 1, 1] -> [m, S, S]."""
    cells = (scale * size).round().clamp(min=1)
    cell = ((torch.arange(size, device=scale.device) + 0.5) * cells / size).floor()     # [m, 1, S]
    same = (cell.mT == cell).float()
    return same / same.sum(-1, keepdim=True)


def _jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """JPEG's loss without its file: 8 x 8 DCT blocks of each channel, quantised by the luminance table."""
    size = x.shape[-1]
    pad = -size % 8
    y = F.pad(x * 255 - 128, (0, pad, 0, pad), mode="replicate")
    y = y.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).movedim(-2, -3)      # [m, 3, h, w, 8 rows, 8 columns]
    k = torch.arange(8, device=x.device)
    dct = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2                       # [frequency, position]
    dct[0] /= math.sqrt(2)
    factor = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100      # libjpeg's quality scale
    table = (_LUMINANCE.to(x.device) * factor[..., None, None]).round().clamp(1, 255)   # [m, 1, 1, 1, 8, 8]
    y = dct.T @ ((dct @ y @ dct.T / table).round() * table) @ dct
    y = y.movedim(-3, -2).flatten(-4, -3).flatten(-2, -1)                               # [m, 3, H, W]
    return (y[..., :size, :size] + 128) / 255
