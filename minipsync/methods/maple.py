"""MaPLe (Khattak et al. 2023, arXiv:2210.03117): prompts in both encoders, several layers deep, coupled.

Layer 0 puts n learned tokens behind SOS in the text; before each of the next J - 1 blocks they are replaced
by new ones (sec. 3.2, eq. 4-6). The vision encoder gets, at the same depths, a linear image of them:

    P~_k = F_k(P_k),      F_k: text width -> vision width,      k = 0 … J-1

so that a gradient from either encoder moves both. The words of `init` beyond the first n stay fixed in the
text ("of a").
"""

from pydantic import PositiveInt

from ..settings import Settings
from ..training import TrainConfig
from .base import Method, register
from .prompts import CoupledPrompt


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


@register
class MaPLe(Method):
    """Multi-modal prompts. Learned: `ctx`, `proj`, `compound_prompts_text`, `compound_prompt_projections`."""

    name, Config = "maple", MaPLeConfig
    recipe = TrainConfig(epochs=2, batch_size=4, lr=0.0026)     # the first epoch is the warm-up at 1e-5

    def make_learner(self):
        c = self.config
        return CoupledPrompt(self.clip, c.n_ctx, c.depth, c.init, seed=c.seed)
