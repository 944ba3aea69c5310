"""Can test-time tuning help here? A look at a few hundred images, before hours of work.

    report = headroom(method, data, limit=200)
    print(report)                                       # each measure with its interval, and what it says
    report.table, report.images, report.to_csv("headroom.csv")

Methods that tune on the test image live from a few things, and where one is missing they cannot help: crops
must be worth looking at, confidence must find the good ones, a step of this size must be able to move
predictions. Each has a measure here. docs/full.md says how to read them.
"""

import html
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..files.paths import write_whole
from ..methods.base import Method
from ..methods.inputs import check_images
from ..methods.memory import in_batches
from ..methods.probe import (
    NothingToTune,
    ProbeConfig,
    label_step,
    tuner_for,
    tunes,
    view_logits,
    what_is_tuned,
)
from ..methods.test_time import TestTimeBase
from ..methods.tpt import mean_log_probability, select_confident, take_views, view_entropy
from ..settings import did_you_mean
from ..views.areas import view_areas
from ..views.crops import content_seed, make_views
from .checks import check_arguments
from .evaluate import balanced_order, read_images, usual_batch
from .headroom_rows import area_edges, rows_of, verdict_of
from .progress import progress_bar

SIBLINGS = 5                                     # images of a class for their correlation, where there are
COLUMNS = ["measure", "value", "low", "high", "n", "says"]


@dataclass(frozen=True)
class Headroom:
    """What `headroom` found.

    tuned:   in words, which prompts a step moves, whose step it is and its rate; or why there is none
    n:       number of images that were looked at
    table:   DataFrame, one row per measure: measure (its unit behind a comma), value, low and high (95 %
             interval over resampled classes), n (images it is of), says (a verdict in words, from intervals)
    images:  DataFrame, one row per image, of what the table is computed from: image, label; untouched (was
             the image alone right), crops 0, crops 1, … (share of right ones among its crops of each area),
             confident (was the mean of the confident views right), found (confident views right minus unsure
             ones right), margin (between the two best logits), label_before and label_after (right before
             and after a step on the true label), before and tuned (the same of the step without it), movement
             (the largest change of a logit's distance to the best one), changed (is another class the best)
    seed:    of the choice of images, `sample_seed` of `headroom`
    skipped: images that could not be read, [(image id, reason)]; not among the n
    """

    method: str
    dataset: str
    n: int
    tuned: str
    table: pd.DataFrame = field(repr=False)
    images: pd.DataFrame = field(repr=False)
    seed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence: is there room for test-time tuning, and if that is not shown, what lacks."""
        return verdict_of(self.table)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The table as CSV with every digit; written to `path` if one is given."""
        text = self.table.to_csv(index=False, lineterminator="\n")
        if path is not None:
            write_whole(path, text.encode())
        return text

    def _head(self) -> str:
        missing = f" ({len(self.skipped)} could not be read)" if self.skipped else ""
        return f"{self.method} on {self.dataset}, n = {self.n}{missing}; a step moves {self.tuned}"

    def _in_words(self) -> pd.DataFrame:
        shown = [{"measure": row.measure, "value": _short(row.value, row.measure), "95 % interval":
                  "" if pd.isna(row.low) else
                  f"{_short(row.low, row.measure)} to {_short(row.high, row.measure)}",
                  "n": str(row.n), "what it says": row.says} for row in self.table.itertuples()]
        return pd.DataFrame(shown)

    def __str__(self) -> str:
        words = self._in_words()
        left = {name: f"{{:<{max(words[name].str.len().max(), len(name))}}}".format
                for name in ("measure", "what it says")}
        text = words.to_string(index=False, justify="left", formatters=left)
        return "\n".join([self._head(), *(line.rstrip() for line in text.split("\n")), self.verdict])

    def _repr_html_(self) -> str:
        return (f"<p>{html.escape(self._head())}</p>{self._in_words().to_html(index=False, border=0)}"
                f"<p>{html.escape(self.verdict)}</p>")


def headroom(method: Method, data: Dataset, limit: int | None = 200, sample_seed: int = 0,
             progress: bool = True, **settings: Any) -> Headroom:
    """Measure on some images of `data` whether test-time tuning of `method` can help there.

    method:      any, ready to predict. One that tunes on the test image is taken as it is. Of another, TPT's
                 step is tried on its prompts; where it has none, the measures of a step do not apply
    limit:       how many images to take, None for all: the class-balanced sample of `evaluate`. Where it has
                 fewer than SIBLINGS of a class, a few more are looked at without views, for the correlation
                 within classes alone; the n of its row says how many
    sample_seed: of the choice of images
    progress:    whether to show a bar
    settings:    fields of `ProbeConfig` (n_views, selection, lr, …), for a method that tunes nothing itself

    Views follow from the image's content and the method's `view_seed`, as in `predict`: the same images give
    the same report. It costs about twice what `predict` with tuning does. Images that cannot be read are left
    out with a warning and listed in `skipped`. Raises TypeError for a method that is not this package's, and
    for settings beside a method that has its own; ValueError for data that do not fit, or none readable.
    """
    if not isinstance(method, Method):
        raise TypeError(f"method is a {type(method).__name__}; expected a method of minipsync, as "
                        "bench.build(name, data) or mp.build(name, clip, class_names) make one")
    if settings and isinstance(method, TestTimeBase):
        hint = did_you_mean(next(iter(settings)), type(method.config).model_fields)
        raise TypeError(f"{method.name} has views and a step of its own and takes no {', '.join(settings)} "
                        f"here: build it with these settings.{hint}")
    config = ProbeConfig(**settings)
    ids, labels = check_arguments(method, data, limit, 1, sample_seed)
    order = balanced_order(ids, labels, limit, sample_seed)
    look = Look(method, config)
    skipped: list[tuple[str, str]] = []
    siblings = _siblings(balanced_order(ids, labels, None, sample_seed), labels, order)
    with progress_bar(f"headroom of {method.name} on {data.name}", len(order) + len(siblings), 0,
                      progress) as bar:
        def seen(todo: list[int], see: Callable) -> list[dict[str, Any]]:
            """What `see` says of each image that can be read."""
            found = []
            for start in range(0, len(todo), look.size):
                images, bad = read_images(data, labels, batch := todo[start:start + look.size])
                skipped.extend((ids[i], reason) for i, reason in bad.items())
                pictures = check_images(list(images.values())) if images else []
                items = [(picture, labels[i]) for picture, i in zip(pictures, images, strict=True)]
                said = [row for part in in_batches(method, see, items, look.size) for row in part]
                found += [{"image": ids[i], "label": labels[i], **row}
                          for i, row in zip(images, said, strict=True)]
                bar.update(len(batch))
            return found

        rows, alone = seen(order, look), seen(siblings, look.alone)
    if not rows:
        raise ValueError(f"none of the {len(order)} images of {data.name} could be read; the first said: "
                         f"{skipped[0][1]}; check the folder, or download the dataset again")
    if skipped:
        warnings.warn(f"{len(skipped)} of {len(order) + len(siblings)} images of {data.name} could not be "
                      f"read and were left out, first {skipped[0][0]} ({skipped[0][1]}); see skipped",
                      stacklevel=2)
    table = pd.DataFrame(rows)
    untouched = pd.DataFrame(rows + alone)[["label", "untouched"]]
    measures = rows_of(table, untouched, look.edges, look.n_views, look.chosen, look.reason)
    return Headroom(method.name, data.name, len(table), look.reason or what_is_tuned(method, look.tuner),
                    pd.DataFrame(measures, columns=COLUMNS), table, sample_seed, skipped)


class Look:
    """What is looked at in a few images at a time: calling it with [(image, label), …] gives a dict each."""

    def __init__(self, method: Method, config: ProbeConfig):
        self.method, self.reason = method, ""
        self.tuner: Any = None
        try:
            self.tuner = tuner_for(method, config)
        except NothingToTune as error:
            self.reason = str(error)
        self.config: Any = method.config if isinstance(method, TestTimeBase) else config
        self.edges = area_edges(*self.config.crop_scale)
        self.n_views = self.chosen = 0                        # of views, and of confident ones; once seen
        self.size = min(usual_batch(method), self.tuner.batch_size() if self.tuner is not None else max(
            1, method.image_batch // self.config.n_views))
        if tunes(method):
            method._warn_if_untrained()                       # type: ignore[operator]

    def views_of(self, image: Any) -> tuple[Tensor, Tensor]:
        """Views [V, 3, S, S] of an image, and the areas [V - 1] of the crops among them."""
        c, clip = self.config, self.method.clip
        seed = content_seed(image, c.view_seed)
        views = (self.method.make_views(image) if isinstance(self.method, TestTimeBase)
                 else make_views(image, c.n_views, clip, c.view_config, seed=seed))
        return views, view_areas(image, len(views), clip, c.view_config, seed)

    def __call__(self, items: list[tuple[Any, int]]) -> list[dict[str, Any]]:
        """What the table is computed from, for each image; see `Headroom.images`."""
        made = [self.views_of(image) for image, _ in items]
        views, areas = torch.stack([x for x, _ in made]).to(self.method.clip.device), [a for _, a in made]
        truth = torch.tensor([label for _, label in items], device=views.device)
        logits = view_logits(self.method, views)                                       # [B, V, C]
        self.n_views = logits.shape[1]
        right = logits.argmax(-1) == truth[:, None]                                    # [B, V]
        rows = [self.by_area(r, area) | self.by_confidence(x, r, label)
                for x, r, area, label in zip(logits, right, areas, truth, strict=True)]
        if self.tuner is None:
            return rows
        before, after = (x.argmax(-1) == truth for x in label_step(self.tuner, views, truth))
        untuned, tuned = self.own_step(views)
        winner = untuned.argmax(-1)
        change = tuned - untuned
        movement = (change - change.gather(1, winner[:, None])).abs().amax(-1)
        steps = {"label_before": before, "label_after": after, "before": winner == truth,
                 "tuned": tuned.argmax(-1) == truth, "movement": movement,
                 "changed": tuned.argmax(-1) != winner, "margin": top_margin(untuned)}
        return [row | {name: float(x[b]) for name, x in steps.items()} for b, row in enumerate(rows)]

    def alone(self, items: list[tuple[Any, int]]) -> list[dict[str, float]]:
        """Whether images by themselves are right, without views and steps."""
        x = self.method.clip.preprocess([image for image, _ in items])
        best = view_logits(self.method, x[:, None])[:, 0].argmax(-1).tolist()
        return [{"untouched": float(guess == label)}
                for guess, (_, label) in zip(best, items, strict=True)]

    def own_step(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] of the image before and after what the tuner does without a label."""
        found = self.tuner.predict_views(views)
        return found.untuned.double(), found.logits.double()

    def by_area(self, right: Tensor, area: Tensor) -> dict[str, float]:
        """Was the image alone right, and the share of right ones among the crops of each area."""
        inner = torch.tensor(self.edges[1:-1], dtype=area.dtype)
        bins, crops = torch.bucketize(area, inner, right=True), right[1:].double().cpu()
        return {"untouched": float(right[0])} | {
            f"crops {i}": float(crops[bins == i].mean()) for i in range(len(self.edges) - 1)}

    def by_confidence(self, logits: Tensor, right: Tensor, label: Tensor) -> dict[str, float]:
        """Of one image's views [V, C]: is the mean of the confident ones right, how much more often are they
        right than unsure ones (nan where all views are among the confident), and the margin of view 0."""
        chosen = select_confident(logits, self.config.selection)                       # [k]
        self.chosen = len(chosen)
        mean = mean_log_probability(take_views(logits[None], chosen[None]))[0]         # [C]
        right = right.double()
        order = view_entropy(logits).argsort(stable=True)
        unsure = order[max(self.chosen, len(order) // 2):]
        return {"confident": float(mean.argmax() == label),
                "found": float(right[chosen].mean() - right[unsure].mean()),
                "margin": float(top_margin(logits[:1])[0])}


def _siblings(everything: list[int], labels: list[int], order: list[int]) -> list[int]:
    """Images beside those of `order` so that its classes have SIBLINGS each, if there are so many."""
    there = Counter(labels[i] for i in order)
    taken, more = set(order), []
    for i in everything:
        if labels[i] in there and i not in taken and there[labels[i]] < SIBLINGS:
            there[labels[i]] += 1
            more.append(i)
    return more


def top_margin(logits: Tensor) -> Tensor:
    """Difference between the two largest logits: [B, C] -> [B]; infinite for a single class."""
    if logits.shape[-1] < 2:
        return torch.full(logits.shape[:-1], torch.inf)
    best = logits.double().topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def _short(value: float, measure: str) -> str:
    """A number as a cell: a decimal for percent and points, three digits for the rest."""
    if pd.isna(value):
        return "–"
    if measure.endswith(", points"):
        return f"{value:+.1f}"
    return f"{value:.1f}" if measure.endswith(", %") else f"{value:.3g}"
