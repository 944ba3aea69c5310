"""What PromptSync knows of the source: class prototypes, and images to compare with them (METHODS 5.9).

    h_x^m   sample prototype: mean of the projected token outputs of x in modality m, on the unit sphere
    p_c^m   class prototype: mean of h_x^m over the source samples of class c and their augmentations, frozen
    A(c)    augmented source samples of class c, drawn anew for every step of L_D
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.text import PackedText, pack_context
from ..views.crops import (
    PROMPTSYNC_VIEWS,
    RELATIONS,
    ViewConfig,
    augment_views,
    content_seed,
    make_views,
    text_variants,
    working_copy,
)
from .moments import FromSource, origin
from .one_pass import one_pass

PARTS = ("text", "vision", "cls")


def rows_by_class(dataset) -> list[list[int]]:
    """The images of every class. ValueError for a class without one."""
    labels, names = np.asarray(dataset.labels), dataset.class_names
    rows = [np.flatnonzero(labels == c).tolist() for c in range(len(names))]
    if [] in rows:
        raise ValueError(f"the source set has no image of {names[rows.index([])]!r}; every source class "
                         "needs one: use dataset.of_classes(...) or a set with all classes")
    return rows


def image_prototypes(clip, images: Tensor, prompts: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """(features, h) of images [..., 3, S, S], each [..., D] and of unit length.

    h["vision"]: mean over patch and prompt tokens (not CLS) of the last block through ln_post and the
    projection. h["cls"]: the same of CLS, which is the feature.
    """
    features, kept = clip.encode_image(images, prompts, trace=("tokens",))
    return features, {"vision": F.normalize(kept["tokens"].mean(-2), dim=-1), "cls": features}


def text_prototypes(clip, packed: PackedText, prompts: Tensor | None) -> tuple[Tensor, Tensor]:
    """(features, h) of C texts, each [B?, C, D] and of unit length.

    h: mean over the tokens between SOS and EOT (context, class name, full stop; no pads) of the last block
    through ln_final and the projection.
    """
    features, kept = clip.encode_text(packed, prompts, trace=("tokens",))
    return features, F.normalize(kept["tokens"].sum(-2), dim=-1)                       # 0 at pads: sum ~ mean


def variant_prototypes(clip, learner, prompts: Tensor, names: list[list[list[str]]]) -> tuple[Tensor, Tensor]:
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
class Prototypes(FromSource):
    """PromptSync's class prototypes p_c = mean of h_x over the samples x of class c, frozen.

    text, vision, cls: [C, D], means of unit vectors, so no longer than 1. variants: the texts of every class.
    recipe: what `collect` was told: views per image, text variants per class, their relations, the seed.
    """

    kind, tensors = "prototypes", ("text", "vision", "cls")

    text: Tensor
    vision: Tensor
    cls: Tensor
    variants: list[list[str]] = field(default_factory=list, kw_only=True)
    recipe: dict = field(default_factory=dict, kw_only=True)

    @classmethod
    @torch.no_grad()
    def collect(cls, clip, learner, dataset, *, n_views: int = 4,
                relations: Sequence[str] = tuple(RELATIONS), n_variants: int = 4, seed: int = 0,
                batch_size: int = 128, checkpoint: str | Path | None = None, progress: bool = True):
        """One pass over `dataset`: every image and n_views augmentations of it, every class's text variants.

        ValueError for a class without an image. checkpoint, further errors: see `one_pass`.
        """
        n_classes, prompts = len(dataset.class_names), learner()
        counts = torch.tensor([len(rows) for rows in rows_by_class(dataset)])
        facts = origin(clip, learner, dataset)
        recipe = {"n_views": n_views, "n_variants": n_variants, "relations": list(relations), "seed": seed}

        def add(sums, items):
            views = torch.cat([make_views(image, 1 + n_views, clip, PROMPTSYNC_VIEWS,
                                          seed=content_seed(image, seed)) for image, _ in items])
            rows = torch.tensor([label for _, label in items]).repeat_interleave(1 + n_views)
            _, h = image_prototypes(clip, views, prompts.vision)                     # [N * (1 + n_views), D]
            for part in ("vision", "cls"):
                empty = torch.zeros(n_classes, clip.embed_dim, dtype=torch.float64)
                sums[part] = sums.get(part, empty).index_add(0, rows, h[part].double().cpu())
            return sums

        states = one_pass(dataset, max(1, batch_size // (1 + n_views)), add, facts | recipe,
                          checkpoint=checkpoint, progress=progress, name="prototypes")
        means = {part: (sum(s[part] for s in states if s) / (counts * (1 + n_views))[:, None])
                 .float().to(clip.device) for part in ("vision", "cls")}
        variants = text_variants(dataset.class_names, relations, n_variants, getattr(dataset, "wnids", None))
        variants = fitting(variants, learner)
        h, weights = variant_prototypes(clip, learner, prompts.text[None], [variants])
        text = (h * weights[..., None]).sum(2)[0]                                      # [C, D]
        return cls(text, means["vision"], means["cls"], variants=variants, recipe=recipe, **facts)


def fitting(variants: list[list[str]], learner) -> list[list[str]]:
    """The variants short enough for the context; a class name itself that is too long raises (see
    pack_context)."""
    def fits(name):
        try:
            return bool(learner.packing([name]))
        except ValueError:
            return False

    return [[names[0], *filter(fits, names[1:])] for names in variants]


@dataclass
class SourceBatch:
    """K classes and A augmented views of each, for B episodes: labels [B, K], views [B, K, A, 3, S, S]."""

    labels: Tensor
    views: Tensor


class SourceSampler:
    """Draws the source batch of L_D: K random classes, of each one random image, of that A augmented views.

    Images are read when drawn and kept as bytes, up to cache_mb. A draw depends on its seed alone.
    """

    def __init__(self, dataset, clip, view_config: ViewConfig = PROMPTSYNC_VIEWS, cache_mb: int = 512):
        self.dataset, self.clip, self.view_config = dataset, clip, view_config
        self.by_class = rows_by_class(dataset)
        self.cache: dict[int, Tensor] = {}
        self.room = cache_mb * 2**20

    def draw(self, seeds: Sequence[int], n_classes: int, n_views: int) -> SourceBatch:
        """One batch per seed. n_classes: 0 = all."""
        labels, views = zip(*(self._draw(seed, n_classes, n_views) for seed in seeds), strict=True)
        return SourceBatch(torch.stack(labels), self.clip.normalize(torch.stack(views)))

    def _draw(self, seed: int, n_classes: int, n_views: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        classes = torch.randperm(len(self.by_class), generator=generator)[:n_classes or None]
        views = []
        for rows in (self.by_class[c] for c in classes.tolist()):
            image = self.image(rows[int(torch.randint(len(rows), (), generator=generator))])
            views.append(augment_views(image, n_views, self.clip.image_size, self.view_config, generator))
        return classes.to(self.clip.device), torch.stack(views)

    def image(self, row: int) -> Tensor:
        """Source image as floats [3, H, W] in [0, 1] on the clip's device."""
        x = self.cache.get(row)
        if x is None:
            x = working_copy(self.dataset[row][0], self.clip.image_size, self.view_config)
            if x.numel() <= self.room:
                self.room -= x.numel()
                self.cache[row] = x
        return x.to(self.clip.device).float() / 255


def source_samples(clip, learner, prompts, prototypes: Prototypes, batch: SourceBatch,
                   parts: Sequence[str]) -> tuple[dict, dict, dict]:
    """What `losses.discrimination` takes, under `prompts` with an episode axis, each by part: samples h_a
    [B, K, A, D], frozen p_k [B, K, D] and weights w_a [B, K, A]. Text samples are the text variants."""
    n_classes, n_views = batch.views.shape[1:3]
    samples, weights = {}, {}
    if set(parts) & {"vision", "cls"}:
        _, h = image_prototypes(clip, batch.views.flatten(1, 2), prompts.vision)     # [B, K * A, D]
        samples = {part: h[part].unflatten(1, (n_classes, n_views)) for part in h if part in parts}
        weights = {part: torch.full_like(x[..., 0], 1 / n_views) for part, x in samples.items()}
    if "text" in parts:
        names = [[prototypes.variants[c] for c in row] for row in batch.labels.tolist()]
        samples["text"], weights["text"] = variant_prototypes(clip, learner, prompts.text, names)
    return samples, {part: getattr(prototypes, part)[batch.labels] for part in samples}, weights
