"""Evaluate a method on a dataset, image by image, and compare two methods on the same images.

    result = evaluate(method, data, limit=200, records="results/mine")
    result.accuracy, result.interval, result.ece, result.seconds_per_image, result.records
    compare(result, other)

Images are taken in a seeded, class-balanced order: the accuracy seen so far is always that of a balanced
sample, and a larger `limit` contains a smaller one. Everything reported is computed from the records alone,
so a run that was killed and resumed ends where an undisturbed one ends, and so does one that several
processes shared (distributed.py): the batches are the same, whoever predicts them.
"""

import hashlib
import numbers
import struct
import sys
import warnings
import zlib
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm import tqdm

from .. import distributed
from ..data.content import of_picture
from .identity import describe_facts, describe_run, versions
from .records import add_facts, open_records
from .results import Comparison, Result, compare, summarise
from .rows import predict_rows

__all__ = ["Comparison", "Result", "balanced_order", "compare", "evaluate"]

UNREADABLE = (OSError, SyntaxError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)


def evaluate(method, data, limit=None, records=None, batch_size=16, seed=0, progress=True) -> Result:
    """Predict `data` with `method` and report accuracy, calibration and time.

    limit:      how many images to take, None for all: a class-balanced sample that `seed` and the ids decide
    records:    where to keep one row per image: a folder (each run has a file of its own in it), a .csv file,
                or None (memory). Images that have a row are not computed again; in a folder, nor are those
                of which another run with these settings has a row, of a data set that has grown since, or
                in which a picture was mended. A .csv file with rows of another method, setting, prompt,
                backbone, image set or seed raises ValueError.
    batch_size: images per call of `method.predict`
    progress:   show a bar

    `method` has name, config, class_names and predict(list of PIL images) -> logits [B, C]. If its
    predictions depend on more than what identity.py finds (code, config, state_dict, source statistics,
    classes, backbone, pictures), a string `method.fingerprint` stands for the rest. Images that cannot be
    read are left out with a warning, listed in `skipped`, and tried again the next time.
    """
    ids, labels = _check(method, data, limit, batch_size, seed)
    order = balanced_order(ids, labels, limit, seed)
    folder = None if records is None or Path(records).suffix == ".csv" else records
    run = describe_run(method, data, ids, labels, seed, cache=folder)
    team, skipped, right, seen = distributed.world(), [], 0, 0
    mine = range(distributed.rank() * batch_size, len(order), team * batch_size)       # starts of my batches
    name = f"{run['method']} on {run['dataset']}" + (f", process 1 of {team}" if team > 1 else "")
    facts = describe_facts(method, data) | {"images": len(order)}
    position = {ids[i]: i for i in order}

    def same_picture(row):
        """Is a row of another data set of this run's settings one of a picture that we have, too?"""
        i = position.get(row["image"])
        return i is not None and labels[i] == row["label"] and _content_now(data, i) == row["picture"]

    with open_records(records, run, list(position), facts, versions(), same_picture) as kept, \
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
                contents = {i: of_picture(data, i, image) for i, image in batch.items()}
                rows = predict_rows(method, batch, ids, labels, run["seed"], contents)
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
                     resumed=resumed, path=kept.path, **getattr(data, "accounts", {}))


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


def _content_now(data, i):
    try:
        return of_picture(data, i, None if getattr(data, "places", None) else data[i][0])
    except UNREADABLE:
        return None


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
