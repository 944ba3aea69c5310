"""Class prototypes of the source, as PromptSync compares with them (docs/METHODS.md, 5.9).

    h_x^m   sample prototype: mean of the projected token outputs of x in modality m, on the unit sphere
    p_c^m   class prototype: mean of h_x^m over the source samples of class c and their augmentations, frozen
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.encoders import Clip
from ..clip.text import PackedText, pack_context
from ..views.crops import PROMPTSYNC_VIEWS, content_seed, make_views
from ..views.wordnet import RELATIONS, text_variants
from .one_pass import State, one_pass
from .sampler import rows_by_class

PARTS = ("text", "vision", "cls")


def image_prototypes(clip: Clip, images: Tensor, prompts: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """(features, h) of images [..., 3, S, S], each [..., D] and of unit length.

    h["vision"]: mean over patch and prompt tokens (not CLS) of the last block through ln_post and the
    projection. h["cls"]: the same of CLS, which is the feature.
    """
    features, kept = clip.encode_image(images, prompts, trace=("tokens",))
    return features, {"vision": F.normalize(kept["tokens"].mean(-2), dim=-1), "cls": features}


def text_prototypes(clip: Clip, packed: PackedText, prompts: Tensor | None) -> tuple[Tensor, Tensor]:
    """(features, h) of C texts, each [B?, C, D] and of unit length.

    h: mean over the tokens between SOS and EOT (context, class name, full stop; no pads) of the last block
    through ln_final and the projection.
    """
    features, kept = clip.encode_text(packed, prompts, trace=("tokens",))
    return features, F.normalize(kept["tokens"].sum(-2), dim=-1)                       # 0 at pads: sum ~ mean


def variant_prototypes(clip: Clip, learner: Any, prompts: Tensor,
                       names: list[list[list[str]]]) -> tuple[Tensor, Tensor]:
    """h [B, K, V, D] and weights [B, K, V] of names[b][k], the text variants of K classes of episode b.

    prompts [B, L, n, W]. Episodes have different texts, so all are packed into one list in which every text
    has slots of its own, filled with its episode's prompts. Classes with fewer than V variants are padded:
    weight 0.
    """
    flat = [(b, k, v, text) for b, classes in enumerate(names) for k, texts in enumerate(classes)
            for v, text in enumerate(texts)]
    b, k, v = torch.tensor([row[:3] for row in flat], device=prompts.device).T
    packed = pack_context([row[3] for row in flat], learner.n_ctx, tail=learner.tail, class_specific=True,
                          context_length=clip.context_length)
    # index_select: the gradient of prompts[b] is summed in no fixed order where there are several threads
    slots = prompts.index_select(0, b).transpose(0, 1).flatten(1, 2)                   # [L, texts * n, W]
    _, h = text_prototypes(clip, packed, slots)                                        # [texts, D]
    n_variants = max(len(texts) for classes in names for texts in classes)
    shape = (len(names), len(names[0]), n_variants)
    used = h.new_zeros(shape).index_put((b, k, v), h.new_ones(len(flat)))
    return h.new_zeros(*shape, h.shape[-1]).index_put((b, k, v), h), used / used.sum(-1, keepdim=True)


@dataclass
class Prototypes:
    """PromptSync's class prototypes p_c = mean of h_x over the samples x of class c, frozen.

    text, vision, cls: [C, D], means of unit vectors, so no longer than 1. variants: the texts of every class.
    recipe: what `collect` was told: views per image, text variants per class, their relations, the
    seed, images per class.
    """

    NAMES: ClassVar[Sequence[str]] = PARTS

    text: Tensor
    vision: Tensor
    cls: Tensor
    variants: list[list[str]] = field(default_factory=list)
    recipe: dict = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {part: getattr(self, part) for part in PARTS}

    def facts(self) -> dict:
        """What a file says of them, beside the tensors."""
        return {"variants": self.variants, "recipe": self.recipe}

    def to(self, device: torch.device | str) -> Self:
        """A copy with its tensors on `device`."""
        text, vision, cls = (x.to(device) for x in self.tensors().values())
        return replace(self, text=text, vision=vision, cls=cls)

    @classmethod
    @torch.no_grad()
    def collect(cls, clip: Clip, learner: torch.nn.Module, dataset: Any, *, n_views: int = 4,
                relations: Sequence[str] = tuple(RELATIONS), n_variants: int = 4, seed: int = 0,
                shots: int | None = None, batch_size: int = 128, identity: dict | None = None,
                checkpoint: str | Path | None = None, progress: bool = True) -> Self:
        """One pass over `dataset`: every image and n_views augmentations of it, every class's text variants.

        shots: how many images of a class `dataset` was cut down to, for the recipe.
        Raises ValueError for a class without an image. identity, checkpoint, further errors: see `one_pass`.
        """
        n_classes, prompts = len(dataset.class_names), learner()
        counts = torch.tensor([len(rows) for rows in rows_by_class(dataset)])
        recipe = {"n_views": n_views, "n_variants": n_variants, "relations": list(relations), "seed": seed,
                  "shots": shots}

        def add(sums: State, items: list) -> State:
            views = torch.cat([make_views(image, 1 + n_views, clip, PROMPTSYNC_VIEWS,
                                          seed=content_seed(image, seed)) for image, _ in items])
            rows = torch.tensor([label for _, label in items]).repeat_interleave(1 + n_views)
            _, h = image_prototypes(clip, views, prompts.vision)                     # [N * (1 + n_views), D]
            for part in ("vision", "cls"):
                empty = torch.zeros(n_classes, clip.embed_dim, dtype=torch.float64)
                sums[part] = sums.get(part, empty).index_add(0, rows, h[part].double().cpu())
            return sums

        states = one_pass(dataset, max(1, batch_size // (1 + n_views)), add, (identity or {}) | recipe,
                          checkpoint=checkpoint, progress=progress, name="prototypes")
        means = {part: (sum(s[part] for s in states if s) / (counts * (1 + n_views))[:, None])
                 .float().to(clip.device) for part in ("vision", "cls")}
        variants = text_variants(dataset.class_names, relations, n_variants, getattr(dataset, "wnids", None))
        variants = fitting(variants, learner)
        h, weights = variant_prototypes(clip, learner, prompts.text[None], [variants])
        text = (h * weights[..., None]).sum(2)[0]                                      # [C, D]
        return cls(text, means["vision"], means["cls"], variants, recipe)


def fitting(variants: list[list[str]], learner: Any) -> list[list[str]]:
    """Keep each class's name and the variants that are short enough for the context.

    A class name that is too long itself raises ValueError (see `pack_context`).
    """
    def fits(name: str) -> bool:
        try:
            return bool(learner.packing([name]))
        except ValueError:
            return False

    return [[names[0], *filter(fits, names[1:])] for names in variants]
