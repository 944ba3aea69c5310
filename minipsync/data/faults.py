"""Faults of finished pictures: what turns the source's pictures into data set `c` (ImageNet-C's idea).

They belong to no class and no artist, so they shift all pictures alike. Random ones come from numpy's
RandomState, whose streams are frozen, and not from a library's own encoder or noise.
"""
from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .corruptions import STRENGTH, corrupt_with

SEVERITY = 4                      # 1 … 5, of ImageNet-C's, for those that PromptSync's views have, too
SHARED = ("blur", "contrast", "jpeg")
NOISE, IMPULSE, LEVELS, MOTION = 0.26, 0.17, 3, 13
# noise: standard deviation; impulse: share of white and black pixels (both of that severity);
# palette: levels of each colour; motion: length of the blur, in px of a picture of 128 px
KINDS = ("noise", "impulse", "palette", "motion", *SHARED)


def corrupted(picture: Image.Image, kind: str, seed: int) -> Image.Image:
    """The RGB `picture` with the fault `kind`, one of KINDS, whose random numbers follow from `seed`.

    Raises ValueError for another kind.
    """
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    y = _faulty(x, kind, np.random.RandomState(seed)).clamp(0, 1)
    return Image.fromarray((y * 255).round().byte().permute(1, 2, 0).numpy())


def _faulty(x: Tensor, kind: str, rng: np.random.RandomState) -> Tensor:
    """[3, H, W] in [0, 1] -> the same with a fault, not clipped."""
    if kind == "noise":
        return x + NOISE * torch.from_numpy(rng.standard_normal(x.shape)).float()
    if kind == "impulse":
        u = torch.from_numpy(rng.uniform(size=x.shape[1:]))
        return torch.where(u < IMPULSE / 2, 0.0, torch.where(u > 1 - IMPULSE / 2, 1.0, x))
    if kind == "palette":
        return (x * (LEVELS - 1)).round() / (LEVELS - 1)
    if kind == "motion":
        return _moved(x, rng.uniform(0, np.pi), max(2, round(MOTION * x.shape[-1] / 128)))
    if kind in SHARED:
        strength = torch.full((1, 1, 1, 1), STRENGTH[kind][SEVERITY - 1])
        return corrupt_with(kind, x[None], strength, torch.Generator())[0]       # these draw nothing
    raise ValueError(f"unknown corruption {kind!r}, expected one of {', '.join(KINDS)}")


def _moved(x: Tensor, angle: float, length: int) -> Tensor:
    """The mean of `length` copies of [3, H, W], each one pixel further in the direction `angle`."""
    height, width = x.shape[1:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    copies = []
    for step in np.arange(length) - (length - 1) / 2:
        dy, dx = round(step * np.sin(angle)), round(step * np.cos(angle))
        copies.append(x[:, (rows + dy).clamp(0, height - 1), (columns + dx).clamp(0, width - 1)])
    return torch.stack(copies).mean(0)
