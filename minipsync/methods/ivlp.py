"""IVLP, independent vision-language prompting: MaPLe's baseline (arXiv:2210.03117, sec. 4.2 and table 1).

Deep prompts in both encoders as in MaPLe, but each encoder has its own: no coupling. With prompts in one
encoder only it is deep language prompting, or visual prompt tuning (VPT, Jia et al. 2022, arXiv:2203.12119).
"""

from pydantic import NonNegativeInt
from torch import Generator, Tensor

from ..clip.encoders import Clip
from ..settings import Settings
from ..training import TrainConfig
from .base import Method
from .learner import (
    Learner,
    Prompts,
    check_depth,
    generator,
    normal,
    split_words,
    stack_layers,
    word_embeddings,
)
from .registry import register


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

    def check(self) -> None:
        if self.n_text + self.n_vision == 0:
            raise ValueError("n_text + n_vision=0 does not fit; expected 1 or more tokens")


class IndependentPrompt(Learner):
    """IVLP's prompts: each encoder has tokens of its own, without a coupling.

    n_text, n_vision: tokens per layer; n_text=0 is visual prompt tuning, n_vision=0 language prompts only.
    depth_text, depth_vision: layers with prompts, None = all. init: as in `CoupledPrompt`; with n_text=0 all
    its words stay as they are. Raises ValueError as `CoupledPrompt` does.
    """

    def __init__(self, clip: Clip, n_text: int = 2, depth_text: int | None = None, n_vision: int = 2,
                 depth_vision: int | None = None, init: str | None = "a photo of a", *,
                 seed: int | Generator = 0):
        words, tail = split_words(init, n_text)
        super().__init__(clip, n_text, tail)
        self.text_names: list[str] = []
        self.vision_names: list[str] = []
        g, block = generator(seed), "transformer.resblocks.{}.VPT_shallow"
        if n_text:
            depth = check_depth(depth_text, clip, "text")
            self.text_names = ["ctx", *("text_encoder." + block.format(k) for k in range(1, depth))]
        if n_vision:
            depth = check_depth(depth_vision, clip, "vision")
            deep = ("image_encoder." + block.format(k) for k in range(1, depth))
            self.vision_names = ["image_encoder.VPT", *deep]
        for name in self.text_names:
            self._add(name, normal(g, n_text, clip.text_width))
        if n_text and words:
            self._add("ctx", word_embeddings(clip, words))
        for name in self.vision_names:
            self._add(name, normal(g, n_vision, clip.vision_width))

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Text prompts [depth_text, n_text, Wt], vision prompts [depth_vision, n_vision, Wv]; or [B, ...]."""
        p = self._values(params)
        layers = ([p[name] for name in names] for names in (self.text_names, self.vision_names))
        return Prompts(*(stack_layers(tokens) if tokens else None for tokens in layers))


# Prompts in one encoder: build("ivlp", clip, names, **VPT).fit(train_set, lr=0.0025)
LANGUAGE_ONLY = {"n_text": 4, "n_vision": 0}
VPT = {"n_text": 0, "n_vision": 8}                               # the text is fixed: "a photo of a {name}."


@register
class IVLP(Method):
    """Independent prompts. Learned: `ctx` and `VPT_shallow` for text, `VPT` and `VPT_shallow` for images."""

    name, Config = "ivlp", IVLPConfig
    recipe = TrainConfig(epochs=5, batch_size=4, lr=0.0035)

    def make_learner(self) -> IndependentPrompt:
        c = self.config
        return IndependentPrompt(self.clip, c.n_text, c.depth_text, c.n_vision, c.depth_vision, c.init,
                                 seed=c.seed)
