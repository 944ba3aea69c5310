"""CoOp (Zhou et al. 2022, arXiv:2109.01134): learn the words around the class name.

The prompt of class c is [v_1] … [v_M] [name of c] "." with M learned vectors v (sec. 3.2), the same for all
classes or a set for each ("class-specific context"); the name stands at their end, in the middle or in front.
Both encoders stay frozen; cross-entropy on a few labelled images per class trains v.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Generator, Tensor

from ..clip.encoders import Clip
from ..clip.text import tokenize
from ..settings import Settings, require
from ..training import TrainConfig
from .base import Method, register
from .learner import Learner, Prompts, generator, normal, word_embeddings


@dataclass(frozen=True)
class CoOpConfig(Settings):
    """CoOp's N_CTX 16 configs, class token at the end."""

    n_ctx: int | None = None              # M; None: 16, or the number of words in init
    init: str | None = None               # None: N(0, 0.02^2); the CoCoOp paper: "a photo of a"
    class_specific: bool = False          # CSC: a context per class; cannot serve new classes
    position: Literal["end", "middle", "front"] = "end"    # where the name stands
    seed: int = 1                         # of start and few-shot sample; the papers average 1, 2, 3

    def __post_init__(self):
        count_words("coop", self, 16)


def count_words(owner, config, otherwise):
    """Let n_ctx follow from init: a vector for each token of its words, `otherwise` many without words."""
    if config.init is None:
        config.follow(n_ctx=otherwise)
        require(config.n_ctx >= 1, owner, "n_ctx", config.n_ctx, "1 or more tokens")
    else:
        n = len(tokenize(config.init)) - 2                        # without start and end
        require(n >= 1, owner, "init", config.init, "words, or None for a random start")
        config.follow(n_ctx=n)
        require(config.n_ctx == n, owner, "n_ctx", config.n_ctx,
                f"{n}, one vector for each token of init={config.init!r}: leave n_ctx out, or say init=None "
                "for a random start")


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
        shape = (*(n_classes,) * class_specific, self.n_ctx, clip.text_width)
        self._add("ctx", start.expand(shape).clone() if init else normal(generator(seed), *shape))

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
