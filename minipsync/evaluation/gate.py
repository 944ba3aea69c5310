"""A check before hours of work: does zero-shot CLIP see what is in these pictures?

Accuracy near chance is the most frequent trouble with the official codes. Its causes are labels in another
order than the class names (ImageNetV2's folders, METHODS 6.7), weights built with another activation, and
pictures that are normalised twice.
"""

from ..clip.encoders import Clip
from ..data.dataset import Dataset
from ..methods import build
from .evaluate import evaluate


def check_zero_shot(clip: Clip, data: Dataset, limit: int = 200) -> float:
    """Accuracy of zero-shot CLIP on at most `limit` class-balanced images of `data`.

    Raises RuntimeError, with the likely causes, unless the accuracy is above ten times chance. With fewer
    than 45 classes, where ten times chance is more than chance + 20 points, chance + 20 points are enough. On
    the papers' data sets OpenAI's ViT-B/16 lies far above: its hardest are FGVC Aircraft, 24 % at a chance of
    1, and EuroSAT, 42 % at a chance of 10.
    """
    chance = 1 / len(data.class_names)
    needed = min(10 * chance, chance + 0.2)
    method = build("zero_shot", clip, data.class_names, template=data.templates[0])
    result = evaluate(method, data, min(limit, len(data)), batch_size=64, progress=False)
    if result.accuracy > needed:
        return result.accuracy
    guesses = result.records["prediction"].nunique()
    causes = ["the class names are in another order than the labels",
              f"the weights do not belong to the architecture (OpenAI's need QuickGELU; this is {clip.name})",
              "the pictures are not those of this data set"]
    if guesses <= max(2, 0.02 * result.n):         # nearly one answer for everything
        causes = [causes[1], "the pictures are all alike (black, or normalised twice)"]
    raise RuntimeError(
        f"zero-shot CLIP has {100 * result.accuracy:.1f} % on {result.n} images of {data.name}, chance is "
        f"{100 * chance:.2g} %, expected more than {100 * needed:.1f} %. Likely: {'; or '.join(causes)}. "
        "Nothing was recorded; --no-gate goes on all the same")
