"""TPT (Shu et al. 2022, arXiv:2209.07511): tune the context on the test image itself, without a label.

Of the n views of image x keep the share `selection` whose predictions have the lowest entropy (eq. 4). Their
mean prediction should be confident: minimise its entropy over the context v by one AdamW step (eq. 3),

    v* = argmin_v H( 1/|F| sum_{a in F} p(. | a; v) ),      predict x with v*, then forget v*.

The image encoder does not depend on v, so the views' features are computed once and only the text is
differentiated. v starts from hand-written words, the context of CoOp, or the one that CoCoOp gives for x.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ..settings import Settings, Share
from ..views.crops import CropScale
from .base import register
from .coop import ContextConfig, context_length
from .episodes import TestTimeMethod
from .prompts import ConditionalPrompt, ContextPrompt


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
    """seed of the views; the codes use the seed of the weights"""
    episodes: PositiveInt | None = None
    """images that are tuned at a time, which changes no result; None: as memory allows"""


class TPTConfig(TestTimeConfig, ContextConfig, title="tpt"):
    """tpt_classification.py and its scripts."""

    start: Literal["words", "coop", "cocoop"] = "words"
    """what the context starts from; with "coop" and "cocoop" load() their prompts"""
    init: str | None = "a photo of a"
    """words that the context starts from, the same for every data set; None: random numbers, N(0, 0.02^2)"""
    n_ctx: PositiveInt = context_length(4)
    """number M of context vectors, as the loaded prompts; None: the number of tokens in init, else 4"""
    lr: PositiveFloat = 5e-3
    """rate of AdamW (sec. 4)"""
    augmix: bool = False
    """AugMix in the views; on for fine-grained sets, off for ImageNet and its variants"""
    seed: int = 0
    """seed of the views; the code's default"""


@register
class TPT(TestTimeMethod):
    """Test-time prompt tuning of the text context. Tuned: `ctx` [B, M, W]."""

    name, Config = "tpt", TPTConfig
    prompts_images = False

    @property
    def accepts(self):
        return () if self.config.start == "words" else (self.config.start,)

    def load(self, path="auto", **choice):
        if self.config.start == "words":
            raise TypeError("tpt starts from words; build it with start='coop' or 'cocoop' to load prompts")
        return super().load(path, **choice)

    def make_learner(self):
        kind = ConditionalPrompt if self.config.start == "cocoop" else ContextPrompt
        return kind(self.clip, self.config.n_ctx, self.config.init, seed=self.config.seed)

    def inputs(self, views):
        """[B,V,3,S,S] -> features [B,V,D] before normalisation."""
        flat = views.flatten(0, 1).split(self.image_batch)
        features = torch.cat([self.clip.encode_image(x, normalize=False) for x in flat])
        return features.unflatten(0, views.shape[:2])

    def start(self, x):
        if self.config.start != "cocoop":
            return super().start(x)
        self.check_device()
        # As the official code: the net gets the image's raw feature although it was trained on unit ones.
        return {"ctx": self.learner(x[:, 0]).text[:, 0].detach().requires_grad_()}     # [B, M, W]

    def logits(self, x, params):
        """Features x [B,V,D], params {"ctx": [B,M,W]} -> [B,V,C]."""
        text = self.clip.encode_text(self.packed, params["ctx"][:, None])              # [B, C, D]
        return self.clip.logit_scale * F.normalize(x, dim=-1) @ text.mT

    def first_logits(self, x, params):
        if self.config.start == "cocoop":                                      # every image has its own start
            return self.logits(x, params)
        return self.clip.logit_scale * F.normalize(x, dim=-1) @ self.text_features().mT
