"""Moments of the source's vision tokens: mean and variance of each, per block (PromptAlign, sec. 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..clip.encoders import Clip
from .one_pass import State, one_pass


class RunningMoments:
    """Mean and biased variance over the first axis of everything given to `update`, in one pass and float64.

    Two sets of n and m numbers merge by Chan, Golub & LeVeque (1979): with d = mean_m - mean_n,
    mean = mean_n + d m / (n + m) and M2 = M2_n + M2_m + d^2 n m / (n + m); no large numbers cancel.
    """

    def __init__(self, n: Any = 0, mean: Any = 0.0, m2: Any = 0.0):
        self.n, self.mean, self.m2 = int(n), mean, m2

    def update(self, x: Tensor) -> None:
        """Take in x [m, ...]."""
        mean = x.double().mean(0)
        self.merge(len(x), mean, (x.double() - mean).square().sum(0))

    def merge(self, m: int, mean: Tensor, m2: Tensor) -> None:
        """Take in m numbers of which only the mean and M2 = sum (x - mean)^2 are known."""
        delta, total = mean - self.mean, self.n + m
        self.m2 = self.m2 + m2 + delta.square() * (self.n * m / total)
        self.mean, self.n = self.mean + delta * (m / total), total

    @property
    def variance(self) -> Tensor:
        """The biased variance, M2 / n."""
        return self.m2 / self.n


@dataclass
class Moments:
    """Mean and biased variance of the input of every vision block, prompts in place, over the source images.

    means, variances: [L, T, W], by layer, token position (CLS, patches, prompts) and channel.
    """

    NAMES: ClassVar[Sequence[str]] = ("means", "variances")

    means: Tensor
    variances: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {"means": self.means, "variances": self.variances}

    def to(self, device: torch.device | str) -> Self:
        """A copy on `device`."""
        return type(self)(self.means.to(device), self.variances.to(device))

    @classmethod
    @torch.no_grad()
    def collect(cls, clip: Clip, learner: torch.nn.Module, dataset: Any, *, layers: int | None = None,
                batch_size: int = 64, identity: dict | None = None, checkpoint: str | Path | None = None,
                progress: bool = True) -> Self:
        """One pass over `dataset`, test transform, the learner's prompts; memory does not grow with its size.

        The authors take two passes, means first (their issue 5), over ImageNet's training set; the result is
        the same. layers: how many blocks, from the first; None = all. identity, checkpoint, errors: see
        `one_pass`.
        """
        if not len(dataset):
            raise ValueError("the source set is empty; expected a data set with at least one image")
        blocks = range(clip.vision_layers if layers is None else layers)
        prompts = learner().vision

        def add(state: State, items: list) -> State:
            images = clip.preprocess([image for image, _ in items])
            _, inputs = clip.encode_image(images, prompts, trace=tuple(blocks))
            for k in blocks:
                moments = RunningMoments(*(state.get(f"{k}.{part}", 0.0) for part in ("n", "mean", "m2")))
                moments.update(inputs[k])                                            # [N, T, W]
                state |= {f"{k}.{part}": torch.as_tensor(value) for part, value in vars(moments).items()}
            return state

        states = one_pass(dataset, batch_size, add, {**(identity or {}), "layers": len(blocks)},
                          checkpoint=checkpoint, progress=progress, name="source statistics")
        means: list[Tensor] = []
        variances: list[Tensor] = []
        for k in blocks:
            total = RunningMoments()
            for state in filter(None, states):             # a process may have had no batch
                total.merge(int(state[f"{k}.n"]), state[f"{k}.mean"], state[f"{k}.m2"])
            means.append(total.mean.float())
            variances.append(total.variance.float())
        return cls(torch.stack(means), torch.stack(variances)).to(clip.device)
