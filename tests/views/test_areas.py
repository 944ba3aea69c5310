"""How much of the image a view shows: read off from the view itself."""

import numpy as np
import pytest
import torch
from PIL import Image

from minipsync.views.areas import view_areas
from minipsync.views.crops import PROMPTSYNC_VIEWS, ViewConfig, make_views


def ramp(width, height):
    """Red grows to the right by 2 a pixel, green downwards by 2."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8))


def seen(clip, views, width, height):
    """Areas of crops from the slopes of their colours: a view of S pixels steps by 2 w / S."""
    x, size = 255 * clip.denormalize(views[1:]), clip.image_size
    a, b = size // 4, 3 * size // 4
    w = (x[:, 0, :, b] - x[:, 0, :, a]).abs().mean(-1) * size / (b - a) / 2
    h = (x[:, 1, b] - x[:, 1, a]).abs().mean(-1) * size / (b - a) / 2
    return w * h / (width * height)


@pytest.mark.parametrize("size", [(64, 64), (100, 60), (30, 110)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.3, 0.5)])
def test_area_is_what_the_view_shows(tiny_clip, size, scale):
    config = ViewConfig(crop_scale=scale)
    for seed in range(3):
        views = make_views(ramp(*size), 20, tiny_clip, config, seed=seed)
        areas = view_areas(ramp(*size), 20, tiny_clip, config, seed)
        assert areas.shape == (19,) and areas.min() > 0 and areas.max() <= 1
        # antialiasing moves a colour by less than a fifth of a pixel, of 7 or more between a and b
        assert torch.allclose(seen(tiny_clip, views, *size).double(), areas, rtol=0.06)
        assert areas.std() > 0.01                                  # another order would be found


def test_tensors_and_other_augmentations(tiny_clip):
    """A tensor's area is of its S x S pixels; flips, corruptions and backgrounds change no box."""
    x = tiny_clip.preprocess(ramp(64, 64))[0]
    plain = view_areas(x, 9, tiny_clip, ViewConfig(), 5)
    views = make_views(x, 9, tiny_clip, ViewConfig(), seed=5)
    scale = 64 / tiny_clip.image_size                              # a pixel of x is that many of the ramp
    assert torch.allclose(seen(tiny_clip, views, 64, 64).double(), plain, rtol=0.06 * scale)
    assert torch.equal(view_areas(x, 9, tiny_clip, PROMPTSYNC_VIEWS, 5), plain)
    assert len(view_areas(x, 1, tiny_clip, ViewConfig(), 5)) == 0
