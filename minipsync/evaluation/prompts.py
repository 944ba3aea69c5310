"""Prompts that are learned once, and found again by a name that stands for all that training depends on."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..data.few_shot import learned_pictures
from ..files.paths import expand
from ..methods import Method, prompt_files


def learned(method: Method, train_set: Dataset, folder: str | Path | None = None, *, progress: bool = True,
            **recipe: Any) -> Method:
    """`method` with prompts trained on `train_set`: loaded if this training was done before, else fitted.

    folder: where to keep prompts and look for them, beside those of the package; None: nothing is kept.
    recipe: fields of `TrainConfig` that differ from the paper's.
    A file's name stands for everything that training depends on (method, config, recipe, images, classes,
    backbone), so a changed setting trains anew. A run that was killed goes on from its checkpoint in
    `folder`. Returns `method`."""
    name = prompt_file(method, train_set, **recipe)
    for place in [folder, prompt_files.SHIPPED] if folder else [prompt_files.SHIPPED]:
        if (file := expand(place) / name).is_file():
            return method.load(file)
    checkpoint = expand(folder) / f"{name}.training" if folder else None
    method.fit(train_set, checkpoint=checkpoint, progress=progress, **recipe)
    if checkpoint is not None:
        method.save(checkpoint.with_suffix(""))
        checkpoint.unlink(missing_ok=True)
    return method


def prompt_file(method: Method, train_set: Dataset, **recipe: Any) -> str:
    """The file name of prompts of `method` trained on `train_set` with `recipe` (see `learned`)."""
    if method.recipe is None:
        raise TypeError(f"{method.name} is not trained; expected a method with a recipe, as coop or maple")
    config = method.recipe.replace(**{"seed": method.config.seed} | recipe)
    free = ("workers", "cache_mb", "save_every")                  # these change no prompt
    facts = {"config": method.config.model_dump(), "backbone": method.clip.fingerprint,
             "precision": method.clip.precision, "classes": method.class_names,
             "recipe": {k: v for k, v in config.model_dump().items() if k not in free},
             "images": [learned_pictures(train_set, config.shots, config.seed),
                        *map(train_set.image_id, range(len(train_set)))]}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
    shots = "all" if config.shots is None else config.shots
    name = re.sub(r"[^\w.-]+", "_", train_set.name)
    return f"{method.name}_{name}_{shots}shots_seed{config.seed}_{key}.safetensors"
