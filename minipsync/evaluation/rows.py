"""One row of a record file: what a method says of one picture."""

import time

import torch

COLUMNS = {"image": str, "label": int, "prediction": int, "correct": int, "confidence": float,
           "entropy": float, "entropy_before": float, "top5": str, "seconds": float, "seed": int,
           "picture": str, "run": str}


def predict_rows(method, batch, ids, labels, seed, contents) -> dict[int, dict]:
    """Predict the pictures of a dict {position: PIL image}: {position: row}, without the column `run`.

    ids, labels: of all pictures, by position; contents: a hash of each, {position: str}. Probabilities are
    the softmax of the logits in float64, entropies in nats. Raises ValueError for logits of another shape
    than [B, C] and for logits that are not finite."""
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


def name_of(method) -> str:
    """The name of a method, of its class where it has none."""
    return getattr(method, "name", type(method).__name__)


def _entropy(p):
    return -torch.special.xlogy(p, p).sum(dim=1)                                             # [B, C] -> [B]


def _short(x) -> float:
    return float(f"{float(x):.6g}") + 0.0                 # what the CSV keeps; in memory the same; never -0.0
