"""What PromptSync knows of its source: its class prototypes, and a sampler of its images."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from ..clip.text import PackedText
from ..data.content import of_dataset
from ..data.few_shot import few_shot_images, learned_pictures
from ..source.domain import SourceDomain
from ..source.prototypes import Prototypes, image_prototypes, text_prototypes, variant_prototypes
from ..source.sampler import SourceBatch, SourceSampler
from ..views.crops import content_seed, make_views
from .base import Params
from .ivlp import IndependentPrompt
from .learner import Prompts
from .maple import CoupledPrompt
from .memory import episodes_in_memory
from .with_source import SourceMethod


def source_samples(clip: Any, learner: Any, prompts: Any, prototypes: Prototypes, batch: SourceBatch,
                   parts: Sequence[str]) -> tuple[Params, Params, Params]:
    """What `discrimination` takes, by part: samples h_a [B, K, A, D], p_k [B, K, D], weights w_a [B, K, A].

    They are those of a source batch under `prompts` with an episode axis; text samples are the text variants.
    """
    n_classes, n_views = batch.views.shape[1:3]
    samples, weights = {}, {}
    if set(parts) & {"vision", "cls"}:
        _, h = image_prototypes(clip, batch.views.flatten(1, 2), prompts.vision)               # [B, K * A, D]
        samples = {part: h[part].unflatten(1, (n_classes, n_views)) for part in h if part in parts}
        weights = {part: torch.full_like(x[..., 0], 1 / n_views) for part, x in samples.items()}
    if "text" in parts:
        names = [[prototypes.variants[c] for c in row] for row in batch.labels.tolist()]
        samples["text"], weights["text"] = variant_prototypes(clip, learner, prompts.text, names)
    return samples, {part: getattr(prototypes, part)[batch.labels] for part in samples}, weights


class PrototypeMethod(SourceMethod):
    """A test-time method that compares with its source's class prototypes, and with images of the source."""

    needs = "prototypes"
    _constant: Any = None                                # PromptSync*'s g_D, of the present source
    _source_names: list[str]
    _source_packed: PackedText

    @property
    def accepts(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("maple" if self.config.coupled else "ivlp", "promptsync", "promptsync_star")

    def make_learner(self) -> CoupledPrompt | IndependentPrompt:
        c = self.config
        if c.coupled:
            return CoupledPrompt(self.clip, c.n_ctx, c.depth, c.init, seed=c.seed)
        return IndependentPrompt(self.clip, c.n_ctx, c.depth, c.n_ctx, c.depth, c.init, seed=c.seed)

    def make_views(self, image: Image.Image | Tensor) -> Tensor:
        c = self.config
        return make_views(image, 1 + c.n_views, self.clip, c.view_config,
                          seed=content_seed(image, c.view_seed))

    def start(self, x: Tensor) -> Params:
        theta = super().start(x)
        return theta if self.config.tune == "all" else {k: p for k, p in theta.items() if "proj" not in k}

    def batch_size(self) -> int:
        c, batch = self.config, 0
        if c.refresh == "image" and c.discrimination and self.source is not None:
            batch = (c.classes_per_step or len(self.known.cls)) * c.source_views
        chosen = max(1, int((1 + c.n_views) * c.selection))
        return c.episodes or episodes_in_memory(self, batch + chosen)

    def class_texts(self, prompts: Prompts) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features [B, C, D] of the target classes; features and prototypes [B, S, D] of the source's."""
        if not self.config.alignment:
            return self.clip.encode_text(self.packed, prompts.text), ()
        self._source_packed = self._source_packed.to(self.clip.device)
        source = text_prototypes(self.clip, self._source_packed, prompts.text)
        if self.class_names == self._source_names:                             # one pass does for both
            return source[0], source
        return self.clip.encode_text(self.packed, prompts.text), source

    # ---- the source ----
    def source_settings(self) -> dict:
        """The settings that prototypes are computed with.

        Their views are always PROMPTSYNC_VIEWS, however those of the test image are cut.
        """
        c = self.config
        return {"n_views": c.prototype_views, "n_variants": c.text_variants, "relations": list(c.relations),
                "seed": c.seed, "shots": c.shots}

    def source_set(self, data: Any) -> Any:
        """At most `shots` images per class, as the prompts were learned from: the paper's 16 of ImageNet."""
        return data.subset(few_shot_images(data, self.config.shots, self.config.seed))

    def with_images(self, source: SourceDomain, data: Any) -> SourceDomain:
        """The samples of L_D are drawn from the images of the prototypes."""
        sampler = SourceSampler(data, self.clip, self.config.view_config, self.config.cache_mb)
        return replace(source, sampler=sampler)

    def wanted_source(self, source_set: Any = None, cache: str | Path | None = None) -> dict:
        c = self.config
        wanted = super().wanted_source() | {"recipe": self.source_settings()}
        if source_set is not None:
            wanted["content"] = learned_pictures(source_set, c.shots, c.seed)
        return wanted

    def accept(self, source: SourceDomain) -> None:
        recipe, wanted = source.prototypes.recipe if source.prototypes else {}, self.source_settings()
        if recipe and recipe != wanted:
            raise ValueError(f"{self.name}: these prototypes were made with {recipe}, the settings ask for "
                             f"{wanted}; build with those settings, or method.prepare(source_set)")
        self._constant = None
        self._source_names = list(source.class_names)
        self._source_packed = self.learner.packing(self._source_names)

    @property
    def fingerprint(self) -> str | None:
        """Which source images L_D draws; records are keyed by it, beside the prototypes themselves."""
        sampler = self.source.sampler if self.source is not None else None
        if sampler is None or not self.config.discrimination:
            return None
        data = sampler.dataset
        ids = "\n".join([of_dataset(data), *map(data.image_id, range(len(data)))])
        return hashlib.sha256(ids.encode()).hexdigest()[:12]

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        self._constant = None                            # it lies where the prompts were
        return super()._apply(fn, recurse)

    def source_is_needed(self) -> bool:
        return self.config.alignment or self.config.discrimination

    def check_source(self) -> None:
        super().check_source()
        c = self.config
        if c.steps and c.discrimination and self.source is not None and self.source.sampler is None:
            raise ValueError(f"{self.name} has no source images, discrimination=True needs them; "
                             "method.prepare(source_set, found=method.source) keeps the prototypes")
