"""One test image at a time: where a method wins or loses, its views, and what its step makes of it.

    found = win_and_loss(results["tpt"], results["zero_shot"], data)      # {"win": 17, "loss": 40}
    case = look(tpt, data, found["win"])
    case.views_figure()                                                   # each in a cell of its own
    case.step_figure()
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..evaluation.results import Result
from ..methods.tpt import view_entropy
from . import plots
from .captions import Captioned


def win_and_loss(a: Result, b: Result, data: Dataset) -> dict[str, int]:
    """Positions in `data` of a "win", an image that only a gets right, and of a "loss", one that only b does:
    the first of each in the order of a's records. One that there is not is left out."""
    both = a.records.merge(b.records, on="image", suffixes=("", "_other"))
    place = {data.image_id(i): i for i in range(len(data))}
    gained = both["correct"].astype(int) - both["correct_other"].astype(int)
    return {kind: place[both["image"][gained == sign].iloc[0]]
            for kind, sign in (("win", 1), ("loss", -1)) if (gained == sign).any()}


@dataclass(frozen=True)
class Case:
    """What a test-time method did to one image of class `label`.

    views:  the picture itself and its augmented views, [V, 3, S, S] with values 0..1
    kept:   positions of the confident views, the surest first
    before: logits [V, C] of all views before the step; after: logits [C] of the image itself after it
    tuned:  the prompts after the step, by name
    """

    method: str
    position: int
    label: int
    class_names: list[str]
    views: Tensor
    kept: list[int]
    before: Tensor
    after: Tensor
    tuned: dict[str, Tensor]

    @property
    def moved(self) -> str:
        """What the step makes of the prediction: "goes from wrong to right", "stays right", …"""
        old, new = ("right" if int(logits.argmax()) == self.label else "wrong"
                    for logits in (self.before[0], self.after))
        if old != new:
            return f"goes from {old} to {new}"
        same = self.before[0].argmax() == self.after.argmax()
        return f"stays {old}" + ("" if same else ", in another class")

    def views_figure(self, most: int = 8) -> Captioned:
        """The image itself, the views that are kept, and others, up to `most`, with their entropies."""
        shown = [0, *(i for i in self.kept if i)][:most]
        shown += [i for i in range(len(self.views)) if i not in shown][:most - len(shown)]
        marked = [place for place, i in enumerate(shown) if i in self.kept]
        name = self.class_names[self.label]
        votes = int((self.before[self.kept].argmax(-1) == self.label).sum())
        told = f"before the step {votes} of the {len(self.kept)} kept views vote for “{name}”"
        return Captioned(
            plots.view_grid(self.views[shown], view_entropy(self.before)[shown], marked,
                            title=f"{name}: itself, views kept (✓), others; entropy in nats"),
            f"Image {self.position}, “{name}”: itself first, then views, the surest first; {told}.",
            alt=f"{len(shown)} small pictures with a number below each, the entropy of its prediction; "
                f"{len(marked)} of them are framed and ticked; {told}.")

    def step_figure(self) -> Captioned:
        """Probabilities of the image itself before and after the step, of the likeliest classes."""
        old, new = self.before[0].softmax(-1), self.after.softmax(-1)
        said = (f"“{self.class_names[int(p.argmax())]}” with {100 * float(p.max()):.0f} %"
                for p in (old, new))
        true = self.class_names[self.label]
        told = f"{' before the step, '.join(said)} after it; the true class is “{true}”"
        return Captioned(
            plots.class_probabilities(old, new, self.class_names, self.label, k=6,
                                      title=f"{self.method}, image {self.position}"),
            f"The prediction {self.moved}: {told}.",
            alt=f"A bar chart with two bars for each of the likeliest classes, before and after: {told}.")


@torch.no_grad()
def look(method: Any, data: Dataset, position: int) -> Case:
    """Run a test-time method on the image at `position` of `data`, and keep what it did.

    Raises IndexError for a position that `data` lacks.
    """
    if not 0 <= position < len(data):
        raise IndexError(f"position={position}: {data.name} has {len(data)} images, 0 to {len(data) - 1}")
    picture, label = data[position]
    views = method.make_views(picture)[None]                                           # [1, V, 3, S, S]
    adapted, x = method.adapt(views), method.inputs(views)
    before = method.first_logits(x, method.start(x))[0]                                # [V, C]
    after = method.logits(adapted.original, adapted.params)[0, 0]                      # [C]
    kept = [] if adapted.selected is None else adapted.selected[0].tolist()
    return Case(method.name, position, int(label), list(data.class_names),
                method.clip.denormalize(views[0]).cpu(), kept, before.float().cpu(), after.float().cpu(),
                {name: value[0] for name, value in adapted.params.items()})
