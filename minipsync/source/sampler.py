"""Images of the source, drawn for PromptSync's discrimination loss (docs/METHODS.md, 5.9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..clip.encoders import Clip
from ..views.crops import PROMPTSYNC_VIEWS, ViewConfig, augment_views, working_copy


def rows_by_class(dataset: Any) -> list[list[int]]:
    """The positions of every class's images. Raises ValueError for a class without one."""
    labels, names = np.asarray(dataset.labels), dataset.class_names
    rows = [np.flatnonzero(labels == c).tolist() for c in range(len(names))]
    if [] in rows:
        raise ValueError(f"the source set has no image of {names[rows.index([])]!r}; every source class "
                         "needs one: use dataset.of_classes(...) or a set with all classes")
    return rows


@dataclass
class SourceBatch:
    """K classes and A augmented views of each, for B episodes."""

    labels: Tensor           # [B, K]
    views: Tensor            # [B, K, A, 3, S, S], model input


class SourceSampler:
    """Draws source batches for L_D: K random classes, a random image of each, A augmented views of that.

    Images are read when they are drawn and kept as bytes, up to cache_mb. A draw depends on its seed alone.
    """

    def __init__(self, dataset: Any, clip: Clip, view_config: ViewConfig = PROMPTSYNC_VIEWS,
                 cache_mb: int = 512):
        self.dataset, self.clip, self.view_config = dataset, clip, view_config
        self.by_class = rows_by_class(dataset)
        self.cache: dict[int, Tensor] = {}
        self.room = cache_mb * 2**20

    def draw(self, seeds: Sequence[int], n_classes: int, n_views: int) -> SourceBatch:
        """One batch per seed. n_classes: how many classes, 0 for all; n_views: augmented views of each."""
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
        """A source image as floats [3, H, W] in [0, 1], on the CLIP's device."""
        x = self.cache.get(row)
        if x is None:
            x = working_copy(self.dataset[row][0], self.clip.image_size, self.view_config)
            if x.numel() <= self.room:
                self.room -= x.numel()
                self.cache[row] = x
        return x.to(self.clip.device).float() / 255
