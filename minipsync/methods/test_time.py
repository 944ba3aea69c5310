"""What all methods share that tune on the test image: settings, views, and where the tuning starts.

The episode itself, and TPT, are in tpt.py.
"""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from ..settings import Settings, Share
from ..views.crops import CropScale, ViewConfig, content_seed, make_views
from .base import Method, Params
from .memory import episodes_in_memory
from .prediction import Prediction


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

    @property
    def view_config(self) -> ViewConfig:
        """How views are augmented: random crops and flips, and AugMix where a method has it and it is on."""
        return ViewConfig(augmix=getattr(self, "augmix", False), crop_scale=self.crop_scale)


@dataclass
class Adapted:
    """What tuning B episodes gave."""

    params: Params                     # name -> tuned learner parameters [B, ...]
    history: dict[str, Tensor]         # loss name -> [steps, B]
    selected: Tensor | None            # confident views [B, k], lowest entropy first; None after no step
    original: Tensor                   # view 0 as `logits` takes it: [B, 1, ...]


class TestTimeBase(Method):
    """Views of images in, predictions out. The Config is a `TestTimeConfig`, with lr and augmix."""

    __test__ = False                                 # the name begins with Test, but it is none of pytest's
    prompt_settings = ("n_ctx", "depth", "init", "coupled")        # the others are of the tuning
    prompts_images: ClassVar[bool] = True            # False: the text alone has prompts, images are constants

    def __init__(self, clip: Any, class_names: Any, config: Any = None, **settings: Any):
        super().__init__(clip, class_names, config, **settings)
        self._initial: list[Tensor] | None = self.copy_prompts()

    def make_views(self, image: Image.Image | Tensor) -> Tensor:
        """Views [V, 3, S, S] of one PIL image or tensor [3, S, S]; view 0 is the image itself.

        They are drawn from the image's content and `config.view_seed` alone, so that neither the order of the
        images nor the batch they came in changes a prediction.
        """
        c = self.config
        return make_views(image, c.n_views, self.clip, c.view_config,
                          seed=content_seed(image, c.view_seed))

    def inputs(self, views: Tensor) -> Tensor:
        """What `logits` takes: the views [B, V, 3, S, S], or features [B, V, D] if no prompt sees images."""
        return views

    def start(self, x: Tensor) -> Params:
        """Fresh leaves [B, ...] to tune, one set of prompts per episode; x as `inputs` gave it."""
        self.check_device()
        return self.learner.episodes(len(x))

    def optimizer(self, params: Params) -> torch.optim.Optimizer:
        """Make a fresh optimiser for the leaves, with the method's rate.

        AdamW works on each element by itself, so one optimiser over leaves [B, ...] is B optimisers.
        """
        c = self.config
        return torch.optim.AdamW(list(params.values()), lr=c.lr, weight_decay=c.weight_decay)

    def first_logits(self, x: Tensor, params: Params) -> Tensor:
        """Logits [B, V, C] of all views before tuning, without gradient; here all episodes start alike."""
        parts = x.flatten(0, 1).split(self.image_batch)                                # [B*V, ...]
        return torch.cat([self.own_logits(part) for part in parts]).unflatten(0, x.shape[:2])

    def predict_views(self, views: Tensor) -> Prediction:
        """Classify view 0 after tuning on all views [B, V, 3, S, S] of B images."""
        raise NotImplementedError

    def predict_batch(self, items: list[Image.Image] | Tensor) -> Prediction:
        self._warn_if_untrained()
        return self.predict_views(torch.stack([self.make_views(item) for item in items]))

    def batch_size(self) -> int:
        chosen = max(1, int(self.config.n_views * self.config.selection))       # views that get a gradient
        return self.config.episodes or episodes_in_memory(self, chosen if self.prompts_images else 0)

    def _warn_if_untrained(self) -> None:
        """Warn who calls `predict`, once: tuning prompts that nobody trained gives numbers near chance."""
        if self.accepts and self._initial is not None and self.prompts_are(self._initial):
            warnings.warn(f"{self.name} tunes prompts that were never trained; load those of "
                          f"{' or '.join(self.accepts)} first: method.load()", stacklevel=6)
        self._initial = None


def stack_history(steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Losses [B] by name, a dict per step -> loss name -> [steps, B]."""
    return {k: torch.stack([step[k] for step in steps]) for k in steps[0]} if steps else {}
