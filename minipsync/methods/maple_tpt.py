"""MaPLe + TPT: TPT's loop around trained MaPLe prompts, the baseline of PromptAlign (arXiv:2311.01459).

Everything that MaPLe learned is tuned on each test image: text prompts, deep prompts and couplings. Two
implementations exist, and the published rows do not say which gave them (METHODS 5.7):

    A  the TPT fork of MaPLe's authors: the text is "p1 p2 {name}.", so the words "of a" that MaPLe was
       trained with are lost; lr 5e-3; AugMix on fine-grained sets.
    B  PromptAlign's code with the alignment off: "p1 p2 of a {name}."; lr 4e-2 on ImageNet's variants and
       5e-4 on fine-grained sets; never AugMix.
"""

from dataclasses import dataclass
from typing import Literal

from ..settings import Settings, require
from .base import register
from .inputs import check_test_time
from .maple import CoupledPrompt
from .tpt import TestTimeMethod


@dataclass(frozen=True)
class MaPLeTPTConfig(Settings):
    """Where a value is None the variant sets it."""

    variant: Literal["A", "B"] = "B"      # not stated; B is PromptAlign without its alignment
    fine_grained: bool = False            # the ten transfer sets: True; ImageNet, its variants and PUG: False
    n_ctx: int = 2                        # as the loaded MaPLe
    depth: int = 3                        # as the loaded MaPLe (cross-dataset config)
    init: str | None = "a photo of a"     # as the loaded MaPLe; gives the tail "of a" in variant B
    n_views: int = 64                     # the image and 63 augmented views
    selection: float = 0.1                # 6 of 64
    steps: int = 1                        # both codes
    lr: float | None = None               # A 5e-3; B 4e-2, fine-grained 5e-4
    weight_decay: float = 0.01            # torch's default, as in both codes
    crop_scale: tuple[float, float] = (0.08, 1.0)           # share of the image (torchvision's default)
    augmix: bool | None = None            # A on fine-grained sets; B never
    seed: int = 1                         # of the views; the codes use the seed of the weights
    episodes: int | None = None           # images at a time, no matter for the result; None = by memory

    def __post_init__(self):
        a = self.variant == "A"
        self.follow(lr=5e-3 if a else 5e-4 if self.fine_grained else 4e-2, augmix=a and self.fine_grained)
        check_test_time("maple_tpt", self)
        require(self.depth >= 1, "maple_tpt", "depth", self.depth, "1 or more layers")


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
