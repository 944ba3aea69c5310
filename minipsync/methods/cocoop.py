"""CoCoOp (Zhou et al. 2022, arXiv:2203.05557): a context that depends on the image.

A context learned for some classes fails on others. CoCoOp lets it depend on the image x: a small net h turns
the feature of x into one vector that is added to every context token (sec. 3.2),

    v_m(x) = v_m + h(f(x)),      p(c | x) = softmax_c( exp(s) * cos(f(x), text(v(x), c)) )

So each image has its own text features. The official code walks the text encoder image by image; here a batch
of images is one episode axis, and what the classes share is computed once per image.
"""

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Generator, Tensor

from ..clip.encoders import Clip
from ..training import TrainConfig
from .base import Method, Params
from .coop import ContextConfig, context_length
from .learner import Learner, Prompts, generator, linear, normal, uniform_linear, word_embeddings
from .memory import episodes_in_memory
from .registry import register


class CoCoOpConfig(ContextConfig, title="cocoop"):
    """vit_b16_c4_ep10_batch1_ctxv1, used for every table of the paper."""

    init: str | None = "a photo of a"
    """words that the context starts from; None: random numbers, N(0, 0.02^2)"""
    n_ctx: PositiveInt = context_length(4)
    """number M of context vectors; None: the number of tokens in init, else 4 (configs c4, c8, c16 exist)"""
    seed: int = 1
    """seed of the start and of the few-shot choice; the paper averages 1, 2 and 3"""


class ConditionalPrompt(Learner):
    """CoCoOp's context: `ctx` [n_ctx, W], and the meta-net h that shifts all its tokens by one vector.

    The meta-net is Linear D -> D/16, ReLU, Linear D/16 -> W. `init` as in `ContextPrompt`.
    """

    def __init__(self, clip: Clip, n_ctx: int = 4, init: str | None = "a photo of a", *,
                 seed: int | Generator = 0):
        start, g = word_embeddings(clip, init) if init else None, generator(seed)
        super().__init__(clip, n_ctx if start is None else len(start))
        self._add("ctx", normal(g, n_ctx, clip.text_width) if start is None else start)
        hidden = max(1, clip.embed_dim // 16)
        self._add_linear("meta_net.linear1", *uniform_linear(g, clip.embed_dim, hidden))
        self._add_linear("meta_net.linear2", *uniform_linear(g, hidden, clip.text_width))

    def forward(self, image_features: Tensor, params: dict[str, Tensor] | None = None) -> Prompts:
        """v_m(x) = v_m + h(f(x)): features [B, D] of B images -> text prompts [B, 1, n_ctx, W]."""
        p = self._values(params)
        x = F.relu(linear(image_features[:, None], p, "meta_net.linear1"))  # (B, 1, D/16)
        x = linear(x, p, "meta_net.linear2")  # (B, 1, W)
        return Prompts(text=(p["ctx"] + x).unsqueeze(-3))


@register
class CoCoOp(Method):
    """Conditional context optimisation. Learned: `ctx` [M, W] and `meta_net` (D -> D / 16 -> W)."""

    name, Config = "cocoop", CoCoOpConfig
    recipe = TrainConfig(epochs=10, batch_size=1, lr=0.002)     # batch 1 was for memory; more works

    def make_learner(self) -> ConditionalPrompt:
        return ConditionalPrompt(self.clip, self.config.n_ctx, self.config.init, seed=self.config.seed)

    def encode_classes(self) -> Tensor:
        raise TypeError("cocoop has class features for each image, not one set for all: predict(images) "
                        "classifies, learner(features) gives the contexts")

    def logits(self, images: Tensor, params: Params | None = None) -> Tensor:
        """Logits [N, C] of images [N, 3, S, S], each under the context that it gives itself."""
        self.check_device()
        with torch.no_grad():
            image = self.clip.encode_image(images)                                     # [N, D], unit length
        text = self.clip.encode_text(self.packed, self.learner(image, params).text)    # [N, C, D]
        return (self.clip.logit_scale * image[:, None] @ text.mT)[:, 0]                # [N, C]

    def own_logits(self, x: Tensor) -> Tensor:
        parts = x.split(episodes_in_memory(self))
        return torch.cat([self.logits(part) for part in parts])
