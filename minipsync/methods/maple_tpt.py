"""MaPLe + TPT: TPT's loop around trained MaPLe prompts, the baseline of PromptAlign (arXiv:2311.01459).

Everything that MaPLe learned is tuned on each test image: text prompts, deep prompts and couplings. Two
implementations exist, and the published rows do not say which gave them (METHODS 5.7):

    A  the TPT fork of MaPLe's authors: the text is "p1 p2 {name}.", so the words "of a" that MaPLe was
       trained with are lost; lr 5e-3; AugMix on fine-grained sets.
    B  PromptAlign's code with the alignment off: "p1 p2 of a {name}."; lr 4e-2 on ImageNet's variants and
       5e-4 on fine-grained sets; never AugMix.
"""

from typing import Literal

from pydantic import Field, PositiveFloat

from .maple import CoupledPrompt, MaPLeConfig
from .registry import register
from .test_time import TestTimeConfig
from .tpt import TestTimeMethod


class MaPLeTPTConfig(TestTimeConfig, MaPLeConfig, title="maple_tpt"):
    """Rate and AugMix follow from the variant. n_ctx, depth and init are those of the loaded MaPLe."""

    variant: Literal["A", "B"] = "B"
    """which implementation; the papers do not say, B is PromptAlign without its alignment"""
    fine_grained: bool = False
    """True for the ten transfer sets, False for ImageNet, its variants and PUG"""
    lr: PositiveFloat = Field(default_factory=lambda given: (
        5e-3 if given["variant"] == "A" else 5e-4 if given["fine_grained"] else 4e-2))
    """rate of AdamW; None: 5e-3 in variant A; in B 4e-2, and 5e-4 on fine-grained sets"""
    augmix: bool = Field(default_factory=lambda given: given["variant"] == "A" and given["fine_grained"])
    """AugMix in the views; None: in variant A on fine-grained sets, in B never"""


@register
class MaPLeTPT(TestTimeMethod):
    """Tune every MaPLe tensor on the test image by TPT's entropy. Load MaPLe's prompts first."""

    name, Config = "maple_tpt", MaPLeTPTConfig
    accepts = ("maple",)

    def make_learner(self) -> CoupledPrompt:
        c = self.config
        learner = CoupledPrompt(self.clip, c.n_ctx, c.depth, c.init, seed=c.seed)
        if c.variant == "A":
            learner.tail = ""
        return learner
