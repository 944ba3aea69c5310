"""The rows of a headroom report: measures with intervals that resample classes, and what they say."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .correlation import within_class
from .resampling import bootstrap, class_interval, paired
from .results import verdict, wilson

INNER = (0.2, 0.4, 0.6, 0.8)                     # where areas of crops are cut into bins
Row = tuple[str, float, float, float, int, str]  # measure, value, low, high, n, says
CROPS, FINDS = "crops are worth looking at", "confidence finds the good views"
STEP, TUNING = "a step of this size can help", "tuning helps"
LABEL_STEP = "one step on the true label: right after - before, points"
OWN_STEP = "the step without label: right after - before, points"


def area_edges(smallest: float, largest: float) -> list[float]:
    """Edges of the bins of crop areas, as shares of the image: [0.08, 0.2, 0.4, 0.6, 0.8, 1.0]."""
    return [smallest, *(edge for edge in INNER if smallest < edge < largest), largest]


def rows_of(images: pd.DataFrame, alone: pd.DataFrame, edges: list[float], n_views: int, chosen: int,
            reason: str) -> list[Row]:
    """All rows, from what was seen in the images (see `Headroom`).

    alone: label and untouched of these images and of further ones of their classes.
    edges: of the bins of areas. n_views, chosen: how many views there are and how many of them are taken as
    confident. reason: why there is no step to look at, or ""."""
    rows = [_share("the image itself right", images, images["untouched"])]
    for i, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        rows.append(_crops(f"crops of {low:g} to {high:g} of its area right, %", images, f"crops {i}"))
    rows.append(_gain(f"mean of {chosen} confident of {n_views} views - the image itself, points", images,
                      images["confident"] - images["untouched"], CROPS))
    rows.append(_gain("confident views right - unsure views right, points", images, images["found"],
                      FINDS))
    rows += _steps(images) if not reason else [
        _absent(LABEL_STEP, reason), _absent(OWN_STEP, reason)]
    rows += _quantiles("margin of the best logit, {}, logits", images, images["margin"])
    if not reason:
        rows += _reach(images)
    return rows + _within(alone)


def verdict_of(table: pd.DataFrame) -> str:
    """One sentence from the table of a report: is there room, and if that is not shown, what lacks."""
    answers = {each: says.removeprefix(f"{each}: ") for says in table["says"]
               for each in (CROPS, FINDS, STEP, TUNING) if says.startswith(f"{each}: ")}
    if STEP not in answers:
        return "There is nothing to tune: this method takes no step on an image."
    lacking = "; ".join(f"{each}: {answers[each]}" for each in (CROPS, FINDS, STEP)
                        if answers.get(each, "yes") != "yes")
    tried = f"The step without label was tried, too; {TUNING}: {answers[TUNING]}."
    if lacking:
        return f"Room for test-time tuning is not shown here: {lacking}. {tried}"
    return f"There is room for test-time tuning: views, confidence and step can all help. {tried}"


def _steps(images: pd.DataFrame) -> list[Row]:
    """What a step can do with the true label, and what it does without."""
    return [_gain(LABEL_STEP, images, images["label_after"] - images["label_before"], STEP),
            _gain(OWN_STEP, images, images["tuned"] - images["before"], TUNING)]


def _reach(images: pd.DataFrame) -> list[Row]:
    """How far the step without label moves logits, and how many predictions are within its reach."""
    within = (images["margin"] <= images["movement"]).astype(float)
    measure, value, low, high, n, _ = _share("margin within the movement", images, within)
    says = "most predictions are within its reach"
    return [*_quantiles("movement against the best logit, {}, logits", images, images["movement"]),
            (measure, value, low, high, n, f"{says}: {_yes(low - 50, high - 50)}"),
            _share("predictions that the step changes", images, images["changed"])]


def _within(images: pd.DataFrame) -> list[Row]:
    """Do images of a class stand or fall together, and how many independent ones are they worth?"""
    names = ("within-class correlation of being right", "design effect", "independent images they are worth")
    try:
        found = within_class(images["untouched"], images["label"])
    except ValueError as error:
        return [_absent(name, str(error)) for name in names]
    n = len(images)
    says = (f"images of a class stand or fall together: {_yes(*found.correlation[1:])}", "",
            f"{n} images tell as much as {found.worth[0]:.0f} independent ones")
    values = (found.correlation, found.design_effect, found.worth)
    return [(name, *value, n, word) for name, value, word in zip(names, values, says, strict=True)]


# ---- kinds of rows ------------------------------------------------------------------------------------
def _share(measure: str, images: pd.DataFrame, values: pd.Series) -> Row:
    """A share in %, with an interval over classes that is nowhere narrower than Wilson's."""
    known = values.notna()
    mean, low, high = class_interval(values[known].to_numpy(), images["label"][known].to_numpy())
    n = int(known.sum())
    independent = wilson(mean * n, n)
    low, high = min(low, independent[0]), max(high, independent[1])
    return f"{measure}, %", 100 * mean, 100 * low, 100 * high, n, ""


def _crops(measure: str, images: pd.DataFrame, column: str) -> Row:
    """The share of right crops, and how it compares with the whole image on the same images."""
    known = images[images[column].notna()]
    if known.empty:
        return _absent(measure, "no crop has this area")
    _, value, low, high, n, _ = _share("", known, known[column])
    difference = paired((known[column] - known["untouched"]).to_numpy(), known["label"].to_numpy())
    says = verdict(difference.low, difference.high, "better than the image itself",
                   "worse than the image itself")
    return measure, value, low, high, n, says


def _gain(measure: str, images: pd.DataFrame, values: pd.Series, says: str) -> Row:
    """A difference in points, and whether it is above 0."""
    known = values.notna()
    if not known.any():
        return _absent(measure, "all views are among the confident ones")
    found = paired(values[known].to_numpy(), images["label"][known].to_numpy())
    return (measure, 100 * found.difference, 100 * found.low, 100 * found.high, int(known.sum()),
            f"{says}: {_yes(found.low, found.high)}")


def _quantiles(measure: str, images: pd.DataFrame, values: pd.Series) -> list[Row]:
    """Three quantiles; `measure` has a place for their names."""
    rows: list[Row] = []
    for name, share in (("10 %", 0.1), ("median", 0.5), ("90 %", 0.9)):
        value, low, high = class_quantile(values, images["label"], share)
        rows.append((measure.format(name), value, low, high, len(values), ""))
    return rows


def class_quantile(values: Iterable[float], classes: Iterable, share: float, draws: int = 1000
                   ) -> tuple[float, float, float]:
    """The smallest value that `share` of the values do not exceed, with its 95 % interval over classes.

    values, classes: [n]. Classes are drawn with replacement."""
    x = np.asarray(list(values), np.float64)
    _, code = np.unique(np.asarray(list(classes)), return_inverse=True)
    order = np.argsort(x, kind="stable")
    number = int(code.max()) + 1
    times = bootstrap(np.eye(number), np.arange(number), draws)                                  # [draws, C]

    def quantile(weights: np.ndarray) -> float:
        reached = np.cumsum(weights[code[order]])
        # a hair below: sums of whole numbers times a share are not exact
        return float(x[order[np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))]])

    value = quantile(np.ones(number))
    low, high = np.percentile([quantile(each) for each in times], (2.5, 97.5), method="inverted_cdf")
    return value, float(min(low, value)), float(max(high, value))


def _absent(measure: str, reason: str) -> Row:
    return measure, math.nan, math.nan, math.nan, 0, f"not applicable: {reason}"


def _yes(low: float, high: float) -> str:
    return verdict(low, high, "yes", "no")
