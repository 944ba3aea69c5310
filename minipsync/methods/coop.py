"""CoOp (Zhou et al. 2022, arXiv:2109.01134): learn the words around the class name.

The prompt of class c is [v_1] … [v_M] [name of c] "." with M learned vectors v (sec. 3.2), the same for all
classes or a set for each ("class-specific context"); the name stands at their end, in the middle or in front.
Both encoders stay frozen; cross-entropy on a few labelled images per class trains v.
"""

from typing import Any, Literal

from pydantic import Field, PositiveInt
from torch import Generator, Tensor

from ..clip.encoders import Clip
from ..clip.text import tokenize
from ..settings import Settings
from ..training import TrainConfig
from .base import Method
from .learner import Learner, Prompts, generator, normal, word_embeddings
from .registry import register


def context_length(otherwise: int) -> Any:
    """The field n_ctx: as many vectors as init has tokens, `otherwise` many without init."""
    return Field(default_factory=lambda given: (
        otherwise if given["init"] is None else n_tokens(given["init"])))


def n_tokens(words: str) -> int:
    """How many tokens CLIP's tokeniser makes of these words, without start and end."""
    return len(tokenize(words)) - 2


class ContextConfig(Settings):
    """What CoOp, CoCoOp and TPT share: a context that may start from words."""

    init: str | None = None
    """words that the context starts from; None: random numbers, N(0, 0.02^2)"""
    n_ctx: PositiveInt = context_length(16)
    """number M of context vectors; None: the number of tokens in init"""

    def check(self) -> None:
        if self.init is not None:
            n = n_tokens(self.init)
            self.require(n >= 1, "init", "words, or None for a random start")
            self.require(self.n_ctx == n, "n_ctx", f"{n}, one vector for each token of init={self.init!r}: "
                                                   "leave n_ctx out, or say init=None for a random start")


class CoOpConfig(ContextConfig, title="coop"):
    """CoOp's N_CTX 16 configs, class token at the end; the CoCoOp paper has init="a photo of a"."""

    class_specific: bool = False
    """CSC: a context for each class; it cannot serve new classes"""
    position: Literal["end", "middle", "front"] = "end"
    """where the class name stands"""
    seed: int = 1
    """seed of the start and of the few-shot choice; the papers average 1, 2 and 3"""


class ContextPrompt(Learner):
    """CoOp's context: `ctx` [n_ctx, W], or [n_classes, n_ctx, W] if `class_specific`. TPT tunes the same.

    init: words to start from, as "a photo of a", whose number of tokens becomes n_ctx; None: N(0, 0.02^2).
      (The official code ignores class_specific if there is an init; here every class starts from it.)
    position: of the class name, "end", "middle" or "front" (`pack_context` shows the three).
    """

    def __init__(self, clip: Clip, n_ctx: int = 16, init: str | None = None, class_specific: bool = False,
                 n_classes: int | None = None, *, position: str = "end", seed: int | Generator = 0):
        if class_specific and n_classes is None:
            raise ValueError("class_specific=True needs n_classes, the number of classes")
        start = word_embeddings(clip, init) if init else None
        super().__init__(clip, n_ctx if start is None else len(start), position=position,
                         n_classes=n_classes if class_specific else None)
        shape = [self.n_ctx, clip.text_width]
        if class_specific and n_classes is not None:
            shape.insert(0, n_classes)
        value = normal(generator(seed), *shape) if start is None else start.expand(shape).clone()
        self._add("ctx", value)

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Give the context to the text encoder, as tokens of layer 0 in the places left free for it.

        -> text prompts [1, S, W] with S = n_ctx, or n_classes * n_ctx; [B, 1, S, W] with episodes.
        """
        ctx = self._values(params)["ctx"]
        if self.n_classes is not None:
            ctx = ctx.flatten(-3, -2)  # (..., C*n, W): slot = class * n_ctx + m
        return Prompts(text=ctx.unsqueeze(-3))


@register
class CoOp(Method):
    """Context optimisation. `learner.ctx` is [M, W], or [C, M, W] if class-specific."""

    name, Config = "coop", CoOpConfig
    recipe = TrainConfig(epochs=50, batch_size=32, lr=0.002)    # ImageNet; on other sets 200 (16 shots)

    def make_learner(self) -> ContextPrompt:
        c = self.config
        return ContextPrompt(self.clip, c.n_ctx, c.init, c.class_specific, len(self.class_names),
                             position=c.position, seed=c.seed)
