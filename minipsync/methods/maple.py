"""MaPLe (Khattak et al. 2023, arXiv:2210.03117): prompts in both encoders, several layers deep, coupled.

Layer 0 puts n learned tokens behind SOS in the text; before each of the next J - 1 blocks they are replaced
by new ones (sec. 3.2, eq. 4-6). The vision encoder gets, at the same depths, a linear image of them:

    P~_k = F_k(P_k),      F_k: text width -> vision width,      k = 0 … J-1

so that a gradient from either encoder moves both. The words of `init` beyond the first n stay fixed in the
text ("of a").
"""

from pydantic import PositiveInt
from torch import Generator, Tensor

from ..clip.encoders import Clip
from ..settings import Settings
from ..training import TrainConfig
from .base import Method
from .learner import (
    Learner,
    Prompts,
    check_depth,
    generator,
    linear,
    normal,
    split_words,
    stack_layers,
    uniform_linear,
    word_embeddings,
)
from .registry import register


class MaPLeConfig(Settings, title="maple"):
    """vit_b16_c2_ep5_batch4_2ctx_cross_datasets: for the cross-dataset and domain-generalisation tables."""

    n_ctx: PositiveInt = 2
    """prompt tokens per layer, n (sec. 4.1: length 2)"""
    depth: PositiveInt = 3
    """layers with prompts, J; 3 here, 9 of 12 for base-to-new (sec. 4.1)"""
    init: str | None = "a photo of a"
    """layer 0 of the text starts from the first n_ctx words, the others stay fixed; None: N(0, 0.02^2)"""
    seed: int = 1
    """seed of the start and of the few-shot choice; the paper averages 1, 2 and 3"""


class CoupledPrompt(Learner):
    """MaPLe's prompts: n_ctx text tokens P_k in each of `depth` layers, and a coupling F_k for each layer.

    Layer 0 starts from the first n_ctx words of `init`; the others stay in the text as they are ("of a").
    Without init, or if it has fewer words than n_ctx, layer 0 starts at random and no word stays. Deeper text
    tokens start at random, and their couplings all start from the same values, as in the official code.
    Raises ValueError for a depth that the model does not have, and a word of `init` that is several tokens.
    """

    def __init__(self, clip: Clip, n_ctx: int = 2, depth: int = 3, init: str | None = "a photo of a", *,
                 seed: int | Generator = 0):
        words, tail = split_words(init, n_ctx)
        super().__init__(clip, n_ctx, tail)
        check_depth(depth, clip, "text")
        check_depth(depth, clip, "vision")
        self.depth, g, width = depth, generator(seed), (clip.text_width, clip.vision_width)
        self._add("ctx", word_embeddings(clip, words) if words else normal(g, n_ctx, width[0]))
        self._add_linear("proj", *uniform_linear(g, *width))
        for i in range(depth - 1):
            self._add(f"compound_prompts_text.{i}", normal(g, n_ctx, width[0]))
        weight, bias = uniform_linear(g, *width)
        for i in range(depth - 1):
            self._add_linear(f"compound_prompt_projections.{i}", weight.clone(), bias.clone())

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """P~_k = F_k(P_k): text prompts [depth, n_ctx, Wt] and vision prompts [depth, n_ctx, Wv]."""
        p = self._values(params)
        text = [p["ctx"], *(p[f"compound_prompts_text.{i}"] for i in range(self.depth - 1))]
        maps = ["proj", *(f"compound_prompt_projections.{i}" for i in range(self.depth - 1))]
        vision = [linear(t, p, name) for t, name in zip(text, maps, strict=True)]
        return Prompts(stack_layers(text), stack_layers(vision))


@register
class MaPLe(Method):
    """Multi-modal prompts. Learned: `ctx`, `proj`, `compound_prompts_text`, `compound_prompt_projections`."""

    name, Config = "maple", MaPLeConfig
    recipe = TrainConfig(epochs=2, batch_size=4, lr=0.0026)     # the first epoch is the warm-up at 1e-5

    def make_learner(self) -> CoupledPrompt:
        c = self.config
        return CoupledPrompt(self.clip, c.n_ctx, c.depth, c.init, seed=c.seed)
