"""Nearest class mean: an image belongs to the class whose few pictures lie nearest on average. No words.

The oldest way to use a few labelled pictures (Mensink et al. 2013; as prototypes Snell et al. 2017,
arXiv:1703.05175; as a few-shot baseline Wang et al. 2019, arXiv:1911.04623), here on CLIP's image features f:

    m_c = normalise( sum over pictures i of class c of f(x_i) ),
    p(c | x) = softmax_c( exp(s) * cos(f(x), m_c) )
"""

import torch.nn.functional as F
from torch import Tensor

from .few_shot import FewShotConfig, FewShotMethod
from .registry import register


class NearestMeanConfig(FewShotConfig, title="nearest_mean"):
    """How many pictures."""


@register
class NearestMean(FewShotMethod):
    """Class means of the image features of a few pictures."""

    name, Config = "nearest_mean", NearestMeanConfig

    def encode_classes(self) -> Tensor:
        """m_c [C, D]: the mean of each class's pictures, which stands where other methods have its text."""
        return F.normalize(self.features().detach().sum(1), dim=-1)                    # missing rows add 0
