"""Pictures that are encoded once, so that each question about words is a product of two small matrices.

    sample = encoded(clip, data, limit=500)
    result = judged("zero-shot", sample, (clip.logit_scale * sample.features @ t.T).softmax(-1))
    over_seeds([result, …])

A `Result` is the one that `evaluate` finds for the same probabilities and the same sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..clip.encoders import Clip
from ..data.dataset import Dataset
from ..evaluation.evaluate import balanced_order
from ..evaluation.results import Result, accuracy_interval, summarise
from ..evaluation.rows import predict_rows
from ..report.differences import observations


@dataclass(frozen=True)
class Sample:
    """A class-balanced sample of a data set, encoded.

    features: [n, D], of length 1; labels: [n]; ids: n image ids; positions: n, in the data set;
    seed: of the choice"""
    name: str
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    positions: tuple[int, ...]
    features: Tensor
    labels: Tensor
    seed: int


@dataclass(frozen=True)
class OverSeeds:
    """A method on n images, mean over seeds. All but n are fractions.

    values: accuracy of each seed; std: the population's; low, high: 95 % interval of the mean"""
    mean: float
    std: float
    low: float
    high: float
    n: int
    values: tuple[float, ...]


@torch.no_grad()
def encoded(clip: Clip, data: Dataset, limit: int = 0, seed: int = 0, batch: int = 100) -> Sample:
    """The sample that `evaluate` takes with this limit (0: all) and sample_seed, with its features."""
    ids = [data.image_id(i) for i in range(len(data))]
    order = balanced_order(ids, data.labels.tolist(), min(limit or len(data), len(data)), seed)
    parts = [clip.encode_image(clip.preprocess([data[i][0] for i in order[start:start + batch]]))
             for start in range(0, len(order), batch)]
    return Sample(data.name, tuple(data.class_names), tuple(ids[i] for i in order), tuple(order),
                  torch.cat(parts), torch.as_tensor(data.labels[order], device=clip.device), seed)


def judged(method: str, sample: Sample, probabilities: Tensor) -> Result:
    """What `evaluate` would find if a method called `method` gave these probabilities [n, C].

    Raises ValueError for another shape, and for a probability that is not a number."""
    logits = probabilities.detach().double().log()         # of which predict_rows takes the softmax
    logits = logits.clamp(min=-1e4)                                                   # log 0, no class at all
    given = SimpleNamespace(name=method, class_names=sample.class_names, predict=lambda _: logits)
    which = range(len(sample.ids))
    features: Any = dict(enumerate(sample.features))         # in place of pictures, which nobody reads
    rows = predict_rows(given, features, sample.ids, sample.labels.tolist(), sample.seed,
                        dict.fromkeys(which, ""))
    return summarise(method, sample.name, sample.seed, pd.DataFrame(rows.values()))


def over_seeds(results: Sequence[Result]) -> OverSeeds:
    """The mean of one method's results, a seed each, on the same images. An image stays one observation, so
    that the interval does not shrink with the number of seeds."""
    seen, values = observations(results), tuple(r.accuracy for r in results)
    low, high = accuracy_interval(seen["right"].to_numpy(), seen["class"].to_numpy())
    return OverSeeds(float(np.mean(values)), float(np.std(values)), low, high, len(seen), values)
