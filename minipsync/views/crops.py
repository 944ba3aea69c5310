"""Augmented views of a test image, and WordNet variants of a class name.

A view set is a function of the image's content and a seed alone: not of its position in the dataset, of the
batch it came in, or of what ran before. View 0 is always the image itself as `clip.preprocess` makes it.

    views = make_views(image, 64, clip, seed=content_seed(image))                       # TPT, PromptAlign
    views = make_views(image, 64, clip, seed=content_seed(image), augmix=True)      # TPT on fine-grained sets
    views = make_views(image, 128, clip, PROMPTSYNC_VIEWS, seed=content_seed(image))    # PromptSync: 127 + 1
"""
from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Generator, Tensor
from torchvision.transforms.functional import pil_to_tensor

from ..clip.encoders import Clip
from ..data.pixels import to_rgb
from ..settings import Probability, Settings, in_order, require, some_of
from . import augment

CropScale = Annotated[tuple[float, float], in_order(1)]


class ViewConfig(Settings, title="make_views"):
    """How views 1, 2, … are made. Defaults: TPT's (METHODS 5.6)."""

    crop_scale: CropScale = (0.08, 1.0)
    """smallest and largest share of the image's area in a random crop (torchvision's default)"""
    crop_ratio: Annotated[tuple[float, float], in_order()] = (3 / 4, 4 / 3)
    """smallest and largest width / height of a crop (torchvision's default)"""
    flip: Probability = 0.5
    """probability of a horizontal flip"""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """how crops are resized, with antialiasing; "bicubic" is the training transform's"""
    augmix: bool = False
    """mix augmented copies of a view (AugMix); TPT: on for fine-grained sets, off for the ImageNet family"""
    augmix_severity: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """strength of AugMix's operations; TPT's value"""
    background: Probability = 0.0
    """probability of a replaced background (PromptSync; how is ours)"""
    corruption: Probability = 0.0
    """probability of one corruption (PromptSync; the list is ours)"""
    corruptions: Annotated[tuple[str, ...], some_of(augment.CORRUPTIONS)] = augment.CORRUPTIONS
    """the corruptions to draw from"""
    corruption_severity: Annotated[int, Field(ge=1, le=5)] = 3
    """severities are drawn from 1 to this, of ImageNet-C's five (ours)"""


def content_seed(image: Image.Image | Tensor, seed: int = 0) -> int:
    """A 63-bit seed from the pixels of `image` (PIL, or a tensor [3, H, W]) and the user's `seed`.

    Tensors are rounded to 1/64 first, so that the rounding of another device seldom changes the views.
    """
    digest = hashlib.blake2b(f"{seed} ".encode(), digest_size=8)
    if isinstance(image, Tensor):
        digest.update(str(tuple(image.shape)).encode())
        digest.update((image.detach().float().cpu() * 64).round().to(torch.int16).numpy().tobytes())
    else:
        image = to_rgb(image)
        digest.update(str(image.size).encode())
        digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def make_views(image: Image.Image | Tensor, n: int, clip: Clip, config: ViewConfig | None = None, *,
               seed: int = 0, backgrounds: Tensor | None = None, **settings: Any) -> Tensor:
    """`n` views of one image: itself and n - 1 augmented ones. Model input [n, 3, S, S] on the clip's device.

    image: PIL, or a tensor [3, S, S] that is model input already (normalised). seed: see `content_seed`.
    backgrounds: [m, 3, h, w] in [0, 1], used instead of the generated ones. settings: fields of `ViewConfig`.
    Order of the operations: crop, flip, background, AugMix, corruption, normalise. A photo is decoded once,
    then shrunk to the size at which the smallest crop still has S pixels on its shorter side.
    """
    config = (config or ViewConfig()).replace(**settings)
    require(n >= 1, "make_views", "n", n, "at least 1 view, the image itself")
    size = clip.image_size
    if isinstance(image, Tensor):
        if image.shape != (3, size, size):
            raise ValueError(f"make_views: image tensor of shape {tuple(image.shape)}; expected model input "
                             f"(3, {size}, {size}); use clip.preprocess or pass the PIL image")
        plain, source = image.to(clip.device), clip.denormalize(image).clamp(0, 1)
    else:
        plain, source = clip.preprocess(image)[0].to(clip.device), working_copy(image, size, config)
        source = source.float() / 255
    if n == 1:
        return plain[None]
    generator = torch.Generator().manual_seed(seed)
    views = augment_views(source.to(clip.device), n - 1, size, config, generator, backgrounds)
    return torch.cat([plain[None], clip.normalize(views)])


def augment_views(image: Tensor, n: int, size: int, config: ViewConfig, generator: Generator,
                  background_images: Tensor | None = None) -> Tensor:
    """n augmented views [n, 3, size, size] in [0, 1] of an image [3, H, W] in [0, 1]."""
    boxes = crop_boxes(n, image.shape[-2], image.shape[-1], config, generator)
    flip, replaced, corrupted = (_drawn(n, p, generator, image.device)
                                 for p in (config.flip, config.background, config.corruption))
    if config.background:
        image = torch.cat([image, augment.foreground(image)])                 # [4, H, W]: the mask goes along
    x = resize_crops(image, boxes, size, config.interpolation)                       # [n, 3 or 4, size, size]
    x[flip] = x[flip].flip(-1)
    if config.background:
        scene = augment.backgrounds(len(replaced), size, generator, background_images, image.device)
        x, mask = x[:, :3], x[replaced, 3:]
        x[replaced] = mask * x[replaced] + (1 - mask) * scene
    if config.augmix:
        x = augment.augmix(x, generator, config.augmix_severity)
    if config.corruption:
        x[corrupted] = augment.corrupt(x[corrupted], generator, config.corruptions,
                                       config.corruption_severity)
    return x


def _drawn(n: int, probability: float, generator: Generator, device: torch.device) -> Tensor:
    """Indices of the views that an event of this probability hits."""
    return (torch.rand(n, generator=generator) < probability).nonzero()[:, 0].to(device)


def working_copy(image: Image.Image, size: int, config: ViewConfig) -> Tensor:
    """The image as bytes [3, H, W], shrunk if no crop needs that many pixels."""
    image, wanted = to_rgb(image), working_size(image.size, size, config)
    if image.size != wanted:
        image = image.resize(wanted, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return pil_to_tensor(image)


def working_size(image_size: tuple[int, int], size: int, config: ViewConfig) -> tuple[int, int]:
    """Width and height of the `working_copy` of an image of this width and height."""
    ratio = max(config.crop_ratio[1], 1 / config.crop_ratio[0])
    shorter = math.ceil(size * math.sqrt(ratio / config.crop_scale[0]))
    if min(image_size) <= shorter:
        return image_size
    scale = shorter / min(image_size)
    return round(image_size[0] * scale), round(image_size[1] * scale)


# --- random resized crops -----------------------------------------------------------------------------------
def crop_boxes(n: int, height: int, width: int, config: ViewConfig, generator: Generator) -> Tensor:
    """n boxes (top, left, height, width) [n, 4], drawn as torchvision's RandomResizedCrop does.

    Ten tries for a box inside the image, then the largest central box of a permitted ratio.
    """
    low, high = config.crop_ratio
    area = height * width * augment.uniform(*config.crop_scale, (n, 10), generator)
    ratio = augment.uniform(math.log(low), math.log(high), (n, 10), generator).exp()
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()                 # [n, 10]
    good = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
    first = good.float().argmax(1, keepdim=True)                                        # the first good try
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    u, v = torch.rand(2, n, generator=generator)
    top, left = (u * (height - h + 1)).floor(), (v * (width - w + 1)).floor()
    w0, h0 = width, height
    if width / height < low:
        h0 = round(width / low)
    elif width / height > high:
        w0 = round(height * high)
    central = torch.tensor([(height - h0) // 2, (width - w0) // 2, h0, w0])
    return torch.where(good.any(1, keepdim=True), torch.stack([top, left, h, w], 1).long(), central)


def resize_crops(image: Tensor, boxes: Tensor, size: int, interpolation: str = "bilinear") -> Tensor:
    """Crop and resize with antialiasing (as PIL does). image [c, H, W], boxes [n, 4] -> [n, c, size, size].

    A small image takes two matrix products for all boxes, a large one a call per box; both give the same.
    """
    _, height, width = image.shape
    if height * width <= 128 * 128:
        rows = _resize_matrix(boxes[:, 0], boxes[:, 2], height, size, interpolation).to(image)
        columns = _resize_matrix(boxes[:, 1], boxes[:, 3], width, size, interpolation).to(image)
        x = rows.flatten(0, 1) @ image.movedim(1, 0).flatten(1)                         # [n * size, c * W]
        x = x.view(len(boxes), -1, width) @ columns.mT                                  # [n, size * c, size]
        x = x.unflatten(1, (size, -1)).transpose(1, 2)                                  # [n, c, size, size]
    else:
        x = torch.cat([F.interpolate(image[None, :, top:top + h, left:left + w], (size, size),
                                     mode=interpolation, antialias=True)
                       for top, left, h, w in boxes.tolist()])
    return x.clamp(0, 1)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, PIL's bicubic."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_FILTERS = {"bilinear": lambda x: (1 - x.abs()).clamp(min=0), "bicubic": _cubic}


def _resize_matrix(start: Tensor, length: Tensor, total: int, size: int, interpolation: str) -> Tensor:
    """Weights of an axis' `total` pixels in `size` output pixels. start, length [n] -> [n, size, total]."""
    scale = (length / size)[:, None, None]                                     # input pixels per output pixel
    centre = start[:, None, None] + scale * (torch.arange(size) + 0.5)[:, None]         # [n, size, 1]
    pixel = torch.arange(total) + 0.5
    weight = _FILTERS[interpolation]((pixel - centre) / scale.clamp(min=1))             # [n, size, total]
    end = (start + length)[:, None, None]
    weight = weight * ((pixel > start[:, None, None]) & (pixel < end))          # nothing from outside the box
    return weight / weight.sum(-1, keepdim=True)


PROMPTSYNC_VIEWS = ViewConfig(background=0.5, corruption=0.5)
