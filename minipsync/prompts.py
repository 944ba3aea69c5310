"""Learnable prompts: from parameters to the tensors that `Clip` places in its two encoders.

A learner's `forward(params)` gives `Prompts(text, vision)`. `params` (names as in the official code) replaces the
learner's own parameters and may carry a leading episode axis B, all of them or some: one set of prompts per test
image, computed at once. `episodes(B)` makes such a set of leaves.

    ContextPrompt      CoOp    arXiv:2109.01134   words before the class name                  METHODS 5.2
    ConditionalPrompt  CoCoOp  arXiv:2203.05557   the same, shifted by the image               METHODS 5.3
    CoupledPrompt      MaPLe   arXiv:2210.03117   both encoders, vision computed from text     METHODS 5.4
    IndependentPrompt  IVLP    (MaPLe's baseline) both encoders, each with its own             METHODS 5.5
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from minipsync.clip import Clip
from minipsync.text import PackedText, pack_context, tokenize

STD = 0.02  # of every prompt that starts at random (all papers)


@dataclass
class Prompts:
    """What the encoders take: `text` [L, S, W] or [B, L, S, W], `vision` [L, n, W] or [B, L, n, W]; None = no prompts."""

    text: Tensor | None = None
    vision: Tensor | None = None


def word_embeddings(clip: Clip, words: str) -> Tensor:
    """Token embeddings [n, W] of `words`, one per token: what a context starts from."""
    ids = torch.tensor(tokenize(words)[1:-1], device=clip.device)
    return clip.text_tower.token_embedding(ids).detach().clone()


class Learner(nn.Module):
    """Parameters under their official names, and the text packing that goes with them.

    The random ones are drawn on the CPU from `seed` (an int or a torch.Generator), the same on every device.
    """

    def __init__(self, clip: Clip, n_ctx: int, *, tail: str = "", position: str = "end", n_classes: int | None = None,
                 seed: int | Generator = 0):
        super().__init__()
        self.n_ctx, self.tail, self.position, self.n_classes = n_ctx, tail, position, n_classes
        self.context_length, self._device = clip.context_length, clip.device
        self._generator = seed if isinstance(seed, Generator) else Generator().manual_seed(seed)

    def packing(self, class_names: list[str]) -> PackedText:
        """The texts whose slots this learner's prompts fill. ValueError if class-specific and of another length."""
        if self.n_classes is not None and len(class_names) != self.n_classes:
            raise ValueError(f"a class-specific context for {self.n_classes} classes got {len(class_names)} class names: "
                             "use the class list it was made for, or class_specific=False")
        return pack_context(class_names, self.n_ctx, tail=self.tail, position=self.position,
                            class_specific=self.n_classes is not None, context_length=self.context_length)

    def episodes(self, n: int) -> dict[str, Tensor]:
        """The current parameters n times, {name: leaf [n, ...] that requires grad}, for `forward(params)`."""
        return {name: p.detach().expand(n, *p.shape).clone().requires_grad_() for name, p in self.named_parameters()}

    def _parameter(self, name: str, value: Tensor) -> None:
        """Register `value` under a dotted name, with plain modules for the parts before the last dot."""
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(leaf, nn.Parameter(value.to(self._device)))

    def _normal(self, *shape: int) -> Tensor:
        return STD * torch.randn(shape, generator=self._generator)

    def _linear(self, name: str, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
        """Register name.weight and name.bias with torch's usual start, uniform in +-1/sqrt(n_in)."""
        weight, bias = ((2 * torch.rand(shape, generator=self._generator) - 1) * n_in**-0.5
                        for shape in ((n_out, n_in), (n_out,)))
        self._parameter(f"{name}.weight", weight)
        self._parameter(f"{name}.bias", bias)
        return weight, bias

    def _values(self, params: dict[str, Tensor] | None) -> dict[str, Tensor]:
        own = dict(self.named_parameters())
        if params and (unknown := set(params) - set(own)):
            raise ValueError(f"unknown parameters {', '.join(sorted(unknown))}, expected some of {', '.join(own)}")
        return own | (params or {})


class ContextPrompt(Learner):
    """CoOp: `ctx` [n_ctx, W], or [n_classes, n_ctx, W] if `class_specific`; also what TPT tunes.

    `init`: words to start from, as "a photo of a"; they set n_ctx to their number of tokens. None: N(0, 0.02^2).
    (The official code quietly gives up class_specific when there are init words; here every class starts from them.)
    `position`: "end", "middle" or "front", see `pack_context`.
    """

    def __init__(self, clip: Clip, n_ctx: int = 16, init: str | None = None, class_specific: bool = False,
                 n_classes: int | None = None, *, position: str = "end", seed: int | Generator = 0):
        if class_specific and n_classes is None:
            raise ValueError("a class-specific context needs n_classes, the number of classes")
        words = word_embeddings(clip, init) if init else None
        super().__init__(clip, n_ctx if words is None else len(words), position=position,
                         n_classes=n_classes if class_specific else None, seed=seed)
        lead = (n_classes,) if class_specific else ()
        shape = (*lead, self.n_ctx, clip.text_width)
        self._parameter("ctx", self._normal(*shape) if words is None else words.expand(shape).clone())

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Prompts with text [1, S, W], S = n_ctx or n_classes * n_ctx; [B, 1, S, W] from params with episodes."""
        ctx = self._values(params)["ctx"]
        if self.n_classes is not None:
            ctx = ctx.flatten(-3, -2)  # (..., C*n, W): slot = class * n_ctx + m
        return Prompts(text=ctx.unsqueeze(-3))


class ConditionalPrompt(Learner):
    """CoCoOp: `ctx` plus one vector per image from a small net on its feature, added to every context token (eq. 3)."""

    def __init__(self, clip: Clip, n_ctx: int = 4, init: str | None = "a photo of a", *, seed: int | Generator = 0):
        words = word_embeddings(clip, init) if init else None
        super().__init__(clip, n_ctx if words is None else len(words), seed=seed)
        self._parameter("ctx", self._normal(n_ctx, clip.text_width) if words is None else words)
        hidden = max(1, clip.embed_dim // 16)
        self._linear("meta_net.linear1", clip.embed_dim, hidden)
        self._linear("meta_net.linear2", hidden, clip.text_width)

    def forward(self, image_features: Tensor, params: dict[str, Tensor] | None = None) -> Prompts:
        """Features [B, D] of B images -> prompts with text [B, 1, n_ctx, W], one episode per image."""
        p = self._values(params)
        x = image_features[:, None]  # (B, 1, D)
        x = F.relu(_linear(x, p, "meta_net.linear1"))
        x = _linear(x, p, "meta_net.linear2")  # (B, 1, W)
        return Prompts(text=(p["ctx"] + x).unsqueeze(-3))


class CoupledPrompt(Learner):
    """MaPLe: `n_ctx` text tokens in each of `depth` layers, and from each, by one linear map per layer, the vision tokens.

    Layer 0 starts from the first n_ctx words of `init`; the words left over stay fixed in the text ("of a").
    Without init, or with more tokens than words, layer 0 starts at random and nothing is left over. The deep
    couplings start as copies of one map, as in the official code.
    Raises ValueError for a depth the model does not have, or a word of `init` that is several tokens.
    """

    def __init__(self, clip: Clip, n_ctx: int = 2, depth: int = 3, init: str | None = "a photo of a", *,
                 seed: int | Generator = 0):
        words, tail = _split_words(init, n_ctx)
        super().__init__(clip, n_ctx, tail=tail, seed=seed)
        _check_depth(depth, clip.text_layers, f"text layers in {clip.name}")
        _check_depth(depth, clip.vision_layers, f"vision layers in {clip.name}")
        self.depth = depth
        self._parameter("ctx", word_embeddings(clip, words) if words else self._normal(n_ctx, clip.text_width))
        self._linear("proj", clip.text_width, clip.vision_width)
        for i in range(depth - 1):
            self._parameter(f"compound_prompts_text.{i}", self._normal(n_ctx, clip.text_width))
        for i in range(depth - 1):
            if i == 0:
                weight, bias = self._linear("compound_prompt_projections.0", clip.text_width, clip.vision_width)
            else:
                self._parameter(f"compound_prompt_projections.{i}.weight", weight.clone())
                self._parameter(f"compound_prompt_projections.{i}.bias", bias.clone())

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Prompts with text [depth, n_ctx, Wt] and vision [depth, n_ctx, Wv]; [B, ...] from params with episodes."""
        p = self._values(params)
        text = [p["ctx"], *(p[f"compound_prompts_text.{i}"] for i in range(self.depth - 1))]
        maps = ["proj", *(f"compound_prompt_projections.{i}" for i in range(self.depth - 1))]
        return Prompts(_stack(text), _stack([_linear(t, p, name) for t, name in zip(text, maps, strict=True)]))


class IndependentPrompt(Learner):
    """IVLP: prompts of their own in both encoders; `n_text=0` is visual prompt tuning, `n_vision=0` language only.

    `depth_*`: layers with prompts, None = every layer. Text as in `CoupledPrompt`: first words of `init` learnable, the
    rest fixed (with n_text=0 all of them).
    """

    def __init__(self, clip: Clip, n_text: int = 2, depth_text: int | None = None, n_vision: int = 2,
                 depth_vision: int | None = None, init: str | None = "a photo of a", *, seed: int | Generator = 0):
        words, tail = _split_words(init, n_text)
        super().__init__(clip, n_text, tail=tail, seed=seed)
        self.text_names: list[str] = []
        self.vision_names: list[str] = []
        if n_text:
            depth = clip.text_layers if depth_text is None else depth_text
            _check_depth(depth, clip.text_layers, f"text layers in {clip.name}")
            self.text_names = ["ctx", *(f"text_encoder.transformer.resblocks.{k}.VPT_shallow" for k in range(1, depth))]
        if n_vision:
            depth = clip.vision_layers if depth_vision is None else depth_vision
            _check_depth(depth, clip.vision_layers, f"vision layers in {clip.name}")
            self.vision_names = ["image_encoder.VPT",
                                 *(f"image_encoder.transformer.resblocks.{k}.VPT_shallow" for k in range(1, depth))]
        for name in self.text_names:
            first = name == "ctx" and words
            self._parameter(name, word_embeddings(clip, words) if first else self._normal(n_text, clip.text_width))
        for name in self.vision_names:
            self._parameter(name, self._normal(n_vision, clip.vision_width))

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """Prompts with text [depth_text, n_text, Wt] and vision [depth_vision, n_vision, Wv]; [B, ...] with episodes."""
        p = self._values(params)
        return Prompts(*(_stack([p[n] for n in names]) if names else None for names in (self.text_names, self.vision_names)))


def _linear(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """x [..., n, in] through p[name.weight] [..., out, in] and p[name.bias] [..., out], episodes broadcast."""
    return x @ p[f"{name}.weight"].transpose(-1, -2) + p[f"{name}.bias"].unsqueeze(-2)


def _stack(layers: list[Tensor]) -> Tensor:
    """Layers of [n, W] or [B, n, W] -> [L, n, W], or [B, L, n, W] if any has episodes."""
    return torch.stack(torch.broadcast_tensors(*layers), dim=-3)


def _split_words(init: str | None, n_ctx: int) -> tuple[str, str]:
    """The first n_ctx words of `init` and the others; two empty strings if there are not enough."""
    words = (init or "").split()
    if n_ctx > len(words):
        return "", ""
    if len(tokenize(" ".join(words[:n_ctx]))) - 2 != n_ctx:
        raise ValueError(f"init {init!r}: a learnable token starts from one word of one token, but the first {n_ctx} "
                         f"words are {len(tokenize(' '.join(words[:n_ctx]))) - 2} tokens: use other words or init=None")
    return " ".join(words[:n_ctx]), " ".join(words[n_ctx:])


def _check_depth(depth: int, layers: int, what: str) -> None:
    if not 1 <= depth <= layers:
        raise ValueError(f"prompt depth is {depth}, expected 1 to {layers}, the number of {what}")
