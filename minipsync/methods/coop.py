"""CoOp (Zhou et al. 2022, arXiv:2109.01134): learn the words around the class name.

The prompt of class c is [v_1] … [v_M] [name of c] "." with M learned vectors v (sec. 3.2), the same for all
classes or a set for each ("class-specific context"); the name stands at their end, in the middle or in front.
Both encoders stay frozen; cross-entropy on a few labelled images per class trains v.
"""

from dataclasses import dataclass
from typing import Literal

from ..clip.text import tokenize
from ..settings import Settings, require
from ..training import TrainConfig
from .base import Method, register
from .prompts import ContextPrompt


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


@register
class CoOp(Method):
    """Context optimisation. `learner.ctx` is [M, W], or [C, M, W] if class-specific."""

    name, Config = "coop", CoOpConfig
    recipe = TrainConfig(epochs=50, batch_size=32, lr=0.002)    # ImageNet; on other sets 200 (16 shots)

    def make_learner(self):
        c = self.config
        return ContextPrompt(self.clip, c.n_ctx, c.init, c.class_specific, len(self.class_names),
                             position=c.position, seed=c.seed)
