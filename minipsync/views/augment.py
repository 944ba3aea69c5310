"""Batched image augmentations: AugMix, background replacement, corruptions.

All functions take a batch `[n, 3, S, S]` in [0, 1] and a `torch.Generator` on the CPU, draw every random
number first, and then run each operation once on all images that drew it. Random numbers come from the CPU
on every device, so a seed means the same views everywhere.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as TF

from ..data.corruptions import CORRUPTIONS, STRENGTH, corrupt_with


def uniform(low: float, high: float, size: tuple[int, ...], generator: Generator,
            device: torch.device | str | None = None) -> Tensor:
    """Uniform numbers in [low, high) from the CPU generator, on `device`."""
    return (low + (high - low) * torch.rand(size, generator=generator)).to(device)


def _integers(low: int, high: int, size: tuple[int, ...], generator: Generator,
              device: torch.device | str | None = None) -> Tensor:
    return torch.randint(low, high, size, generator=generator).to(device)


# --- AugMix (Hendrycks et al. 2020) as TPT uses it: METHODS 5.6 ---------------------------------------------
AUGMIX_OPS = ("autocontrast", "equalize", "posterize", "rotate", "solarize", "shear_x", "shear_y",
              "translate_x", "translate_y")


def augmix(x: Tensor, generator: Generator, severity: float = 1.0, width: int = 3) -> Tensor:
    """m * x + (1 - m) * sum_i w_i chain_i(x), chains of 1 to 3 operations. [n, 3, S, S] -> [n, 3, S, S].

    w ~ Dirichlet(1, …, 1), m ~ Beta(1, 1), operations uniform with replacement, level u ~ U(0.1, severity).
    The original mixes after normalisation; the weights add up to 1, so mixing before it gives the same.
    """
    n, device = len(x), x.device
    weights = torch.empty(n, width).exponential_(generator=generator).to(device)
    weights = weights / weights.sum(1, keepdim=True)                                    # Dirichlet(1, ..., 1)
    keep = uniform(0, 1, (n, 1, 1, 1), generator, device)                               # Beta(1, 1)
    depth = _integers(1, 4, (n * width,), generator, device)
    ops = _integers(0, len(AUGMIX_OPS), (3, n * width), generator, device)
    levels = uniform(0.1, severity, (3, n * width), generator, device)
    signs = _integers(0, 2, (3, n * width), generator, device) * 2.0 - 1
    chains = (x.clamp(0, 1) * 255).round().repeat_interleave(width, 0)          # [n * width, 3, S, S], 8 bits
    for step in range(3):
        _augmix_step(chains, torch.where(step < depth, ops[step], -1), levels[step], signs[step])
    chains = (chains / 255).unflatten(0, (n, width))                                    # [n, width, 3, S, S]
    return keep * x + (1 - keep) * torch.einsum("nw,nwchs->nchs", weights, chains)


def _augmix_step(x: Tensor, ops: Tensor, levels: Tensor, signs: Tensor) -> None:
    """Apply to each image the operation it drew (-1: none), in place. x [n, 3, S, S] in 0..255."""
    for index, name in enumerate(AUGMIX_OPS[:5]):
        rows = (ops == index).nonzero()[:, 0]
        if len(rows) and name != "rotate":
            x[rows] = augmix_tone(x[rows], name, levels[rows])
    rows = ((ops == 3) | (ops > 4)).nonzero()[:, 0]
    if len(rows):
        x[rows] = warp(x[rows], augmix_affine(ops[rows], levels[rows], signs[rows], x.shape[-1])).round()


def augmix_tone(x: Tensor, name: str, level: Tensor) -> Tensor:
    """The four tone operations with PIL's rounding. x [n, 3, S, S] in 0..255, level [n] in [0, 10]."""
    level = level[:, None, None, None]
    if name == "autocontrast":
        low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
        scale = 255 / (high - low).clamp(min=1)
        return torch.where(high > low, ((x - low) * scale + 1e-3).floor().clamp(0, 255), x)
    if name == "equalize":
        return TF.equalize(x.to(torch.uint8)).to(x)
    if name == "posterize":
        step = 2.0 ** (4 + (level * 0.4).floor())                               # 4 - int(0.4 u) bits are kept
        return (x / step).floor() * step
    return torch.where(x < 256 - (level * 25.6).floor(), x, 255 - x)                    # solarize


def augmix_affine(ops: Tensor, level: Tensor, sign: Tensor, size: int) -> Tensor:
    """Output-to-input maps [n, 2, 3] in [-1, 1] coordinates for rotate, shear_* and translate_*."""
    rotate, shear_x, shear_y, move_x, move_y = (ops == AUGMIX_OPS.index(name) for name in (
        "rotate", "shear_x", "shear_y", "translate_x", "translate_y"))
    angle = rotate * sign * (level * 3).floor() * math.pi / 180                         # whole degrees
    shear, shift = sign * level * 0.03, sign * (level * size / 30).floor() * 2 / size   # whole pixels
    cos, sin = angle.cos(), angle.sin()
    # PIL shears about the upper left corner, (-1, -1) here
    x = torch.stack([cos, sin + shear_x * shear, shear_x * shear + move_x * shift], 1)
    y = torch.stack([shear_y * shear - sin, cos, shear_y * shear + move_y * shift], 1)
    return torch.stack([x, y], 1)


def warp(x: Tensor, theta: Tensor) -> Tensor:
    """Affine map, bilinear, black outside (as PIL fills it). x [n, 3, S, S], theta [n, 2, 3]."""
    size = x.shape[-1]
    line = (torch.arange(size, device=x.device) + 0.5) * 2 / size - 1                   # pixel centres
    t = theta[..., None, None]                                                          # [n, 2, 3, 1, 1]
    grid = t[:, :, 0] * line + t[:, :, 1] * line[:, None] + t[:, :, 2]                  # [n, 2, S, S]
    inside = grid.abs().amax(1, keepdim=True) <= 1                                      # [n, 1, S, S]
    return F.grid_sample(x, grid.movedim(1, -1), padding_mode="border", align_corners=False) * inside


# --- background replacement (ours: PromptSync names it but does not say how) --------------------------------
def foreground(image: Tensor) -> Tensor:
    """Soft foreground mask [1, H, W] of an image [3, H, W] in [0, 1]: how unlike the border each pixel is.

    The colours of the border frame (6 % of the shorter side) are taken as one Gaussian; a pixel's mask is a
    sigmoid of its Mahalanobis distance, 0.5 at 1.5 times the frame's own 90 % quantile. Where the mask finds
    no object (below 2 %) the whole image counts as foreground, so that nothing is replaced.
    """
    height, width = image.shape[-2:]
    ratio = min(1.0, 64 / min(height, width))                                    # a mask needs no more detail
    size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    small = F.interpolate(image[None], size, mode="area")[0] if ratio < 1 else image
    frame = max(1, round(0.06 * min(size)))
    edge = torch.ones(size, dtype=torch.bool, device=image.device)
    edge[frame:-frame, frame:-frame] = False
    colours = small[:, edge].T                                                          # [m, 3]
    mean = colours.mean(0)
    covariance = (colours - mean).T @ (colours - mean) / len(colours)
    precision = torch.linalg.inv(covariance.cpu() + 0.03**2 * torch.eye(3)).to(image)
    offset = small - mean[:, None, None]
    distance = torch.einsum("chw,cd,dhw->hw", offset, precision, offset).clamp(min=0).sqrt()
    limit = 1.5 * distance[edge].quantile(0.9).clamp(min=1.0)
    mask = torch.sigmoid((distance - limit) / (0.2 * limit))[None, None]
    mask = F.avg_pool2d(F.pad(mask, (1, 1, 1, 1), mode="replicate"), 3, 1)
    if mask.mean() < 0.02:
        return torch.ones_like(image[:1])
    return F.interpolate(mask, (height, width), mode="bilinear")[0] if ratio < 1 else mask[0]


def backgrounds(n: int, size: int, generator: Generator, images: Tensor | None = None,
                device: torch.device | str | None = None) -> Tensor:
    """n backgrounds [n, 3, size, size]: plain colours, gradients, smooth noise, or the given `images`.

    images: [m, 3, h, w] in [0, 1], drawn with replacement and resized.
    """
    if images is not None:
        chosen = images.to(device)[_integers(0, len(images), (n,), generator, device)]
        return F.interpolate(chosen, (size, size), mode="bilinear", antialias=True)
    kind = _integers(0, 3, (n, 1, 1, 1), generator, device)
    a, b = uniform(0, 1, (2, n, 3, 1, 1), generator, device)                            # two colours
    angle = uniform(0, 2 * math.pi, (n, 1, 1), generator, device)
    line = torch.linspace(-1, 1, size, device=device)
    ramp = 0.5 + (angle.cos() * line + angle.sin() * line[:, None]) / 2.83              # [n, S, S] in [0, 1]
    gradient = a + (b - a) * ramp[:, None]
    coarse = uniform(0, 1, (n, 3, 6, 6), generator, device)
    noise = F.interpolate(coarse, (size, size), mode="bilinear")
    return torch.where(kind == 0, a, torch.where(kind == 1, gradient, noise))


# --- corruptions: each image gets one of data/corruptions.py ------------------------------------------------
def corrupt(x: Tensor, generator: Generator, names: tuple[str, ...] = CORRUPTIONS,
            severity: int = 3) -> Tensor:
    """One corruption per image, drawn from `names`, severity uniform in 1..severity. x [n, 3, S, S]."""
    kind = _integers(0, len(names), (len(x),), generator)
    level = _integers(0, severity, (len(x),), generator)
    out = x.clone()
    for index, name in enumerate(names):
        rows = (kind == index).nonzero()[:, 0]
        if len(rows):
            strength = torch.tensor(STRENGTH[name])[level[rows]].view(-1, 1, 1, 1).to(x.device)
            rows = rows.to(x.device)
            out[rows] = corrupt_with(name, x[rows], strength, generator)
    return out
