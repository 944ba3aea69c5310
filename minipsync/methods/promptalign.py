"""PromptAlign (Abdul Samadh et al. 2023, arXiv:2311.01459): entropy, and token moments aligned to the source.

TPT's confident views F of the test image have token means and variances in each vision block; the source
images, seen once offline, have theirs. Tune all MaPLe tensors p by one AdamW step on

    L(p) = H( mean prediction over F )                                                       (TPT, eq. 3)
         + weight / (to - from) * sum_l  1/2 mean|mu_l - mu^_l| + 1/2 mean|var_l - var^_l|   (eq. 5, as coded)

mu_l, var_l: over the views, for each token position and channel of the input of block l. As in the released
code l runs from `align_from` to `align_to` - 2, one block fewer than the divisor says, both terms are halved,
and |.| is averaged over positions and channels; the poster's formula has none of the three (METHODS 5.8).
"""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from ..settings import require
from .base import register
from .losses import marginal_entropy, moment_alignment
from .maple import MaPLe, MaPLeConfig
from .promptalign_source import StatisticsMethod
from .prompts import CoupledPrompt
from .tpt import TestTimeConfig


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

    def check(self):
        self.require(self.entropy or self.weight > 0, "entropy", "True where weight is 0")
        self.require(self.align_to >= self.align_from + 2, "align_to",
                     "at least align_from + 2, since the last block of the range is left out")


@register
class PromptAlign(StatisticsMethod):
    """Tune every MaPLe tensor on the test image. Needs MaPLe's prompts and `statistics` of the source for
    them: `load()` finds both, `prepare(source_set)` computes the statistics for other prompts."""

    name, Config = "promptalign", PromptAlignConfig
    accepts = ("maple",)
    recipe = MaPLe.recipe

    def __init__(self, clip, class_names, config=None, **settings):
        super().__init__(clip, class_names, config, **settings)
        self.statistics = None
        top = clip.vision_layers + 1
        require(self.config.align_to <= top, "promptalign", "align_to", self.config.align_to,
                f"at most {top}, this CLIP has {top - 1} vision blocks")

    def make_learner(self):
        c = self.config
        return CoupledPrompt(self.clip, c.n_ctx, c.depth, c.init, seed=c.seed)

    @property
    def blocks(self):
        """The blocks whose inputs are aligned."""
        return tuple(range(self.config.align_from, self.config.align_to - 1))

    def objective(self, chosen, params):
        c, prompts = self.config, self.learner(params)
        text = self.clip.encode_text(self.packed, prompts.text)                        # [B, C, D]
        blocks = self.blocks if self.statistics is not None else ()
        image, inputs = self.clip.encode_image(chosen, prompts.vision, ("cls", *blocks))    # [B, k, D]
        entropy = marginal_entropy(self.clip.logit_scale * image @ text.mT)            # [B]
        align = 0.0 * entropy
        if blocks:
            align = moment_alignment([inputs[k] for k in blocks], [self.statistics.means[k] for k in blocks],
                                     [self.statistics.variances[k] for k in blocks])   # [B]
        loss = c.entropy * entropy + c.weight / (c.align_to - c.align_from) * align
        return {"loss": loss, "entropy": entropy, "align": align}

    def adapt(self, views):
        if self.config.steps and self.config.weight:             # else nothing depends on the statistics
            self.check_source()
        return super().adapt(views)
