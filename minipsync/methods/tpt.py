"""TPT (Shu et al. 2022, arXiv:2209.07511): tune the context on the test image itself, without a label.

Of the n views of image x keep the share `selection` whose predictions have the lowest entropy (eq. 4). Their
mean prediction should be confident: minimise its entropy over the context v by one AdamW step (eq. 3),

    v* = argmin_v H( 1/|F| sum_{a in F} p(. | a; v) ),      predict x with v*, then forget v*.

The image encoder does not depend on v, so the views' features are computed once and only the text is
differentiated. v starts from hand-written words, the context of CoOp, or the one that CoCoOp gives for x.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ..settings import Settings, require
from .base import register
from .coop import count_words
from .episodes import TestTimeMethod
from .prompts import ConditionalPrompt, ContextPrompt


@dataclass(frozen=True)
class TPTConfig(Settings):
    """tpt_classification.py and its scripts."""

    start: Literal["words", "coop", "cocoop"] = "words"    # with "coop" and "cocoop", load() their prompts
    n_ctx: int | None = None              # as the loaded prompts; None: the number of words in init, else 4
    init: str | None = "a photo of a"     # for every dataset
    n_views: int = 64                     # the image and 63 augmented views (sec. 4)
    selection: float = 0.1                # rho: 6 of 64 (sec. 4)
    steps: int = 1                        # sec. 4; 0 = no tuning
    lr: float = 5e-3                      # AdamW (sec. 4)
    weight_decay: float = 0.01            # torch's default, as in the code
    crop_scale: tuple[float, float] = (0.08, 1.0)           # share of the image (torchvision's default)
    augmix: bool = False                  # on for fine-grained sets, off for ImageNet and its variants
    seed: int = 0                         # of the views; the code's default
    episodes: int | None = None           # images at a time, no matter for the result; None = by memory

    def __post_init__(self):
        count_words("tpt", self, 4)
        check_test_time("tpt", self)


def check_test_time(owner, config):
    """Ranges of what all test-time configs have."""
    for name in ("n_ctx", "n_views"):
        require(getattr(config, name) >= 1, owner, name, getattr(config, name), "1 or more")
    require(0 < config.selection <= 1, owner, "selection", config.selection, "a share of the views in (0, 1]")
    low, high = config.crop_scale
    require(0 < low <= high <= 1, owner, "crop_scale", config.crop_scale,
            "two shares of the area, 0 < low <= high <= 1")
    require(config.steps >= 0, owner, "steps", config.steps, "0 or more")
    require(config.lr is None or config.lr > 0, owner, "lr", config.lr, "a positive rate")
    require(config.weight_decay >= 0, owner, "weight_decay", config.weight_decay, "0 or more")
    episodes = config.episodes
    require(episodes is None or episodes >= 1, owner, "episodes", episodes, "1 or more, or None")


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
