"""Trying what a step on one image can do, with any method: the method itself if it tunes, else TPT's episode
on the prompts that it has.

    tuner = tuner_for(mp.build("maple", clip, names))     # MaPLe's prompts, TPT's step
    before, after = label_step(tuner, views, labels)      # one step on the truth: an upper bound for any loss
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from .base import Method, Params
from .cocoop import ConditionalPrompt
from .learner import Learner
from .numerics import careful_step, full_precision, gradients
from .test_time import TestTimeBase, TestTimeConfig
from .tpt import TPT, TestTimeMethod
from .zero_shot import ZeroShot

TEXT_RATE = 5e-3                                 # TPT's
BOTH_RATE = 4e-2                                 # of MaPLe's prompts in PromptAlign's code (METHODS 5.7)


class ProbeConfig(TestTimeConfig, title="headroom"):
    """For a method that tunes nothing on the test image: the step that is tried on its prompts, TPT's."""

    lr: PositiveFloat | None = None
    """rate of AdamW; None: 0.005 for prompts of the text alone (TPT), 0.04 for others (PromptAlign's code)"""
    augmix: bool = False
    """AugMix in the views"""
    seed: int = 0
    """seed of the views without view_seed; TPT's default"""


class Probe(TestTimeMethod):
    """TPT's episode on a copy of the prompts of a method that tunes nothing itself."""

    name, Config = "probe", ProbeConfig

    def __init__(self, method: Method, config: ProbeConfig):
        self.__dict__["_prompts"] = method.learner        # not a submodule: the copy is
        super().__init__(method.clip, method.class_names, config)

    def make_learner(self) -> Learner:
        return copy.deepcopy(self.__dict__["_prompts"])


class ConditionalProbe(TPT):
    """TPT's episode on the context that CoCoOp gives for the image.

    TPT's code gives the net the raw feature; here it gets the unit one, as in CoCoOp itself, so that the step
    starts where CoCoOp predicts."""

    def start(self, x: Tensor) -> Params:
        self.check_device()
        ctx = self.learner(F.normalize(x[:, 0], dim=-1)).text[:, 0]                              # [B, M, W]
        return {"ctx": ctx.detach().requires_grad_()}


class NothingToTune(TypeError):
    """A method has no prompts that a step could move; the message says why."""


def tunes(method: Method) -> bool:
    """Does the method itself tune its prompts on the test image?"""
    return isinstance(method, TestTimeBase) and "lr" in type(method.config).model_fields


def tuner_for(method: Method, config: ProbeConfig | None = None) -> Any:
    """The method that tunes the prompts of `method` on a test image: itself, or one with TPT's episode.

    Of zero-shot CLIP the words before the class name are tuned, as TPT does, of CoCoOp the context that the
    image gives, and of another learner all its prompts. config: for a method that tunes nothing itself.
    Raises NothingToTune for a method without prompts.
    """
    if tunes(method):
        return method
    learner, c = method.learner, config or ProbeConfig()
    if isinstance(method, TestTimeBase) or (learner is None and not isinstance(method, ZeroShot)):
        raise NothingToTune(f"{method.name} has nothing that a step on an image could tune")
    of_tpt = c.replace(lr=c.lr or TEXT_RATE).model_dump()
    if learner is None:
        return TPT(method.clip, method.class_names, **of_tpt, start="words", init=_words(method))
    if isinstance(learner, ConditionalPrompt):
        tuner = ConditionalProbe(method.clip, method.class_names, **of_tpt, start="cocoop", init=None,
                                 n_ctx=learner.n_ctx)
        tuner.learner.load_state_dict(learner.state_dict())
        return tuner
    prompts = learner()
    if prompts.text is None and prompts.vision is None:
        raise NothingToTune(f"{method.name} has no prompts that a step on an image could tune")
    return Probe(method, c.replace(lr=c.lr or (TEXT_RATE if prompts.vision is None else BOTH_RATE)))


def what_is_tuned(method: Method, tuner: Any) -> str:
    """In words: which prompts a step moves, whose step it is and its rate."""
    if tuner is method:
        return f"{method.name}'s prompts, by its own step, rate {tuner.config.lr:g}"
    prompts = (f"the words {tuner.config.init!r} before the class names" if method.learner is None
               else f"{method.name}'s prompts")
    return f"{prompts}, by TPT's step, rate {tuner.config.lr:g}"


@torch.no_grad()
def view_logits(method: Method, views: Tensor) -> Tensor:
    """Logits [B, V, C] of every view by itself, before anything is tuned: views [B, V, 3, S, S]."""
    if isinstance(method, TestTimeBase):
        x = method.inputs(views)
        return method.first_logits(x, method.start(x))
    parts = views.flatten(0, 1).split(method.image_batch)
    return torch.cat([method.own_logits(part) for part in parts]).unflatten(0, views.shape[:2])


@torch.enable_grad()
def label_step(tuner: Any, views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, C] of view 0 before and after one step on its cross-entropy with the true label.

    views [B, V, 3, S, S], labels [B]. Optimiser and rate are the method's own: where even the truth does not
    move a prediction, no loss without labels can.
    """
    x = tuner.inputs(views[:, :1])
    params = tuner.start(x)
    before = tuner.logits(x, params)[:, 0]                                                       # [B, C]
    loss = F.cross_entropy(full_precision(before), labels, reduction="none")                     # [B]
    for name, gradient in gradients(loss, params, tuner.clip.precision).items():
        params[name].grad = gradient
    careful_step(tuner.optimizer(params), params)
    with torch.no_grad():
        return before.detach(), tuner.logits(x, params)[:, 0]


def _words(method: Method) -> str:
    """The words of the first template before the class name. NothingToTune if there are none, or others
    behind it."""
    template = method.config.templates[0]
    before, _, after = template.partition("{}")
    if not before.strip() or after.strip() not in ("", "."):
        raise NothingToTune(f"{method.name} with the template {template!r}: a context that a step could tune "
                            "needs words before {} and at most a full stop behind it")
    return before.strip()
