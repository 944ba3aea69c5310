"""Prompts from checkpoints of the official repositories, in the layout of Dassl's trainer."""

import re
from pathlib import Path
from typing import Any

from ..files.tensors import read_checkpoint, tensors_in

LEARNED = re.compile(r"^(ctx$|proj\.|compound_prompt|meta_net\.)|VPT")      # names in official checkpoints


def load_official(method: Any, path: str | Path) -> None:
    """Put the prompts of an official checkpoint (Dassl's layout) into the learner of `method`."""
    if method.learner is None:
        raise TypeError(f"{method.name} has no prompts to load; just predict")
    state = {k.removeprefix("module.").removeprefix("prompt_learner."): v for k, v in
             tensors_in(read_checkpoint(path), path).items()}
    own = method.learner.state_dict()
    for name, value in own.items():
        if name not in state:
            raise ValueError(f"{name} of this {method.name} is not in the state_dict of {path}; it has "
                             f"{', '.join(k for k in state if 'resblocks' not in k)[:500]}")
        theirs = list(getattr(state[name], "shape", ["no tensor"]))
        if theirs != list(value.shape):
            raise ValueError(f"{path}: {name} has shape {theirs}, this {method.name} wants "
                             f"{list(value.shape)}; build it with the settings of the checkpoint")
        if not state[name].isfinite().all():
            raise ValueError(f"{path}: {name} contains NaN or infinity; take another checkpoint")
    if more := [k for k in state if LEARNED.search(k) and k not in own]:
        raise ValueError(f"{path} has {len(more)} learned tensors that this {method.name} has no place for, "
                         f"first {more[0]}: it is of another method, or deeper; build it with the "
                         "checkpoint's settings, as depth=9")
    method.learner.load_state_dict({k: state[k].float() for k in own})
    method.trained_on, method.prompts_from, method.history = "", Path(path).name, []
    method.learned_from = {}
