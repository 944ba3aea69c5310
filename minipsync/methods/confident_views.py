"""The mean prediction of the most confident views, without tuning: what test-time tuning has to beat.

TPT (eq. 3 and 4) makes the mean prediction of the confident views surer and then predicts the image alone.
This control leaves the prompts as they are and predicts by that mean itself,

    p(c | x) = 1/|F| sum_{a in F} p(c | a; v),      F: the share `selection` of the views of lowest entropy.

Zanella and Ben Ayed 2024 (MTA, arXiv:2405.02266) and Farina et al. 2024 (ZERO, arXiv:2405.18330) show that
combining views without a step does as well as tuning on them; they weigh and sharpen the views otherwise.
"""

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ..settings import Share
from ..views.crops import CropScale
from .coop import ContextConfig, context_length
from .prediction import Prediction
from .registry import register
from .tpt import TPT, mean_log_probability, select_confident, take_views


class ConfidentViewsConfig(ContextConfig, title="confident_views"):
    """TPT's words, views and selection; of its settings those are missing that are about the step."""

    start: Literal["words", "coop", "cocoop"] = "words"
    """what the context is; with "coop" and "cocoop" load() their prompts"""
    init: str | None = "a photo of a"
    """words of the context, the same for every data set; None: as the loaded prompts"""
    n_ctx: PositiveInt = context_length(4)
    """number M of context vectors, as the loaded prompts; None: the number of tokens in init, else 4"""
    n_views: PositiveInt = 64
    """views per image: the image itself and 63 augmented ones"""
    selection: Share = 0.1
    """rho, the share of the views that is kept, those of lowest entropy: 6 of 64"""
    crop_scale: CropScale = (0.08, 1.0)
    """smallest and largest share of the image in a random crop (torchvision's default)"""
    augmix: bool = False
    """AugMix in the views; on for fine-grained sets, off for ImageNet and its variants"""
    seed: int = 0
    """seed of the views without view_seed; TPT's default"""
    view_seed: int = Field(default_factory=lambda given: given["seed"])
    """seed of the views; None: that of seed"""
    episodes: PositiveInt | None = None
    """images whose views are predicted at a time, which changes no result; None: as memory allows"""


@register
class ConfidentViews(TPT):
    """TPT's views and TPT's selection of them, and their mean in place of its step."""

    name, Config = "confident_views", ConfidentViewsConfig

    @torch.no_grad()
    def predict_views(self, views: Tensor) -> Prediction:
        """Log of the mean prediction of the chosen views [B, C], of views [B, V, 3, S, S] of B images."""
        x = self.inputs(views.to(self.clip.device))
        logits = self.first_logits(x, self.start(x))                                   # [B, V, C]
        chosen = take_views(logits, select_confident(logits, self.config.selection))   # [B, k, C]
        return Prediction(mean_log_probability(chosen), untuned=logits[:, 0])

    def adapt(self, views: Tensor) -> None:
        """Nothing is tuned; TypeError says what to call."""
        raise TypeError(f"{self.name} tunes nothing: predict(images) or predict_views(views) classifies; "
                        "tpt is what takes the step")
