"""Tip-Adapter (Zhang et al. 2022, arXiv:2207.09519): zero-shot CLIP and a cache of a few labelled pictures.

The cache has the feature k_i of each picture as key and its label as value (sec. 3.1). A test image asks all
keys, the nearer the louder, and what they answer is added to zero-shot CLIP. Nothing is trained:

    logit_c(x) = exp(s) cos(f(x), t_c) + alpha * sum over pictures i of class c of exp( -beta (1 - f(x) . k_i) )
"""

from pydantic import NonNegativeFloat
from torch import Tensor

from .few_shot import FewShotConfig, FewShotMethod
from .registry import register


class TipAdapterConfig(FewShotConfig, title="tip_adapter"):
    """The paper's alpha and beta for all data; its code searches others on the test images (METHODS 9.3)."""

    alpha: NonNegativeFloat = 1.0
    """residual ratio, weight of the cache beside zero-shot CLIP; 0: zero-shot CLIP alone"""
    beta: NonNegativeFloat = 5.5
    """sharpness: how much louder near pictures are than far ones"""


@register
class TipAdapter(FewShotMethod):
    """Training-free Tip-Adapter; its fine-tuned form, Tip-Adapter-F, is not here."""

    name, Config = "tip_adapter", TipAdapterConfig

    def own_logits(self, x: Tensor) -> Tensor:
        """Zero-shot logits and the cache's: [N, 3, S, S] -> [N, C]."""
        keys, image = self.features(), self.clip.encode_image(x)                       # [C, K, D], [N, D]
        affinity = (image @ keys.flatten(0, 1).mT).unflatten(1, keys.shape[:2])        # [N, C, K]
        answers = (-self.config.beta * (1 - affinity)).exp() * self.learner.present
        return self.clip.logit_scale * image @ self.text_features().mT + self.config.alpha * answers.sum(-1)
