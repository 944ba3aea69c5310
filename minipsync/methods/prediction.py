"""What `predict` takes and gives."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

Images = Image.Image | Sequence[Image.Image] | Tensor


class Prediction(Tensor):
    """Logits [B, C] of B images, a tensor like any other, with what belongs to them.

    untuned: the logits [B, C] before the prompts were tuned on the images; None where nothing is tuned.
    Results of computing with a Prediction are plain tensors.
    """

    untuned: Tensor | None
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, logits: Tensor, untuned: Tensor | None = None) -> "Prediction":
        self = logits.as_subclass(cls)
        self.untuned = untuned
        return self

    @property
    def logits(self) -> Tensor:
        """The logits [B, C] as a plain tensor."""
        return self.as_subclass(Tensor)
