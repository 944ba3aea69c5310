"""Evaluate a method on a dataset, image by image, and compare two methods on the same images.

    result = evaluate(method, data, limit=200, records="results/mine")
    result.accuracy, result.interval, result.ece, result.seconds_per_image, result.records
    compare(result, other)

Images are taken in a seeded, class-balanced order: the accuracy seen so far is always that of a balanced
sample, and a larger `limit` contains a smaller one. Everything reported is computed from the records alone,
so a run that was killed and resumed ends where an undisturbed one ends, and so does one that several
processes shared (distributed.py): the batches are the same, whoever predicts them.
"""

import dataclasses
import functools
import hashlib
import numbers
import struct
import sys
import time
import warnings
import zlib
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from . import distributed
from .records import COLUMNS, add_facts, open_records
from .results import Comparison, Result, compare, summarise

__all__ = ["Comparison", "Result", "balanced_order", "compare", "describe_run", "evaluate"]

UNREADABLE = (OSError, SyntaxError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)


def evaluate(method, data, limit=None, records=None, batch_size=16, seed=0, progress=True) -> Result:
    """Predict `data` with `method` and report accuracy, calibration and time.

    limit:      how many images to take, None for all: a class-balanced sample that `seed` and the ids decide
    records:    where to keep one row per image: a folder (each run has a file of its own in it), a .csv file,
                or None (memory). Images that have a row are not computed again. A .csv file with rows of
                another method, setting, prompt, backbone, image set or seed raises ValueError.
    batch_size: images per call of `method.predict`
    progress:   show a bar

    `method` has name, config, class_names and predict(list of PIL images) -> logits [B, C]. If its
    predictions depend on more than config, state_dict, source statistics, classes and backbone, a string
    `method.fingerprint` stands for the rest. Images that cannot be read are left out with a warning, listed
    in `skipped`, and tried again the next time.
    """
    ids, labels = _check(method, data, limit, batch_size, seed)
    order = balanced_order(ids, labels, limit, seed)
    run = describe_run(method, data, ids, labels, seed)
    team, skipped, right, seen = distributed.world(), [], 0, 0
    mine = range(distributed.rank() * batch_size, len(order), team * batch_size)       # starts of my batches
    name = f"{run['method']} on {run['dataset']}" + (f", process 1 of {team}" if team > 1 else "")
    facts = describe_facts(method, data) | {"images": len(order)}
    with open_records(records, run, [ids[i] for i in order], facts) as kept, \
            _bar(sum(len(order[s:s + batch_size]) for s in mine), name, progress) as bar:
        resumed = sum(ids[i] in kept.rows for i in order)
        for start in mine:
            chunk = order[start:start + batch_size]
            new, bad = _read_images(data, labels, [i for i in chunk if ids[i] not in kept.rows])
            skipped += [(ids[i], reason) for i, reason in bad.items()]
            if new:
                # an interrupted batch is predicted whole: batch mates can move the last digits of a logit
                old, _ = _read_images(data, labels, [i for i in chunk if i not in new and i not in bad])
                batch = {i: (new | old)[i] for i in chunk if i in new or i in old}
                rows = _predict(method, batch, ids, labels, run["seed"])
                kept.append([row for i, row in rows.items() if i in new])
            done = [kept.rows[ids[i]]["correct"] for i in chunk if ids[i] in kept.rows]
            right, seen = right + sum(done), seen + len(done)
            bar.set_postfix_str(f"accuracy {100 * right / max(seen, 1):.1f} %", refresh=False)
            bar.update(len(chunk))
    rows = [kept.rows[ids[i]] for i in order if ids[i] in kept.rows]
    skipped = sum(distributed.gather(skipped), [])
    add_facts(kept.path, skipped=[image for image, _ in skipped])
    if not rows:
        raise ValueError(f"none of the {len(order)} images of {data.name} could be read; the first said: "
                         f"{skipped[0][1]}; check the folder, or download the dataset again")
    if skipped:
        warnings.warn(f"{len(skipped)} of {len(order)} images of {data.name} could not be read and were left "
                      f"out, first {skipped[0][0]} ({skipped[0][1]}); see result.skipped", stacklevel=2)
    return summarise(run["method"], run["dataset"], run["seed"], pd.DataFrame(rows), skipped=skipped,
                     resumed=resumed, path=kept.path)


def balanced_order(ids, labels, limit=None, seed=0) -> list[int]:
    """Positions of `limit` images (None: all), class-balanced, in an order that seed and ids alone decide.

    Each round takes one image of every class that has any left, so that in the first n images classes differ
    by one at most while they last. Ranks are sha256 hashes: the same on every machine, in whatever order the
    images are listed."""
    def rank(*parts):
        return hashlib.sha256("\n".join(map(str, (seed, *parts))).encode()).digest()

    queues = {}
    for i in sorted(range(len(ids)), key=lambda i: rank(ids[i])):
        queues.setdefault(int(labels[i]), []).append(i)
    order = []
    for r in range(max(map(len, queues.values()))):
        left = [label for label, queue in queues.items() if len(queue) > r]
        order += [queues[label][r] for label in sorted(left, key=lambda label: rank("class", r, label))]
        if limit is not None and len(order) >= limit:
            break
    return order if limit is None else order[:limit]


def describe_run(method, data, ids, labels, seed) -> dict:
    """Everything that a prediction depends on, in words and hashes; what records are keyed by."""
    from . import __version__  # not there yet while the package is imported
    config, clip = getattr(method, "config", None), getattr(method, "clip", None)
    prompts = method.state_dict() if hasattr(method, "state_dict") else {}
    # statistics and prototypes of the source: attributes that name their tensors in `tensors`
    source = {f"{part}.{name}": getattr(value, name) for part, value in vars(method).items()
              for name in getattr(value, "tensors", ())}
    images = sorted(f"{i} {label}" for i, label in zip(ids, labels, strict=True))
    return {"method": _name(method), "dataset": str(data.name), "seed": int(seed),
            "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config,
            "prompts": _hash_tensors(prompts), "source": _hash_tensors(source),
            "extra": getattr(method, "fingerprint", None), "version": __version__, "code": code_fingerprint(),
            "backbone": getattr(clip, "fingerprint", None), "precision": getattr(clip, "precision", None),
            "classes": f"{len(method.class_names)}, {_hash(method.class_names)}",
            "images": f"{len(images)}, {_hash([*images, getattr(data, 'fingerprint', '')])}"}


def describe_facts(method, data) -> dict:
    """What changes no prediction, but decides what a table may put the numbers beside."""
    clip = getattr(method, "clip", None)
    return {"origin": getattr(data, "origin", ""),
            "model": f"{getattr(clip, 'name', '')}/{getattr(clip, 'weights', '')}",
            "trained_on": getattr(method, "trained_on", ""), "prompts": getattr(method, "prompts_from", "")}


@functools.cache
def code_fingerprint() -> str:
    """12 hex digits for the source of this package, but for what cannot change a prediction: rows that an
    older version of a loss or a view predicted must not pass for this version's."""
    root = Path(__file__).parent
    apart = ("__main__", "distributed", "evaluation", "exercises", "parameters", "paths", "plots",
             "protocols", "records", "report", "results", "runs", "source_pass", "tables", "tensors",
             "training", "zero_shot_gate")
    files = sorted(file for file in root.rglob("*.py") if not (file.parent == root and file.stem in apart))
    return _hash(part for file in files for part in (file.relative_to(root).as_posix(), file.read_bytes()))


# ---- parts -------------------------------------------------------------------------------------------
class _NotebookLine:
    """A file for tqdm: one line of a notebook's output, rewritten in place, so that a saved notebook keeps
    only the last state of the bar."""

    def __init__(self):
        from IPython.display import display
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text):
        if text.strip():
            self.handle.update({"text/plain": text.strip("\r\n")}, raw=True)

    def flush(self):
        pass


def _bar(total, name, progress):
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    file = _NotebookLine() if progress and hasattr(shell, "kernel") else None
    return tqdm(total=total, desc=name, unit="image", mininterval=0.5, ncols=100, file=file,
                ascii=False if file else None, disable=not progress or distributed.rank() > 0)


def _check(method, data, limit, batch_size, seed):
    """(image ids, labels) of `data` after every argument was found good."""
    wanted = ("name", "class_names", "labels", "image_id", "__len__", "__getitem__")
    lacking = [attribute for attribute in wanted if not hasattr(data, attribute)]
    if lacking:
        raise TypeError(f"data={type(data).__name__} has no {', '.join(lacking)}; expected a minipsync "
                        'dataset, as benchmark("mini").dataset("sketch") or folder("path/to/images") give')
    if limit is not None:
        _whole("limit", limit, 1, "a whole number of images, 1 or more, or None for all")
    _whole("batch_size", batch_size, 1, "a whole number of images, 1 or more")
    _whole("seed", seed, None, "a whole number")
    if hasattr(method, "check_device"):
        method.check_device()
    _check_classes(list(method.class_names), list(data.class_names), data.name)
    if len(data) == 0:
        raise ValueError(f"{data.name} has no images; check its folder")
    ids, labels = [str(data.image_id(i)) for i in range(len(data))], [int(label) for label in data.labels]
    if len(set(ids)) < len(ids) or any("\n" in name or "\r" in name for name in ids):
        raise ValueError(f"the image ids of {data.name} must differ from each other and be one line each")
    if len(labels) != len(ids) or min(labels) < 0 or max(labels) >= len(data.class_names):
        raise ValueError(f"the {len(labels)} labels of {data.name}, {min(labels)} to {max(labels)}, do not "
                         f"fit its {len(ids)} images and {len(data.class_names)} classes")
    return ids, labels


def _whole(name, value, low, expected):
    good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not good or (low is not None and value < low):
        raise ValueError(f"{name}={value!r}: expected {expected}")


def _check_classes(ours, theirs, name):
    if ours == theirs:
        return
    shorter = min(len(ours), len(theirs))
    at = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
    first, second = (repr(names[at]) if at < len(names) else "none" for names in (ours, theirs))
    raise ValueError(f"the method knows {len(ours)} classes and {name} has {len(theirs)}; from class {at} on "
                     f"they differ ({first} and {second}): build the method with data.class_names, or call "
                     "method.set_class_names(data.class_names)")


def _read_images(data, labels, positions):
    """({position: PIL image}, {position: why it cannot be read})."""
    images, bad = {}, {}
    for i in positions:
        try:
            image, label = data[i]
        except UNREADABLE as error:
            bad[i] = f"{type(error).__name__}: {error}"
            continue
        if int(label) != labels[i]:
            raise ValueError(f"image {data.image_id(i)} of {data.name} comes with label {int(label)}, and "
                             f"data.labels[{i}] is {labels[i]}; the two must agree")
        images[i] = image
    return images, bad


def _predict(method, batch, ids, labels, seed):
    """{position: record} for a dict {position: image}. Probabilities are the softmax of the logits."""
    start = time.perf_counter()
    logits = torch.as_tensor(method.predict(list(batch.values()))).detach().float().cpu()    # [B, C]
    seconds = (time.perf_counter() - start) / len(batch)  # .cpu() has waited for a GPU
    expected = (len(batch), len(method.class_names))
    if tuple(logits.shape) != expected:
        raise ValueError(f"{_name(method)}.predict gave logits of shape {tuple(logits.shape)}; "
                         f"expected {expected}")
    finite = logits.isfinite().all(dim=1).tolist()                                           # [B]
    if not all(finite):
        first = ids[list(batch)[finite.index(False)]]
        raise ValueError(f"{_name(method)} gave logits that are not finite for image {first}; try precision "
                         '"fp32" or a smaller learning rate')
    p = logits.double().softmax(dim=1)                                                       # [B, C]
    entropy = _entropy(p)                                                                    # [B]
    untuned = getattr(method, "untuned", None)            # of a method that tunes on the image: before it did
    before = entropy if untuned is None else _entropy(untuned.double().cpu().softmax(dim=1))
    best = logits.argsort(dim=1, descending=True, stable=True)[:, :5].tolist()               # [B, 5]
    rows = {}
    for k, i in enumerate(batch):
        guess = best[k][0]
        values = (ids[i], labels[i], guess, int(guess == labels[i]), _short(p[k, guess]), _short(entropy[k]),
                  _short(before[k]), " ".join(map(str, best[k])), _short(seconds), seed)
        rows[i] = dict(zip(COLUMNS, values, strict=False))    # all columns but the last, `run`
    return rows


def _name(method) -> str:
    return getattr(method, "name", type(method).__name__)


def _entropy(p):
    return -torch.special.xlogy(p, p).sum(dim=1)                                             # [B, C] -> [B]


def _short(x) -> float:
    return float(f"{float(x):.6g}") + 0.0                 # what the CSV keeps; in memory the same; never -0.0


def _hash_tensors(tensors) -> str:
    return _hash(part for name, tensor in sorted(tensors.items())
                 for part in (name, tensor.detach().float().cpu().numpy().tobytes()))


def _hash(parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update((part if isinstance(part, bytes) else str(part).encode()) + b"\0")
    return digest.hexdigest()[:12]
