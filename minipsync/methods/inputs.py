"""Checks of what users hand to a method: images, a template."""

import torch
from PIL import Image
from torch import Tensor

from ..data.pixels import to_rgb


def check_images(images):
    """A list of PIL images in RGB (`to_rgb`) from one or several.

    Anything else raises TypeError, and an image that cannot be decoded ValueError, that say what to do."""
    images = [images] if isinstance(images, Image.Image) else images
    if not isinstance(images, (list, tuple)):
        raise TypeError(f"images is a {type(images).__name__}; expected a PIL image, a list of them or a "
                        "float tensor [B,3,S,S]; Image.open(path) and Image.fromarray(array) make PIL images")
    for i, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise TypeError(f"images[{i}] is a {type(image).__name__}; expected a PIL image "
                            "(Image.open, Image.fromarray); tensors go in as one: torch.stack(images)")
    if not images:
        raise ValueError("images is an empty list; expected at least one PIL image")
    return [_decoded(i, image) for i, image in enumerate(images)]


def _decoded(i, image):
    try:
        return to_rgb(image)
    except Exception as error:                       # PIL's decoders raise all sorts for damaged files
        file = f" ({image.filename})" if getattr(image, "filename", "") else ""
        raise ValueError(f"images[{i}]{file} cannot be used: {error}; expected a whole picture, opened and "
                         "not closed; leave it out or replace the file") from error


def images_to_tensor(clip, images):
    """Model input [B,3,S,S] on the CLIP's device from PIL images (preprocessed) or a tensor (checked)."""
    if not isinstance(images, Tensor):
        return clip.preprocess(check_images(images))
    size = clip.image_size
    if not images.is_floating_point():
        raise TypeError(f"images is a tensor of {images.dtype}; expected normalised floats: "
                        "clip.normalize(images / 255) makes them from bytes, or pass PIL images")
    if images.ndim != 4 or not len(images) or images.shape[1:] != (3, size, size):
        raise ValueError(f"images has shape {tuple(images.shape)}; this CLIP wants [B, 3, {size}, {size}]; "
                         "clip.preprocess(pil_images) makes it, images[None] adds a batch axis")
    if images.is_meta:
        raise ValueError("images is on the device 'meta', where tensors have no values; expected 'cpu' or "
                         f"{str(clip.device)!r}")
    if not torch.isfinite(images).all():
        raise ValueError("images contains NaN or infinity; expected finite normalised values")
    return images.to(clip.device, torch.float32)


def template_as_context(config, settings, owner):
    """template="a sketch of a {}." stands for init="a sketch of a" where the context starts from words."""
    names = config.model_fields
    if "template" not in settings or "template" in names or "init" not in names:
        return settings
    before, hole, after = str(settings["template"]).partition("{}")
    if not hole or after.strip() not in ("", ".") or not before.strip():
        raise ValueError(f"{owner}: template={settings['template']!r}; a learned context needs words before "
                         "{} and at most a full stop after it, for example 'a photo of a {}.'")
    if "init" in settings:
        raise ValueError(f"{owner}: template and init say the same thing twice; give one of them")
    return {k: v for k, v in settings.items() if k != "template"} | {"init": before.strip()}
