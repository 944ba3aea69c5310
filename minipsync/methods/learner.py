"""What all prompt learners share: parameters under their official names, and where they sit in the text.

A learner's `forward(params)` gives `Prompts(text, vision)`, the tensors that `Clip` puts into its two
encoders. `params` (name -> tensor) stands in for the learner's own parameters, for all or some of them, and
may carry a leading episode axis B: one set of prompts per test image, all of them computed at once.

Each learner stands in the file of its paper: ContextPrompt in coop.py, ConditionalPrompt in cocoop.py,
CoupledPrompt in maple.py, IndependentPrompt in ivlp.py.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from ..clip.encoders import Clip
from ..clip.text import PackedText, pack_context, tokenize

STD = 0.02  # standard deviation of every prompt that starts at random, in all the papers


@dataclass
class Prompts:
    """What the encoders take: tokens for the first L layers. None stands for an encoder without prompts."""

    text: Tensor | None = None  # [L, S, Wt], or [B, L, S, Wt] with episodes
    vision: Tensor | None = None  # [L, n, Wv], or [B, L, n, Wv] with episodes


class Learner(nn.Module):
    """Learnable prompts: parameters, and the packing of the texts whose slots they fill.

    Values drawn at random come from `seed` (an int or a torch.Generator) on the CPU, so that they are the
    same on every device.
    """

    def __init__(self, clip: Clip, n_ctx: int, tail: str = "", position: str = "end",
                 n_classes: int | None = None):
        super().__init__()
        self.n_ctx, self.tail, self.position, self.n_classes = n_ctx, tail, position, n_classes
        self.context_length, self._device = clip.context_length, clip.device

    def packing(self, class_names: list[str]) -> PackedText:
        """Pack the classes' texts, with slots for the prompts.

        Raises ValueError for another number of classes than class-specific prompts were made for.
        """
        if self.n_classes is not None and len(class_names) != self.n_classes:
            raise ValueError(f"a class-specific context for {self.n_classes} classes got {len(class_names)} "
                             "class names: use the class list it was made for, or class_specific=False")
        return pack_context(class_names, self.n_ctx, tail=self.tail, position=self.position,
                            class_specific=self.n_classes is not None, context_length=self.context_length)

    def episodes(self, n: int) -> dict[str, Tensor]:
        """Copy the present parameters n times: name -> leaf [n, ...] that requires a gradient."""
        own = self.named_parameters()
        return {name: p.detach().expand(n, *p.shape).clone().requires_grad_() for name, p in own}

    def _add(self, name: str, value: Tensor) -> None:
        """Register a parameter under a dotted name; empty modules stand for the parts before the last dot."""
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(value.to(self._device)))

    def _add_linear(self, name: str, weight: Tensor, bias: Tensor) -> None:
        self._add(f"{name}.weight", weight)
        self._add(f"{name}.bias", bias)

    def _values(self, params: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """The parameters by name, those of `params` in place of the learner's own."""
        own: dict[str, Tensor] = dict(self.named_parameters())
        if params and (unknown := sorted(set(params) - set(own))):
            raise ValueError(f"unknown parameters {', '.join(unknown)}, expected some of {', '.join(own)}")
        return own | (params or {})


# ---- where prompts start ----
def word_embeddings(clip: Clip, words: str) -> Tensor:
    """CLIP's token embeddings [n, W] of `words`, one row per token: what a context can start from."""
    ids = torch.tensor(tokenize(words)[1:-1], device=clip.device)
    return clip.text_tower.token_embedding(ids).detach().clone()


def generator(seed: int | Generator) -> Generator:
    """A random generator on the CPU; one that is given is used as it is."""
    return seed if isinstance(seed, Generator) else Generator().manual_seed(seed)


def normal(g: Generator, *shape: int) -> Tensor:
    """Draw from N(0, 0.02^2)."""
    return STD * torch.randn(shape, generator=g)


def uniform_linear(g: Generator, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
    """Draw weight and bias of a linear map as torch does: uniform in +-1/sqrt(n_in)."""
    weight, bias = torch.rand(n_out, n_in, generator=g), torch.rand(n_out, generator=g)
    return (2 * weight - 1) * n_in**-0.5, (2 * bias - 1) * n_in**-0.5


def split_words(init: str | None, n_ctx: int) -> tuple[str, str]:
    """Split `init` into its first n_ctx words, which start the prompts, and the rest, which stays as it is.

    Two empty strings if there are fewer words. Raises ValueError for a first word of several tokens.
    """
    words = (init or "").split()
    if n_ctx > len(words):
        return "", ""
    first = " ".join(words[:n_ctx])
    if (n_tokens := len(tokenize(first)) - 2) != n_ctx:
        raise ValueError(f"init {init!r}: {first!r} is {n_tokens} tokens, expected one per word for {n_ctx} "
                         "learnable ones: use other words or init=None")
    return first, " ".join(words[n_ctx:])


# ---- from parameters to prompts ----
def linear(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """Apply the linear map p[name]: x [..., n, in] -> [..., n, out], with a map per episode where p has."""
    return x @ p[f"{name}.weight"].mT + p[f"{name}.bias"].unsqueeze(-2)


def stack_layers(layers: list[Tensor]) -> Tensor:
    """Stack layers of [n, W] or [B, n, W] to [L, n, W], or to [B, L, n, W] if any of them has episodes."""
    return torch.stack(torch.broadcast_tensors(*layers), dim=-3)


def check_depth(depth: int | None, clip: Clip, encoder: str) -> int:
    """The number of layers with prompts, all of the encoder ("text" or "vision") for None.

    Raises ValueError for a depth that it does not have, and for a ResNet, which takes no prompts.
    """
    layers = clip.text_layers if encoder == "text" else clip.vision_layers
    if not layers:
        raise ValueError(f"{clip.name} has a ResNet image encoder, which takes no prompts: use a ViT such as "
                         "'ViT-B-16', or a method that prompts the text alone (coop, cocoop, tpt)")
    depth = layers if depth is None else depth
    if not 1 <= depth <= layers:
        raise ValueError(f"prompt depth is {depth}, expected 1 to {layers}, the {encoder} layers of "
                         f"{clip.name}")
    return depth
