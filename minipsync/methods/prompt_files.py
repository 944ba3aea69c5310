"""Prompt files: safetensors plus metadata that says what the prompts belong to."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.few_shot import learned_pictures
from ..files.paths import expand
from ..files.tensors import read_metadata, read_tensors, write_tensors

FORMAT = "minipsync-prompts-1"
SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "prompts"


class SeveralFit(ValueError):
    """Of one seed there are several trainings; `paths` are their files."""

    def __init__(self, text: str, paths: list[Path]):
        super().__init__(text)
        self.paths = paths


def save(method: Any, path: str | Path) -> Path:
    """Write the learner of `method` to `path` (whole or not at all). Returns the path."""
    if method.learner is None:
        raise TypeError(f"{method.name} has no learned prompts to save")
    return write_tensors(path, method.learner.state_dict(), describe(method))


def describe(method: Any) -> dict[str, str]:
    """What the prompts of a method belong to: the metadata of their file."""
    return {"format": FORMAT, "method": method.name, "config": json.dumps(method.config.model_dump()),
            "class_names": json.dumps(method.class_names), "fingerprint": method.clip.fingerprint,
            "layout": json.dumps(_layout(method)), "trained_on": method.trained_on,
            "learned_from": json.dumps(method.learned_from), "history": json.dumps(method.history)}


def load(method: Any, path: str | Path = "auto", **choice: Any) -> None:
    """Put the prompts of a file into the learner of `method`; ValueError says what does not fit."""
    if method.learner is None:
        raise TypeError(f"{method.name} has no prompts to load; just predict")
    if str(path) == "auto":
        path = find(method, **choice)
    elif (path := expand(path)).is_dir():
        path = find(method, path, **choice)
    tensors, metadata = read(path)
    if reason := _other_choice(metadata, **choice):
        raise ValueError(f"{path}: {reason}")
    _take(method, tensors, metadata, Path(path).name, str(path))


def hand_over(trained: Any, method: Any) -> Any:
    """Give `method` the prompts of another one, as if by a file; ValueError says what does not fit."""
    tensors = {name: x.detach().clone() for name, x in trained.learner.state_dict().items()}
    _take(method, tensors, describe(trained), trained.prompts_from, f"the prompts of {trained.name}")
    return method


def _take(method: Any, tensors: dict[str, Tensor], metadata: dict[str, str], prompts_from: str,
          where: str) -> None:
    if reason := misfit(method, tensors, metadata):
        raise ValueError(f"{where}: {reason}")
    method.learner.load_state_dict(tensors)
    method.learned_from = json.loads(metadata.get("learned_from", "{}"))
    method.trained_on, method.prompts_from = metadata.get("trained_on", ""), prompts_from
    method.history = json.loads(metadata.get("history", "[]"))


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a prompt file. Never unpickles."""
    expected = ('a file that method.save(path) wrote, or "auto" for the shipped prompts (pickles are refused;'
                " for a checkpoint of the official code use method.load_official(path))")
    tensors, metadata = read_tensors(path, expected)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file but not {FORMAT}; expected what method.save wrote")
    return tensors, metadata


def misfit(method: Any, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Why these prompts do not belong to `method`; empty if they do."""
    good = (method.name, *method.accepts)
    if metadata["method"] not in good:
        return (f"holds prompts of {metadata['method']!r}; {method.name} with these settings takes those of "
                f"{' or '.join(good)}")
    if metadata["fingerprint"] != method.clip.fingerprint:
        return (f"was trained on the backbone {metadata['fingerprint']}, this is {method.clip.fingerprint} "
                f"({method.clip.name}); load that backbone, or fit again")
    theirs = {k: list(v.shape) for k, v in tensors.items()}
    ours = {k: list(v.shape) for k, v in method.learner.state_dict().items()}
    if theirs != ours:
        name = next(k for k in sorted({**theirs, **ours}) if theirs.get(k) != ours.get(k))
        return (f"{name} has shape {theirs.get(name, 'none')}, this {method.name} wants "
                f"{ours.get(name, 'none')}; it was made with {metadata['config']}")
    layout, own = json.loads(metadata["layout"]), _layout(method)
    if getattr(method.config, "variant", "") == "A":
        own["tail"] = layout["tail"]                      # this MaPLe + TPT drops it, as its code does
    if layout != own:
        return f"its prompts sit in the text as {layout}, here as {own}; build with {metadata['config']}"
    if layout["n_classes"] is not None and json.loads(metadata["class_names"]) != method.class_names:
        return "its prompts are class-specific and were made for other class names"
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        return "contains NaN or infinity"
    return ""


def find(method: Any, folder: str | Path | None = None, *, trained_on: str = "imagenet",
         seed: int | None = None, train_set: Any = None) -> Path:
    """The file in `folder`, or in the package, with prompts as this method would train them: for its backbone
    and settings, and with `seed`, or the method's own; for a method that only takes prompts, the lowest.

    train_set: the data set that `trained_on` names, where it is at hand: prompts that were learned from other
    pictures are then not taken for those of this one. Raises FileNotFoundError where none fit, with what
    there is, and SeveralFit."""
    folder = SHIPPED if folder is None else expand(folder)
    fits, others = [], []
    names = (method.name, *method.accepts)
    own_seed = getattr(method.config, "seed", None) if method.prompt_settings is None else None
    wanted_seed = own_seed if seed is None else seed
    for path in sorted(folder.glob("*.safetensors")):
        try:
            if read_metadata(path).get("method") not in names:
                continue
        except ValueError as error:
            others.append(f"\n  {path.name}: damaged ({error})")
            continue
        tensors, metadata = read(path)
        config = json.loads(metadata["config"])
        reason = (misfit(method, tensors, metadata) or _other_choice(metadata, trained_on, wanted_seed)
                  or _other_training(method, config) or _other_pictures(metadata, train_set))
        if reason:
            others.append(f"\n  {path.name}: {reason}")
        else:
            fits.append((config.get("seed", 0), path.name, path))
    if not fits:
        wanted = f"trained_on={trained_on!r}" + (f", seed={seed}" if seed is not None else "")
        first = "".join(others[:5]) + (f"\n  and {len(others) - 5} more" if len(others) > 5 else "")
        what, place = ("shipped prompts", "Shipped") if folder == SHIPPED else (
            f"prompts in {str(folder)!r}", "There")
        raise FileNotFoundError(f"no {what} fit {method.name} on {method.clip.name} ({wanted}); "
                                f"fit and save your own. {place} for this method: {first or 'none'}")
    lowest = min(fits)[0]
    paths = [path for number, _, path in fits if number == lowest]
    if len(paths) > 1:
        raise SeveralFit(f"{len(paths)} files in {str(folder)!r} have prompts of this {method.name}, seed "
                         f"{lowest}, trained with other shots, epochs or rates: name one of them, "
                         f"{', '.join(path.name for path in paths)}", paths)
    return paths[0]


def find_in(method: Any, folder: str | Path | None, **choice: Any) -> Path:
    """`find` in `folder`, if there is one, else in the package; of two errors the one that lists files."""
    if folder is None:
        return find(method, **choice)
    try:
        return find(method, folder, **choice)
    except FileNotFoundError as missing:
        try:
            return find(method, **choice)
        except FileNotFoundError as error:
            raise (error if str(missing).endswith("none") else missing) from None


def _other_choice(metadata: dict[str, str], trained_on: str | None = None, seed: int | None = None,
                  train_set: Any = None) -> str:
    """In what the prompts of a file are not those that were asked for by name; empty if in nothing."""
    if trained_on not in (None, metadata["trained_on"]):
        return f"trained on {metadata['trained_on']!r}"
    theirs = json.loads(metadata["config"]).get("seed")
    return (f"seed {theirs}" if seed not in (None, theirs) else "") or _other_pictures(metadata, train_set)


def _other_pictures(metadata: dict[str, str], train_set: Any) -> str:
    """Whether the prompts of a file were learned from other pictures than those of `train_set`; empty if not,
    or if the file or the caller does not know."""
    known = json.loads(metadata.get("learned_from", "{}"))
    if train_set is None or not known.get("pictures"):
        return ""
    ours = learned_pictures(train_set, known["recipe"]["shots"], known["recipe"]["seed"])
    return "" if ours == known["pictures"] else (
        f"learned from other pictures than those of {train_set.name!r} here (their content is "
        f"{known['pictures']} there, {ours} here)")


def _other_training(method: Any, config: dict) -> str:
    """In which setting the prompts of a file with this config were trained otherwise; empty if in none."""
    names = config if method.prompt_settings is None else method.prompt_settings
    for name in (n for n in names if n != "seed" and n in config and hasattr(method.config, n)):
        theirs, ours = config[name], getattr(method.config, name)
        if json.dumps(theirs) != json.dumps(ours):
            return f"{name} is {theirs!r} there and {ours!r} here"
    return ""


def _layout(method: Any) -> dict:
    """Where the learner's slots sit in the text; trained prompts mean nothing elsewhere."""
    return {k: getattr(method.learner, k) for k in ("n_ctx", "tail", "position", "n_classes")}
