"""How much of the image each view of it shows."""

import torch
from PIL import Image
from torch import Tensor

from ..clip.encoders import Clip
from .crops import ViewConfig, crop_boxes, working_size


def view_areas(image: Image.Image | Tensor, n: int, clip: Clip, config: ViewConfig, seed: int) -> Tensor:
    """The share of the image's area in each crop that `make_views` makes of it with the same arguments.

    -> float64 [n - 1], in (0, 1]: view 0 is the image itself and has no crop. The boxes are what `make_views`
    draws first, so they are drawn here once more, without looking at a pixel.
    """
    width, height = ((image.shape[-1], image.shape[-2]) if isinstance(image, Tensor)
                     else working_size(image.size, clip.image_size, config))
    boxes = crop_boxes(n - 1, height, width, config, torch.Generator().manual_seed(seed))
    return boxes[:, 2].double() * boxes[:, 3] / (height * width)
