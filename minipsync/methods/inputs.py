"""Checks of what users hand to a method: images, a training set, a template."""

import warnings
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..clip.encoders import Clip
from ..data.checks import some
from ..data.names import empty_classes
from ..data.pixels import to_rgb
from ..settings import Settings


def check_images(images: Any) -> list[Image.Image]:
    """A list of PIL images in RGB (`to_rgb`), from one or several.

    Raises TypeError for anything else and ValueError for an image that cannot be decoded.
    """
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


def _decoded(i: int, image: Image.Image) -> Image.Image:
    try:
        return to_rgb(image)
    except Exception as error:                       # PIL's decoders raise all sorts for damaged files
        file = f" ({name})" if (name := getattr(image, "filename", "")) else ""
        raise ValueError(f"images[{i}]{file} cannot be used: {error}; expected a whole picture, opened and "
                         "not closed; leave it out or replace the file") from error


def check_tensor(clip: Clip, images: Tensor) -> Tensor:
    """Model input [B, 3, S, S], as float32 on the CLIP's device.

    Raises TypeError for integers, ValueError for another shape, no images, and values that are not finite.
    """
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


def check_views(method: Any, views: Tensor) -> None:
    """Raise ValueError unless views are [B, V, 3, S, S], RuntimeError where no gradient can be had."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(f"{method.name} tunes prompts while it predicts and needs gradients: call it "
                           "outside torch.inference_mode(); torch.no_grad() does no harm")
    size = method.clip.image_size
    if views.ndim != 5 or views.shape[2:] != (3, size, size):
        raise ValueError(f"{method.name}: views have shape {tuple(views.shape)}; expected "
                         f"[B, V, 3, {size}, {size}], one row of views per image")


def check_train_set(method: Any, train_set: Any) -> None:
    """Look whether `method` can learn from `train_set`; a warning names classes without a picture.

    Raises TypeError for a method that is not trained, ValueError for other classes or another order.
    """
    if method.recipe is None:
        load = f", or load the prompts of {' or '.join(method.accepts)}" if method.accepts else ""
        raise TypeError(f"{method.name} is not trained; just predict{load}")
    theirs, ours = list(train_set.class_names), method.class_names
    if theirs != ours:
        raise ValueError(f"{method.name}: the training set has {len(theirs)} classes ({theirs[0]}, …), the "
                         f"method {len(ours)} ({ours[0]}, …); build it with train_set.class_names")
    if empty := empty_classes(train_set):
        warnings.warn(f"{method.name}: the training set has no picture of {len(empty)} of its "
                      f"{len(ours)} classes ({some(empty)}); prompts learn nothing of those", stacklevel=3)
    method.check_device()


def template_as_context(config: type[Settings], settings: dict, owner: str) -> dict:
    """Let template="a sketch of a {}." stand for init="a sketch of a" where the context starts from words."""
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
