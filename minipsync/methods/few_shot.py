"""What the few-shot controls share: features of a few labelled pictures per class, kept as they are.

They need the same pictures as CoOp and train nothing. As in Tip-Adapter's code a picture's feature is the mean
over `epochs` random crops and flips of it, at unit length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..clip.encoders import Clip
from ..clip.text import PackedText, pack_texts
from ..data.checks import some
from ..data.few_shot import few_shot_images, learned_pictures
from ..data.names import empty_classes
from ..training import TrainConfig, TrainingImages
from .inputs import check_train_set
from .learner import Learner, Prompts
from .zero_shot import ZeroShot, ZeroShotConfig

BY_GRADIENT = ("lr", "warmup_epochs", "warmup_lr", "momentum", "weight_decay")


class FewShotConfig(ZeroShotConfig):
    """Words as in zero-shot CLIP, and how many pictures of each class are kept."""

    shots: PositiveInt = 16
    """pictures per class; a class that has fewer keeps them all"""
    seed: int = 1
    """seed of the few-shot choice and of the crops; the papers average 1, 2 and 3"""


class FewShotFeatures(Learner):
    """Unit features [C, shots, D] of the pictures of each class; rows of zeros where it has fewer.

    They have the place of learned prompts, so that they are saved, found and refused as those are.
    """

    def __init__(self, clip: Clip, n_classes: int, shots: int):
        super().__init__(clip, 0, n_classes=n_classes)
        self._add("features", torch.zeros(n_classes, shots, clip.embed_dim))

    def packing(self, class_names: list[str]) -> PackedText:
        """The names alone: there is no context around them."""
        return pack_texts(class_names)

    def forward(self, params: dict[str, Tensor] | None = None) -> Prompts:
        """No prompts in either encoder."""
        return Prompts()

    @property
    def present(self) -> Tensor:
        """Which rows are a picture's: bool [C, shots]."""
        return self._values(None)["features"].ne(0).any(-1)


class FewShotMethod(ZeroShot):
    """A classifier by features of a few labelled pictures: for the classes that it has pictures of alone."""

    Config = FewShotConfig
    recipe = TrainConfig(epochs=10, batch_size=128, crop=(0.5, 1.0))       # Tip-Adapter's code

    def __init__(self, clip: Clip, class_names: Sequence[str], config: Any = None, **settings: Any):
        super().__init__(clip, class_names, config, **settings)
        self.recipe = type(self).recipe.replace(shots=self.config.shots)   # type: ignore[misc]

    def make_learner(self) -> FewShotFeatures:
        return FewShotFeatures(self.clip, len(self.class_names), self.config.shots)

    def set_class_names(self, names: Sequence[str]) -> Self:
        """Take the names as they are. Raises ValueError for other classes: there are no pictures of them."""
        if (names := list(names)) != list(self.class_names):
            raise ValueError(f"{self.name} classifies among the classes that it has pictures of "
                             f"({some(self.class_names)}), not among {some(names)}; build another one for "
                             "those and fit it to pictures of them")
        return super().set_class_names(names)

    def features(self) -> Tensor:
        """The pictures' unit features [C, shots, D]; ValueError where there are none yet."""
        self.check_device()
        if not self.learner.present.any():
            raise ValueError(f"{self.name} has no pictures yet: fit(train_set) takes a few of each class, "
                             "load(path) reads those that were saved")
        return self.learner.features

    @torch.no_grad()
    def fit(self, train_set: Any, *, checkpoint: str | Path | None = None, progress: bool = True,
            **settings: Any) -> Self:
        """Keep the features of a few pictures of each class; `settings` are fields of `TrainConfig`.

        epochs: crops of each picture whose mean is kept. checkpoint: not used, it takes seconds. Returns self.
        Raises ValueError for other classes, for a class without a picture, for other shots than the
        method's, and for settings of gradient descent, which there is none of.
        """
        if unused := [name for name in BY_GRADIENT if name in settings]:
            raise ValueError(f"{self.name} takes no gradient steps, {', '.join(unused)} would do nothing; "
                             "leave it out")
        check_train_set(self, train_set)
        if empty := empty_classes(train_set):
            raise ValueError(f"{self.name}: the training set has no picture of {some(empty)}; it needs one of "
                             "every class, or a class list without those")
        config = type(self).recipe.replace(**{"seed": self.config.seed, "shots": self.config.shots} | settings)
        if config.shots != self.config.shots:
            raise ValueError(f"{self.name}: shots={config.shots} in fit and {self.config.shots} in the method; "
                             f"say build({self.name!r}, …, shots=…)")
        indices = few_shot_images(train_set, config.shots, config.seed)
        kept, labels = self.mean_features(train_set, indices, config, progress)
        rows = torch.zeros_like(self.learner.features)
        for label in range(len(self.class_names)):
            own = kept[labels == label]
            rows[label, :len(own)] = own
        self.learner.features.copy_(rows)
        self.history, self.trained_on, self.prompts_from = [], getattr(train_set, "name", ""), ""
        self.learned_from = {"pictures": learned_pictures(train_set, config.shots, config.seed),
                             "recipe": config.model_dump()}
        return self

    def mean_features(self, train_set: Any, indices: list[int], config: TrainConfig,
                      progress: bool) -> tuple[Tensor, Tensor]:
        """(unit features [n, D], labels [n]) of the pictures `indices`: the mean over their crops."""
        size = config.batch_size
        parts = [[(epoch, i) for i in indices[s:s + size]]
                 for epoch in range(config.epochs) for s in range(0, len(indices), size)]
        loader = DataLoader(TrainingImages(train_set, self.clip.image_size, config), batch_sampler=parts,
                            num_workers=config.workers, generator=torch.Generator())
        found, labels = [], []
        for images, own in tqdm(loader, desc=self.name, disable=not progress):
            x = self.clip.normalize(images.to(self.clip.device))
            found.append(self.clip.encode_image(x, normalize=False).float())
            labels.append(own)
        features = torch.cat(found).unflatten(0, (config.epochs, -1)).mean(0)
        return F.normalize(features, dim=-1), torch.cat(labels)[:len(indices)].to(features.device)
