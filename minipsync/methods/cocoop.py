"""CoCoOp (Zhou et al. 2022, arXiv:2203.05557): a context that depends on the image.

A context learned for some classes fails on others. CoCoOp lets it depend on the image x: a small net h turns
the feature of x into one vector that is added to every context token (sec. 3.2),

    v_m(x) = v_m + h(f(x)),      p(c | x) = softmax_c( exp(s) * cos(f(x), text(v(x), c)) )

So each image has its own text features. The official code walks the text encoder image by image; here a batch
of images is one episode axis, and what the classes share is computed once per image.
"""

import torch
from pydantic import PositiveInt

from ..training import TrainConfig
from .base import Method, register
from .coop import ContextConfig, context_length
from .prompts import ConditionalPrompt


class CoCoOpConfig(ContextConfig, title="cocoop"):
    """vit_b16_c4_ep10_batch1_ctxv1, used for every table of the paper."""

    init: str | None = "a photo of a"
    """words that the context starts from; None: random numbers, N(0, 0.02^2)"""
    n_ctx: PositiveInt = context_length(4)
    """number M of context vectors; None: the number of tokens in init, else 4 (configs c4, c8, c16 exist)"""
    seed: int = 1
    """seed of the start and of the few-shot choice; the paper averages 1, 2 and 3"""


@register
class CoCoOp(Method):
    """Conditional context optimisation. Learned: `ctx` [M, W] and `meta_net` (D -> D / 16 -> W)."""

    name, Config = "cocoop", CoCoOpConfig
    recipe = TrainConfig(epochs=10, batch_size=1, lr=0.002)     # batch 1 was for memory; more works

    def make_learner(self):
        return ConditionalPrompt(self.clip, self.config.n_ctx, self.config.init, seed=self.config.seed)

    def encode_classes(self):
        raise TypeError("cocoop has class features for each image, not one set for all: predict(images) "
                        "classifies, learner(features) gives the contexts")

    def logits(self, images, params=None):
        """As `Method.logits`, for images [N, 3, S, S] alone: each has its own context, no episodes."""
        self.check_device()
        with torch.no_grad():
            image = self.clip.encode_image(images)                                     # [N, D], unit length
        text = self.clip.encode_text(self.packed, self.learner(image, params).text)    # [N, C, D]
        return (self.clip.logit_scale * image[:, None] @ text.mT)[:, 0]                # [N, C]

    def own_logits(self, x):
        parts = x.split(self.episodes_in_memory())
        return torch.cat([self.logits(part) for part in parts])
