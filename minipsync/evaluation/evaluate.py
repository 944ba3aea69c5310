"""Evaluate a method on a data set, image by image.

    result = evaluate(method, data, limit=200, records="results/mine")
    result.accuracy, result.interval, result.ece, result.seconds_per_image, result.records
    compare(result, other)

Images are taken in a seeded, class-balanced order: the accuracy seen so far is always that of a balanced
sample, and a larger `limit` contains a smaller one. Everything reported is computed from the records alone,
so a run that was killed and resumed ends where an undisturbed one ends. So does a run that several processes
shared (distributed.py): the batches are the same, whoever predicts them.
"""

import hashlib
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from .. import distributed
from ..data.content import of_picture
from ..data.dataset import Dataset
from .checks import check_arguments
from .identity import describe_facts, describe_run, versions
from .progress import progress_bar
from .record_format import Row
from .records import add_facts, open_records
from .results import Comparison, Result, compare, summarise
from .rows import predict_rows

__all__ = ["Comparison", "Result", "balanced_order", "compare", "evaluate"]

UNREADABLE = (OSError, SyntaxError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)


def evaluate(method: Any, data: Dataset, limit: int | None = None, records: str | Path | None = None,
             batch_size: int | None = None, sample_seed: int = 0, progress: bool = True) -> Result:
    """Predict `data` with `method` and report accuracy, calibration and time.

    limit:      how many images to take, None for all: a class-balanced sample, which the image ids and
                `sample_seed` decide
    records:    where to keep one row per image: a folder (each run has a file of its own in it), a .csv file,
                or None (memory). Images that have a row are not computed again. In a folder this also holds
                for rows of another run with these settings, as of a data set that has grown since. A .csv
                file with rows of another method, setting, prompt, backbone, image set or seed raises
                ValueError.
    batch_size: images per call of `method.predict`; None: 4 on the CPU, which gains nothing by more, else 16
    progress:   whether to show a bar. It counts up after each batch; its clock moves every second

    `method` has name, config, class_names and predict(list of PIL images) -> logits [B, C], best as a
    `Prediction`, which also holds the logits before prompts were tuned. If its predictions depend on more
    than what identity.py finds (code, config, state_dict, source, classes, backbone, pictures), a string
    `method.fingerprint` stands for the rest. Images that cannot be read are left out with a warning, listed
    in `skipped`, and tried again the next time.
    """
    if batch_size is None:
        batch_size = usual_batch(method)
    ids, labels = check_arguments(method, data, limit, batch_size, sample_seed)
    order = balanced_order(ids, labels, limit, sample_seed)
    folder = None if records is None or Path(records).suffix == ".csv" else records
    run = describe_run(method, data, ids, labels, sample_seed, cache=folder)
    facts = describe_facts(method, data) | {"images": len(order)}
    position = {ids[i]: i for i in order}

    def same_picture(row: Row) -> bool:
        """Is a row of another data set, with this run's settings, one of a picture that is here, too?"""
        i = position.get(row["image"])
        return i is not None and labels[i] == row["label"] and _content_now(data, i) == row["picture"]

    team, rank = distributed.world(), distributed.rank()
    name = f"{run['method']} on {run['dataset']}" + (f", process 1 of {team}" if team > 1 else "")
    batches = [order[start:start + batch_size] for start in range(0, len(order), batch_size)][rank::team]
    skipped: list[tuple[str, str]] = []
    with open_records(records, run, list(position), facts, versions(), same_picture) as kept:
        resumed = sum(image in kept.rows for image in position)
        mine = [ids[i] for batch in batches for i in batch]
        known = [kept.rows[image]["correct"] for image in mine if image in kept.rows]
        right, seen = sum(known), len(known)
        with progress_bar(name, len(mine), seen, progress and rank == 0) as bar:
            for batch in batches:
                new, bad = read_images(data, labels, [i for i in batch if ids[i] not in kept.rows])
                skipped += [(ids[i], reason) for i, reason in bad.items()]
                if new:
                    # an interrupted batch is predicted whole: batch mates can move the last digits of a logit
                    old, _ = read_images(data, labels, [i for i in batch if i not in new and i not in bad])
                    images = {i: (new | old)[i] for i in batch if i in new or i in old}
                    contents = {i: of_picture(data, i, image) for i, image in images.items()}
                    rows = predict_rows(method, images, ids, labels, run["seed"], contents)
                    kept.append([rows[i] for i in new])
                    right, seen = right + sum(rows[i]["correct"] for i in new), seen + len(new)
                bar.set_postfix_str(f"accuracy {100 * right / max(seen, 1):.1f} %", refresh=False)
                bar.update(len(new) + len(bad))
    rows_in_order = [kept.rows[image] for image in position if image in kept.rows]
    skipped = sum(distributed.gather(skipped), [])
    add_facts(kept.path, skipped=[image for image, _ in skipped])
    if not rows_in_order:
        raise ValueError(f"none of the {len(order)} images of {data.name} could be read; the first said: "
                         f"{skipped[0][1]}; check the folder, or download the dataset again")
    if skipped:
        warnings.warn(f"{len(skipped)} of {len(order)} images of {data.name} could not be read and were left "
                      f"out, first {skipped[0][0]} ({skipped[0][1]}); see result.skipped", stacklevel=2)
    return summarise(run["method"], run["dataset"], run["seed"], pd.DataFrame(rows_in_order), skipped=skipped,
                     origin=facts["origin"], resumed=resumed, path=kept.path, **getattr(data, "accounts", {}))


def usual_batch(method: Any) -> int:
    """How many images to predict at once: few on the CPU, so that a bar moves soon; enough to fill a GPU."""
    device = getattr(getattr(method, "clip", None), "device", None)
    return 4 if getattr(device, "type", "cpu") == "cpu" else 16


def balanced_order(ids: Sequence[str], labels: Sequence[int], limit: int | None = None, sample_seed: int = 0
                   ) -> list[int]:
    """Positions of `limit` images (None: all), class-balanced, in an order that sample_seed and ids decide.

    Each round takes one image of every class that has any left, so that in the first n images classes differ
    by one at most while they last. Ranks are sha256 hashes: the same on every machine, in whatever order the
    images are listed."""
    def rank(*parts: object) -> bytes:
        return hashlib.sha256("\n".join(map(str, (sample_seed, *parts))).encode()).digest()

    queues: dict[int, list[int]] = {}
    for i in sorted(range(len(ids)), key=lambda i: rank(ids[i])):
        queues.setdefault(int(labels[i]), []).append(i)
    order: list[int] = []
    for r in range(max(map(len, queues.values()))):
        left = [label for label, queue in queues.items() if len(queue) > r]
        order += [queues[label][r] for label in sorted(left, key=lambda label: rank("class", r, label))]
        if limit is not None and len(order) >= limit:
            break
    return order if limit is None else order[:limit]


def _content_now(data: Dataset, i: int) -> str | None:
    """The hash of a picture as it is now; None if it cannot be read."""
    try:
        return of_picture(data, i, None if getattr(data, "places", None) else data[i][0])
    except UNREADABLE:
        return None


def read_images(data: Dataset, labels: Sequence[int], positions: Iterable[int]
                ) -> tuple[dict[int, Image.Image], dict[int, str]]:
    """({position: PIL image}, {position: why it cannot be read}).

    Raises ValueError for an image that comes with another label than `labels` says."""
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
