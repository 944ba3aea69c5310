"""One row of a record file: what a method says of one picture."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

COLUMNS: dict[str, type] = {
    "image": str, "label": int, "prediction": int, "correct": int, "confidence": float, "entropy": float,
    "entropy_before": float, "top5": str, "seconds": float, "seed": int, "picture": str, "run": str}


def predict_rows(method: Any, batch: Mapping[int, Image.Image], ids: Sequence[str], labels: Sequence[int],
                 seed: int, contents: Mapping[int, str]) -> dict[int, dict[str, Any]]:
    """Predict some pictures, {position: PIL image}, and return {position: row} without the column `run`.

    ids, labels: of all pictures of the data set, by position. contents: a hash of each of these pictures.
    Probabilities are the softmax of the logits in float64, entropies are in nats. Raises ValueError for
    logits of another shape than [B, C] and for logits that are not finite."""
    start = time.perf_counter()
    found = method.predict(list(batch.values()))
    logits = torch.as_tensor(found).detach().float().cpu()                                   # [B, C]
    seconds = (time.perf_counter() - start) / len(batch)  # .cpu() has waited for a GPU
    name, expected = name_of(method), (len(batch), len(method.class_names))
    if tuple(logits.shape) != expected:
        raise ValueError(f"{name}.predict gave logits of shape {tuple(logits.shape)}; expected {expected}")
    finite = logits.isfinite().all(dim=1).tolist()                                           # [B]
    if not all(finite):
        first = ids[list(batch)[finite.index(False)]]
        raise ValueError(f"{name} gave logits that are not finite for image {first}; try precision "
                         '"fp32" or a smaller learning rate')
    p = logits.double().softmax(dim=1)                                                       # [B, C]
    entropy = _entropy(p)                                                                    # [B]
    untuned = getattr(found, "untuned", None)             # of a method that tunes on the image: before it did
    before = entropy if untuned is None else _entropy(untuned.double().cpu().softmax(dim=1))
    best = logits.argsort(dim=1, descending=True, stable=True)[:, :5].tolist()               # [B, 5]
    rows = {}
    for k, i in enumerate(batch):
        guess = best[k][0]
        values = (ids[i], labels[i], guess, int(guess == labels[i]), _short(p[k, guess]), _short(entropy[k]),
                  _short(before[k]), " ".join(map(str, best[k])), _short(seconds), seed, contents[i])
        rows[i] = dict(zip(COLUMNS, values, strict=False))    # all columns but the last
    return rows


def name_of(method: Any) -> str:
    """The name of a method, or of its class where it has none."""
    return getattr(method, "name", type(method).__name__)


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(dim=1)                                             # [B, C] -> [B]


def _short(x: float | Tensor) -> float:
    """Six digits, in memory as in the CSV; never -0.0."""
    return float(f"{float(x):.6g}") + 0.0
