"""IVLP, independent vision-language prompting: MaPLe's baseline (arXiv:2210.03117, sec. 4.2 and table 1).

Deep prompts in both encoders as in MaPLe, but each encoder has its own: no coupling. With prompts in one
encoder only it is deep language prompting, or visual prompt tuning (VPT, Jia et al. 2022, arXiv:2203.12119).
"""

from pydantic import NonNegativeInt

from ..settings import Settings
from ..training import TrainConfig
from .base import Method, register
from .prompts import IndependentPrompt


class IVLPConfig(Settings, title="ivlp"):
    """Config vit_b16_c2_ep5_batch4_2+2ctx of the MaPLe repository."""

    n_text: NonNegativeInt = 2
    """prompt tokens per text layer; 0: vision only"""
    depth_text: int | None = None
    """text layers with prompts; None: every layer, 12 of 12 in the paper"""
    n_vision: NonNegativeInt = 2
    """prompt tokens per vision layer; 0: language only"""
    depth_vision: int | None = None
    """vision layers with prompts; None: every layer, 12 of 12 in the paper"""
    init: str | None = "a photo of a"
    """layer 0 of the text starts from the first n_text words, the others stay fixed; None: N(0, 0.02^2)"""
    seed: int = 1
    """seed of the start and of the few-shot choice; the paper averages 1, 2 and 3"""

    def check(self):
        if self.n_text + self.n_vision == 0:
            raise ValueError("n_text + n_vision=0 does not fit; expected 1 or more tokens")


# Prompts in one encoder: build("ivlp", clip, names, **VPT).fit(train_set, lr=0.0025)
LANGUAGE_ONLY = {"n_text": 4, "n_vision": 0}
VPT = {"n_text": 0, "n_vision": 8}                               # the text is fixed: "a photo of a {name}."


@register
class IVLP(Method):
    """Independent prompts. Learned: `ctx` and `VPT_shallow` for text, `VPT` and `VPT_shallow` for images."""

    name, Config = "ivlp", IVLPConfig
    recipe = TrainConfig(epochs=5, batch_size=4, lr=0.0035)

    def make_learner(self):
        c = self.config
        return IndependentPrompt(self.clip, c.n_text, c.depth_text, c.n_vision, c.depth_vision, c.init,
                                 seed=c.seed)
