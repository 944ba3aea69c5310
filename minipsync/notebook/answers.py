"""Two test images: one that only the first of two methods gets right, and one that only the second does.

    answers({"MaPLe": (maple, its_result), "CLIP": (zero_shot, its_result)}, data)
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np

from ..data import Dataset
from ..evaluation.results import Result, compare
from ..methods import Method
from . import drawing as draw
from .captions import Captioned
from .cases import win_and_loss
from .drawing import BLUE, ORANGE, STYLE

SHOWN = 4                                                                # classes of each image


def answers(pair: Mapping[str, tuple[Method, Result]], data: Dataset) -> Captioned | None:
    """The first win and the first loss of the first method, in the order of its records, with probabilities.

    pair: {name: (method, its result on `data`)}, of two methods. A win or a loss that there is not is left
          out, and the caption says how many of each there are; None where there is neither.

    Raises ValueError unless there are two methods that know the classes of `data`.
    """
    if len(pair) != 2:
        raise ValueError(f"pair has {len(pair)} methods; expected two, the first of which wins or loses")
    (first, (a, of_a)), (second, (b, of_b)) = pair.items()
    for method in (a, b):
        if list(method.class_names) != list(data.class_names):
            raise ValueError(f"{method.name} knows other classes than {data.name}: call "
                             "method.set_class_names(data.class_names) first")
    found = win_and_loss(of_a, of_b, data)
    if not found:
        return None
    with plt.rc_context(STYLE):
        figure, axes = draw.new_figure(len(found), 2, (7.4, 2.1 * len(found)), width_ratios=[1, 2.6])
        told = [_case(axes[row], kind, data, position, {first: a, second: b})
                for row, (kind, position) in enumerate(found.items())]
        handles, names = axes[0, 1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=2)
    counts = compare(of_a, of_b)
    wins, losses = counts.wins, counts.losses
    return Captioned(
        figure, f"{data.name}: {first} against {second}, the first test image of each kind. In all {wins} "
                f"win{'s' * (wins != 1)} and {losses} loss{'es' * (losses != 1)} among "
                f"{counts.n} images. {' '.join(told)}",
        alt=f"{len(found)} picture(s), beside each a bar chart of the probabilities of the likeliest classes "
            f"with {first} and with {second}. {' '.join(told)}")


def _case(axes: np.ndarray, kind: str, data: Dataset, position: int, methods: Mapping[str, Method]) -> str:
    """Draw one image and its probabilities; -> a sentence that says what they are."""
    picture, label = data[position]
    p = np.stack([m.predict([picture])[0].softmax(-1).float().cpu().numpy() for m in methods.values()])
    order = np.argsort(-p.max(0), kind="stable")
    shown = [label, *(c for c in order if c != label)][:SHOWN]
    draw.show_picture(axes[0], picture)
    axes[0].set_title(f"a {kind}", loc="center")
    for row, (name, colour, hatch) in enumerate(zip(methods, (ORANGE, BLUE), ("", "///"), strict=True)):
        axes[1].barh(np.arange(len(shown)) + 0.4 * row - 0.2, 100 * p[row, shown], height=0.38, color=colour,
                     hatch=hatch, edgecolor="white", label=name)
    names = [data.class_names[c] for c in shown]
    draw.name_lines(axes[1], [f"{names[0]} (true)", *names[1:]], -0.6, grid=False)
    axes[1].set(xlabel="probability in %", xlim=(0, 100))
    said = " and ".join(f"{name} says “{data.class_names[int(q.argmax())]}” with {100 * q.max():.0f} %"
                        for name, q in zip(methods, p, strict=True))
    return f"A {kind}, “{data.class_names[label]}”: {said}."
