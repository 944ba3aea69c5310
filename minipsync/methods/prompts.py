"""Learnable prompts: from parameters to the tensors that `Clip` puts into its two encoders.

A learner's `forward(params)` gives `Prompts(text, vision)`. `params` (names as in the official code) stands
in for the learner's own parameters, all or some, and may carry a leading episode axis B: one set of prompts
per test image, all computed at once. `episodes(B)` makes such a set of leaves.

    ContextPrompt      CoOp    arXiv:2109.01134   words before the class name                  METHODS 5.2
    ConditionalPrompt  CoCoOp  arXiv:2203.05557   the same, shifted by the image               METHODS 5.3
    CoupledPrompt      MaPLe   arXiv:2210.03117   both encoders, vision computed from text     METHODS 5.4
    IndependentPrompt  IVLP    (MaPLe's baseline) both encoders, each with its own             METHODS 5.5
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..clip.encoders import Clip
from ..clip.text import PackedText, pack_context, tokenize

STD = 0.02  # of every prompt that starts at random (all papers)


@dataclass
class Prompts:
    """What the encoders take: [layers, tokens, width], or that behind an episode axis; None = no prompts."""

    text: Tensor | None = None  # [L, S, Wt] or [B, L, S, Wt]
    vision: Tensor | None = None  # [L, n, Wv] or [B, L, n, Wv]


def word_embeddings(clip: Clip, words: str) -> Tensor:
    """Token embeddings [n, W] of `words`, one row per token: what a context starts from."""
    ids = torch.tensor(tokenize(words)[1:-1], device=clip.device)
    return clip.text_tower.token_embedding(ids).detach().clone()


class Learner(nn.Module):
    """Parameters under their official names, and the text packing that goes with them.

    Random ones are drawn on the CPU from `seed`, an int or a torch.Generator: the same on every device.
    """

    def __init__(self, clip: Clip, n_ctx: int, tail: str = "", position: str = "end",
                 n_classes: int | None = None):
        super().__init__()
        self.n_ctx, self.tail, self.position, self.n_classes = n_ctx, tail, position, n_classes
        self.context_length, self._device = clip.context_length, clip.device

    def packing(self, class_names: list[str]) -> PackedText:
        """The texts whose slots these prompts fill. ValueError if class-specific and of another length."""
        if self.n_classes is not None and len(class_names) != self.n_classes:
            raise ValueError(f"a class-specific context for {self.n_classes} classes got {len(class_names)} "
                             "class names: use the class list it was made for, or class_specific=False")
        return pack_context(class_names, self.n_ctx, tail=self.tail, position=self.position,
                            class_specific=self.n_classes is not None, context_length=self.context_length)

    def episodes(self, n: int) -> dict[str, Tensor]:
        """The current parameters n times: {name: leaf [n, ...] that requires grad}, for `forward(params)`."""
        own = self.named_parameters()
        return {name: p.detach().expand(n, *p.shape).clone().requires_grad_() for name, p in own}

    def _add(self, name: str, value: Tensor) -> None:
        """Register a parameter under a dotted name, with empty modules for the parts before the last dot."""
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(leaf, nn.Parameter(value.to(self._device)))

    def _add_linear(self, name: str, weight: Tensor, bias: Tensor) -> None:
        self._add(f"{name}.weight", weight)
        self._add(f"{name}.bias", bias)

    def _values(self, params: dict[str, Tensor] | None) -> dict[str, Tensor]:
        own = dict(self.named_parameters())
        if params and (unknown := sorted(set(params) - set(own))):
            raise ValueError(f"unknown parameters {', '.join(unknown)}, expected some of {', '.join(own)}")
        return own | (params or {})


class ContextPrompt(Learner):
    """CoOp: `ctx` [n_ctx, W], or [n_classes, n_ctx, W] if `class_specific`. Also what TPT tunes.

    `init`: words to start from, as "a photo of a", whose number of tokens becomes n_ctx; None: N(0, 0.02^2).
    (The official code drops class_specific in silence if there is an init; here every class starts from it.)
    `position` of the class name: "end", "middle" or "front", see `pack_context`.
    """

    def __init__(self, clip: Clip, n_ctx: int = 16, init: str | None = None, class_specific: bool = False,
                 n_classes: int | None = None, *, position: str = "end", seed: int | Generator = 0):
        if class_specific and n_classes is None:
            raise ValueError("class_specific=True needs n_classes, the number of classes")
        start = word_embeddings(clip, init) if init else None
        super().__init__(clip, n_ctx if start is None else len(start), position=position,
                         n_classes=n_classes if class_specific else None)
        shape = (*(n_classes,) * class_specific, self.n_ctx, clip.text_width)
        self._add("ctx", start.expand(shape).clone() if init else _normal(_generator(seed), *shape))

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Text prompts [1, S, W] with S = n_ctx, or n_classes * n_ctx; [B, 1, S, W] with episodes."""
        ctx = self._values(params)["ctx"]
        if self.n_classes is not None:
            ctx = ctx.flatten(-3, -2)  # (..., C*n, W): slot = class * n_ctx + m
        return Prompts(text=ctx.unsqueeze(-3))


class ConditionalPrompt(Learner):
    """CoCoOp: `ctx` [n_ctx, W] plus, on every token, one vector that a small net makes of the image feature.

    `init` as in `ContextPrompt`. The net is Linear D -> D/16, ReLU, Linear D/16 -> W.
    """

    def __init__(self, clip: Clip, n_ctx: int = 4, init: str | None = "a photo of a", *,
                 seed: int | Generator = 0):
        start, g = word_embeddings(clip, init) if init else None, _generator(seed)
        super().__init__(clip, n_ctx if start is None else len(start))
        self._add("ctx", _normal(g, n_ctx, clip.text_width) if start is None else start)
        hidden = max(1, clip.embed_dim // 16)
        self._add_linear("meta_net.linear1", *_uniform_linear(g, clip.embed_dim, hidden))
        self._add_linear("meta_net.linear2", *_uniform_linear(g, hidden, clip.text_width))

    def forward(self, image_features: Tensor, params: dict[str, Tensor] | None = None) -> Prompts:
        """Features [B, D] of B images -> text prompts [B, 1, n_ctx, W], one episode per image."""
        p = self._values(params)
        x = F.relu(_linear(image_features[:, None], p, "meta_net.linear1"))  # (B, 1, D/16)
        x = _linear(x, p, "meta_net.linear2")  # (B, 1, W)
        return Prompts(text=(p["ctx"] + x).unsqueeze(-3))


class CoupledPrompt(Learner):
    """MaPLe: n_ctx text tokens in each of `depth` layers; a linear map per layer makes vision tokens of them.

    Layer 0 starts from the first n_ctx words of `init`, and the words left over stay in the text as they are
    ("of a"). Without init, or with fewer words than n_ctx, it starts at random and nothing is left over.
    Deeper text tokens start at random, their maps as copies of one map, as in the official code.
    Raises ValueError for a depth that the model does not have, and a word of `init` that is several tokens.
    """

    def __init__(self, clip: Clip, n_ctx: int = 2, depth: int = 3, init: str | None = "a photo of a", *,
                 seed: int | Generator = 0):
        words, tail = _split_words(init, n_ctx)
        super().__init__(clip, n_ctx, tail)
        _check_depth(depth, clip, "text")
        _check_depth(depth, clip, "vision")
        self.depth, g, width = depth, _generator(seed), (clip.text_width, clip.vision_width)
        self._add("ctx", word_embeddings(clip, words) if words else _normal(g, n_ctx, width[0]))
        self._add_linear("proj", *_uniform_linear(g, *width))
        for i in range(depth - 1):
            self._add(f"compound_prompts_text.{i}", _normal(g, n_ctx, width[0]))
        weight, bias = _uniform_linear(g, *width)
        for i in range(depth - 1):
            self._add_linear(f"compound_prompt_projections.{i}", weight.clone(), bias.clone())

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Text prompts [depth, n_ctx, Wt] and vision prompts [depth, n_ctx, Wv]; [B, ...] with episodes."""
        p = self._values(params)
        text = [p["ctx"], *(p[f"compound_prompts_text.{i}"] for i in range(self.depth - 1))]
        maps = ["proj", *(f"compound_prompt_projections.{i}" for i in range(self.depth - 1))]
        vision = [_linear(t, p, name) for t, name in zip(text, maps, strict=True)]
        return Prompts(_stack(text), _stack(vision))


class IndependentPrompt(Learner):
    """IVLP: tokens of their own in both encoders. n_text=0 is visual prompt tuning, n_vision=0 language only.

    `depth_text`, `depth_vision`: layers with prompts, None = all. `init` as in `CoupledPrompt`; with n_text=0
    all its words stay as they are. Raises ValueError as `CoupledPrompt` does.
    """

    def __init__(self, clip: Clip, n_text: int = 2, depth_text: int | None = None, n_vision: int = 2,
                 depth_vision: int | None = None, init: str | None = "a photo of a", *,
                 seed: int | Generator = 0):
        words, tail = _split_words(init, n_text)
        super().__init__(clip, n_text, tail)
        self.text_names: list[str] = []
        self.vision_names: list[str] = []
        g, block = _generator(seed), "transformer.resblocks.{}.VPT_shallow"
        if n_text:
            depth = _check_depth(depth_text, clip, "text")
            self.text_names = ["ctx", *("text_encoder." + block.format(k) for k in range(1, depth))]
        if n_vision:
            depth = _check_depth(depth_vision, clip, "vision")
            deep = ("image_encoder." + block.format(k) for k in range(1, depth))
            self.vision_names = ["image_encoder.VPT", *deep]
        for name in self.text_names:
            self._add(name, _normal(g, n_text, clip.text_width))
        if n_text and words:
            self._add("ctx", word_embeddings(clip, words))
        for name in self.vision_names:
            self._add(name, _normal(g, n_vision, clip.vision_width))

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Text prompts [depth_text, n_text, Wt], vision prompts [depth_vision, n_vision, Wv]; or [B, ...]."""
        p = self._values(params)
        layers = ([p[name] for name in names] for names in (self.text_names, self.vision_names))
        return Prompts(*(_stack(tokens) if tokens else None for tokens in layers))


def _generator(seed: int | Generator) -> Generator:
    return seed if isinstance(seed, Generator) else Generator().manual_seed(seed)


def _normal(g: Generator, *shape: int) -> Tensor:
    return STD * torch.randn(shape, generator=g)


def _uniform_linear(g: Generator, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map as torch starts them: uniform in +-1/sqrt(n_in)."""
    weight, bias = torch.rand(n_out, n_in, generator=g), torch.rand(n_out, generator=g)
    return (2 * weight - 1) * n_in**-0.5, (2 * bias - 1) * n_in**-0.5


def _linear(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """x [..., n, in] -> [..., n, out] by p[name.weight] [..., out, in] and p[name.bias] [..., out]."""
    return x @ p[f"{name}.weight"].mT + p[f"{name}.bias"].unsqueeze(-2)


def _stack(layers: list[Tensor]) -> Tensor:
    """Layers of [n, W] or [B, n, W] -> [L, n, W], or [B, L, n, W] if any has episodes."""
    return torch.stack(torch.broadcast_tensors(*layers), dim=-3)


def _split_words(init: str | None, n_ctx: int) -> tuple[str, str]:
    """The first n_ctx words of `init`, and the others; two empty strings if there are too few."""
    words = (init or "").split()
    if n_ctx > len(words):
        return "", ""
    first = " ".join(words[:n_ctx])
    if (n_tokens := len(tokenize(first)) - 2) != n_ctx:
        raise ValueError(f"init {init!r}: {first!r} is {n_tokens} tokens, expected one per word for {n_ctx} "
                         "learnable ones: use other words or init=None")
    return first, " ".join(words[n_ctx:])


def _check_depth(depth: int | None, clip: Clip, what: str) -> int:
    """`depth`, or all layers for None."""
    layers = clip.text_layers if what == "text" else clip.vision_layers
    if not layers:
        raise ValueError(f"{clip.name} has a ResNet image encoder, which takes no prompts: use a ViT such as "
                         "'ViT-B-16', or a method that prompts the text alone (coop, cocoop, tpt)")
    depth = layers if depth is None else depth
    if not 1 <= depth <= layers:
        raise ValueError(f"prompt depth is {depth}, expected 1 to {layers}, the {what} layers of {clip.name}")
    return depth
