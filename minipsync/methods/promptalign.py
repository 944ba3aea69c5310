"""PromptAlign (Abdul Samadh et al. 2023, arXiv:2311.01459): entropy, and token moments aligned to the source.

TPT's confident views F of the test image have token means and variances in each vision block; the source
images, seen once offline, have theirs. Tune all MaPLe tensors p by one AdamW step on

    L(p) = H( mean prediction over F )                                                       (TPT, eq. 3)
         + weight / (to - from) * sum_l  1/2 mean|mu_l - mu^_l| + 1/2 mean|var_l - var^_l|   (eq. 5, as coded)

mu_l, var_l: over the views, for each token position and channel of the input of block l. As in the released
code l runs from `align_from` to `align_to` - 2, one block fewer than the divisor says, both terms are halved,
and |.| is averaged over positions and channels; the poster's formula has none of the three (docs/METHODS.md,
5.8).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from ..data.content import of_dataset
from ..settings import require
from ..source.domain import SourceDomain
from .base import Params
from .maple import CoupledPrompt, MaPLe, MaPLeConfig
from .numerics import full_precision
from .registry import register
from .test_time import TestTimeConfig
from .tpt import marginal_entropy
from .with_source import SourceMethod


# ---- token moments ----
def view_moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the views, at each token and channel: [B, V, T, W] -> 2 x [B, T, W]."""
    tokens = full_precision(tokens)
    return tokens.mean(-3), tokens.var(-3, correction=0)


def moment_alignment(tokens: Sequence[Tensor], means: Sequence[Tensor],
                     variances: Sequence[Tensor]) -> Tensor:
    """L1 distance of the views' token moments to the source's, summed over the given layers -> [B].

    tokens: one [B, V, T, W] per layer; means, variances: one [T, W] per layer. For each layer
    0.5 * mean|mu - mu_source| + 0.5 * mean|var - var_source| over the T * W entries, as in PromptAlign's
    released code; `objective` divides by the number of layers and multiplies by the weight of 100.
    """
    total = tokens[0].new_zeros(len(tokens[0]))
    for x, source_mean, source_var in zip(tokens, means, variances, strict=True):
        mean, var = view_moments(x)                                                                # [B, T, W]
        total = total + 0.5 * (mean - source_mean).abs().mean((-2, -1))
        total = total + 0.5 * (var - source_var).abs().mean((-2, -1))
    return total


class PromptAlignConfig(TestTimeConfig, MaPLeConfig, title="promptalign"):
    """PromptAlign's configs. n_ctx, depth and init are those of the loaded MaPLe."""

    fine_grained: bool = False
    """True for the ten transfer sets, False for ImageNet's variants and PUG"""
    entropy: bool = True
    """minimise TPT's entropy, too; off for the authors' ablation"""
    weight: NonNegativeFloat = 100.0
    """weight W of the alignment; 0: MaPLe + TPT"""
    align_from: NonNegativeInt = 0
    """first vision block whose input is aligned"""
    align_to: int = 3
    """blocks align_from … align_to - 2 are aligned: 0 and 1"""
    lr: PositiveFloat = Field(default_factory=lambda given: 5e-4 if given["fine_grained"] else 4e-2)
    """rate of AdamW; None: 4e-2, on fine-grained sets 5e-4"""
    augmix: bool = False
    """AugMix in the views; never in the paper"""

    def check(self) -> None:
        self.require(self.entropy or self.weight > 0, "entropy", "True where weight is 0")
        self.require(self.align_to >= self.align_from + 2, "align_to",
                     "at least align_from + 2, since the last block of the range is left out")


@register
class PromptAlign(SourceMethod):
    """Tune every MaPLe tensor on the test image. Needs MaPLe's prompts, and the source's moments for them."""

    name, Config, needs = "promptalign", PromptAlignConfig, "moments"
    accepts = ("maple",)
    recipe = MaPLe.recipe

    def __init__(self, clip: Any, class_names: Any, config: Any = None, **settings: Any):
        super().__init__(clip, class_names, config, **settings)
        top = clip.vision_layers + 1
        require(self.config.align_to <= top, "promptalign", "align_to", self.config.align_to,
                f"at most {top}, this CLIP has {top - 1} vision blocks")

    def make_learner(self) -> CoupledPrompt:
        c = self.config
        return CoupledPrompt(self.clip, c.n_ctx, c.depth, c.init, seed=c.seed)

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks whose inputs are aligned."""
        return tuple(range(self.config.align_from, self.config.align_to - 1))

    def objective(self, chosen: Tensor, params: Params) -> dict[str, Tensor]:
        """L(p), as written above, and its two parts; chosen [B, k, 3, S, S] -> name -> [B]."""
        c, prompts = self.config, self.learner(params)
        text = self.clip.encode_text(self.packed, prompts.text)                        # [B, C, D]
        blocks = self.blocks if self.source is not None else ()
        image, inputs = self.clip.encode_image(chosen, prompts.vision, ("cls", *blocks))    # [B, k, D]
        entropy = marginal_entropy(self.clip.logit_scale * image @ text.mT)            # [B]
        align = 0.0 * entropy
        if blocks:
            align = moment_alignment([inputs[k] for k in blocks], [self.known.means[k] for k in blocks],
                                     [self.known.variances[k] for k in blocks])        # [B]
        loss = c.entropy * entropy + c.weight / (c.align_to - c.align_from) * align
        return {"loss": loss, "entropy": entropy, "align": align}

    # ---- the source ----
    def source_is_needed(self) -> bool:
        return self.config.weight > 0

    def wanted_source(self, source_set: Any = None, cache: str | Path | None = None) -> dict:
        content = {"content": of_dataset(source_set, cache)} if source_set is not None else {}
        return super().wanted_source() | content

    def accept(self, source: SourceDomain) -> None:
        tokens = len(self.clip.model.visual.positional_embedding) + self.config.n_ctx
        means = source.tensors()["means"]
        shape, need = tuple(means.shape), (len(self.blocks), tokens, self.clip.vision_width)
        if shape[0] <= max(self.blocks) or shape[1:] != need[1:]:
            raise ValueError(f"{self.name}: source statistics of shape {shape}, expected {need} or more "
                             "layers: layers, tokens with prompts, channels")
