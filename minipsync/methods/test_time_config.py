"""The settings that all methods share which tune on the test image."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..settings import Settings, Share
from ..views.crops import CropScale


class TestTimeConfig(Settings):
    """What all methods have that tune on the test image, with TPT's values (sec. 4)."""

    __test__ = False                                 # the name begins with Test, but it is none of pytest's

    n_views: PositiveInt = 64
    """views per image: the image itself and 63 augmented ones"""
    selection: Share = 0.1
    """rho, the share of the views that is kept, those of lowest entropy: 6 of 64"""
    steps: NonNegativeInt = 1
    """optimiser steps per image; 0: no tuning"""
    weight_decay: NonNegativeFloat = 0.01
    """of AdamW; torch's default, as in the codes"""
    crop_scale: CropScale = (0.08, 1.0)
    """smallest and largest share of the image in a random crop (torchvision's default)"""
    seed: int = 1
    """seed of a random start of the prompts, and of everything that has no seed of its own"""
    view_seed: int = Field(default_factory=lambda given: given["seed"])
    """seed of the views; None: that of seed, as in the codes"""
    episodes: PositiveInt | None = None
    """images that are tuned at a time, which changes no result; None: as memory allows"""
