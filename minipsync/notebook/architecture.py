"""What each method learns, and which way its gradient goes, as one picture in one form for all methods.

    architecture("maple")         # the value of a cell: the figure with its caption

Frozen parts are grey, learned ones orange with a thick edge and hatching; full arrows lead forward, dashed
ones back along the gradient. Symbols are those of docs/symbols.md.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from ..settings import did_you_mean
from .captions import Captioned
from .drawing import GREY, ORANGE, RED, STYLE, new_figure

HEIGHT = 0.62                                                      # of a box, in inches, as all lengths here
KINDS: dict[str, dict[str, Any]] = {"frozen": {"fc": (*GREY, 0.45), "ec": "0.35", "lw": 1.0},
         "learned": {"fc": (*ORANGE, 0.35), "ec": "black", "lw": 2.4, "hatch": "..."},
         "computed": {"fc": "white", "ec": "0.35", "lw": 1.0},
         "loss": {"fc": "white", "ec": RED, "lw": 1.8, "ls": "--"}}
FORWARD: dict[str, Any] = {"arrowstyle": "-|>", "color": "0.25", "lw": 1.3, "mutation_scale": 11}
BACK: dict[str, Any] = {"arrowstyle": "-|>", "color": RED, "lw": 1.6, "ls": (0, (3, 2)), "mutation_scale": 12}


@dataclass(frozen=True)
class Box:
    """A part of a method. x, y: its middle, width: all in inches; kind: one of KINDS."""
    x: float
    y: float
    width: float
    text: str
    kind: str = "computed"


@dataclass(frozen=True)
class Drawing:
    """A method: boxes by name, the pairs that data passes, and of these those that the gradient passes."""
    title: str
    boxes: dict[str, Box]
    forward: Sequence[tuple[str, str]]
    back: Sequence[tuple[str, str]]
    caption: str

    @property
    def alt(self) -> str:
        """The same in words: what is learned, what is frozen, through what the gradient goes back."""
        names = {key: _read_out(box.text) for key, box in self.shown.items()}
        kinds = {kind: [names[key] for key, box in self.shown.items() if box.kind == kind] for kind in KINDS}
        back = [names[key] for key, box in self.shown.items()
                if box.kind != "loss" and any(key in pair for pair in self.back)]
        return (f"Boxes and arrows of {self.title}. Learned: {'; '.join(kinds['learned']) or 'nothing'}. "
                f"Frozen: {'; '.join(kinds['frozen'])}. Loss: {'; '.join(kinds['loss']) or 'none'}. "
                f"The gradient passes {'; '.join(back) or 'nothing'}.")

    @property
    def shown(self) -> dict[str, Box]:
        """The boxes that an arrow leads from or to."""
        return {name: box for name, box in self.boxes.items() if any(name in pair for pair in self.forward)}


def _read_out(text: str) -> str:
    """A box's text without TeX: "p bar" for \\bar{p}."""
    for pattern, plain in ((r"[$\n]+", " "), (r"\\mathcal\{(\w)\}", r"\1"), (r"\\mid", "|"), (r"\\,", ""),
                           (r"\\(tilde|hat|bar)[ {]*(\\?\w+)\}?", r"\2 \1"), (r"\\", ""), (r" +", " ")):
        text = re.sub(pattern, plain, text)
    return text.strip()


# ---- the parts that all methods share ---------------------------------------------------------------
CLIP = {
    "names": Box(0.95, 4.0, 1.7, "$C$ class names"),
    "words": Box(3.15, 4.0, 1.9, "word embedding", "frozen"),
    "text": Box(5.6, 3.5, 2.1, "text encoder\nblocks 1 … $L$", "frozen"),
    "t": Box(7.6, 3.5, 1.1, "text\nfeatures $t_c$"),
    "x": Box(0.95, 0.0, 1.7, "image $x$"),
    "patches": Box(3.15, 0.0, 1.9, "patch embedding", "frozen"),
    "image": Box(5.6, 0.5, 2.1, "image encoder\nblocks 1 … $L$", "frozen"),
    "f": Box(7.6, 0.5, 1.1, "image\nfeature $f$"),
    "cos": Box(8.0, 2.0, 1.9, "$\\cos(f, t_c)\\,/\\,\\tau$"),
    "p": Box(10.4, 2.0, 1.7, "softmax\n$p(c \\mid x)$")}
TEXT = [("names", "words"), ("words", "text"), ("text", "t"), ("t", "cos")]
IMAGE = [("x", "patches"), ("patches", "image"), ("image", "f"), ("f", "cos")]
ALL = [*TEXT, *IMAGE, ("cos", "p")]
THROUGH_TEXT = [("p", "loss"), ("cos", "p"), ("t", "cos"), ("text", "t")]
THROUGH_IMAGE = [("f", "cos"), ("image", "f")]
CONTEXT = {"ctx": Box(3.15, 3.0, 1.9, "context vectors\n$v_1 … v_M$", "learned")}
CROSS_ENTROPY = {"loss": Box(10.4, 3.5, 1.7, "cross-entropy\nwith the label $y$", "loss")}
PROMPTS = {"ctx": Box(3.15, 3.0, 1.9, "text prompts $P_l$\nof layers 1 … $J$", "learned"),
           "couple": Box(3.15, 2.0, 1.9, "couplings $F_l$", "learned"),
           "deep": Box(3.15, 1.0, 1.9, "image prompts\n$\\tilde{P}_l = F_l(P_l)$")}
PROMPTED = [("ctx", "text"), ("ctx", "couple"), ("couple", "deep"), ("deep", "image")]
VIEWS = {"x": Box(0.95, 1.0, 1.7, "test image $x$"), "views": Box(0.95, 0.0, 1.7, "$V$ views $x_i$"),
         "p": Box(10.4, 2.0, 1.7, "$p(c \\mid x_i)$, kept:\nthe surest, $S$"),
         "loss": Box(10.4, 3.5, 1.7, "$\\mathcal{H}(\\bar{p})$, $\\bar{p}$ the\nmean over $S$", "loss")}
SEEN = [*TEXT, ("x", "views"), ("views", "patches"), *IMAGE[1:], ("cos", "p"), ("p", "loss")]

DRAWINGS = {
    "zero_shot": Drawing(
        "CLIP, zero-shot", CLIP | {"names": Box(0.95, 4.0, 1.7, "\"a photo of a …\"\nfor $C$ classes")},
        ALL, [],
        "CLIP, zero-shot: nothing is learned. A sentence for each class and the image meet only in their "
        "cosines, which the temperature $\\tau$ sharpens."),
    "coop": Drawing(
        "CoOp", CLIP | CONTEXT | CROSS_ENTROPY, [*ALL, ("ctx", "text"), ("p", "loss")],
        [*THROUGH_TEXT, ("ctx", "text")],
        "CoOp: the words around a class name are vectors, and they alone are learned, from a few labelled "
        "images. The gradient goes back through the frozen text encoder and never enters that of images."),
    "cocoop": Drawing(
        "CoCoOp", CLIP | CONTEXT | CROSS_ENTROPY | {
            "h": Box(3.15, 1.3, 1.9, "meta-net $h$", "learned")},
        [*ALL, ("ctx", "text"), ("p", "loss"), ("f", "h"), ("h", "ctx")],
        [*THROUGH_TEXT, ("ctx", "text"), ("h", "ctx")],
        "CoCoOp: a small network, the meta-net, adds $h(f)$ to every context vector, so that each image has "
        "prompts of its own, and the text encoder runs once for each image and class."),
    "maple": Drawing(
        "MaPLe", CLIP | PROMPTS | CROSS_ENTROPY, [*ALL, *PROMPTED, ("p", "loss")],
        [*THROUGH_TEXT, *THROUGH_IMAGE, *PROMPTED],
        "MaPLe: prompts enter both encoders, not only before the first block but anew in each of the first "
        "$J$. Those of the image are made from those of the text, so the gradient reaches $P_l$ twice."),
    "tpt": Drawing(
        "TPT", CLIP | CONTEXT | VIEWS, [*SEEN, ("ctx", "text")], [*THROUGH_TEXT, ("ctx", "text")],
        "TPT: no label. Of the views of one test image the surest are kept, and one step on the context "
        "vectors makes their mean prediction surer still; then $x$ is classified and the step forgotten."),
    "promptalign": Drawing(
        "PromptAlign", CLIP | PROMPTS | VIEWS | {
            "align": Box(5.6, -1.0, 2.9,
                         "$\\mathcal{L}_A$: distance of $\\mu_l$, $\\sigma^2_l$\nto the source's", "loss"),
            "stored": Box(9.2, -1.0, 2.9, "$\\hat\\mu_l$, $\\hat\\sigma^2_l$ of the source's\nimages, stored",
                          "frozen")},
        [*SEEN, *PROMPTED, ("image", "align"), ("stored", "align")],
        [*THROUGH_TEXT, *THROUGH_IMAGE, *PROMPTED, ("image", "align")],
        "PromptAlign: MaPLe's prompts take TPT's step, with a second loss that draws mean and variance of "
        "the views' tokens, layer by layer, to those that the source's images had."),
    "promptsync": Drawing(
        "PromptSync", CLIP | PROMPTS | VIEWS | {
            "source": Box(0.95, -1.0, 1.7, "source samples\n(meta-train)"),
            "u": Box(7.6, 0.5, 1.1, "feature $f$,\nsample $u$"),
            "ld": Box(5.6, -1.0, 2.2, "$\\mathcal{L}_D$: source samples\nto their prototypes", "loss"),
            "z": Box(8.0, -1.0, 1.9, "class prototypes\n$z_c$, stored", "frozen"),
            "la": Box(10.4, -1.0, 2.0, "$\\mathcal{L}_A$: test image\nto the prototypes", "loss")},
        [*[("u" if a == "f" else a, "u" if b == "f" else b) for a, b in SEEN], *PROMPTED,
         ("source", "patches"), ("image", "ld"), ("z", "ld"), ("z", "la"), ("u", "la")],
        [*THROUGH_TEXT, ("u", "cos"), ("image", "u"), *PROMPTED, ("u", "la"), ("image", "ld")],
        "PromptSync: a meta-train step on source samples (loss $\\mathcal{L}_D$), then a meta-test step on "
        "the test image's surest views (entropy and $\\mathcal{L}_A$). Both gradients are averaged in one "
        "update of MaPLe's prompts. Texts have samples $u$ and prototypes, too, without arrows here.")}


def architecture(method: str) -> Captioned:
    """The picture of a method: what is frozen, what is learned, where the gradient goes.

    method: one of DRAWINGS, as mp.build names them. Raises ValueError for another."""
    if method not in DRAWINGS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(DRAWINGS)}."
                         f"{did_you_mean(method, DRAWINGS)}")
    drawing = DRAWINGS[method]
    boxes = drawing.shown
    low = min(box.y for box in boxes.values()) - 1.15
    with plt.rc_context({**STYLE, "hatch.linewidth": 0.6}):
        figure, axes = new_figure(1, 1, (11.5, 4.6 - low))
        axis = axes[0, 0]
        axis.set(xlim=(0, 11.5), ylim=(low, 4.6), aspect="equal")
        axis.axis("off")
        for box in boxes.values():
            _box(axis, box)
        for a, b in drawing.forward:
            both = (a, b) in drawing.back
            _arrow(axis, boxes[a], boxes[b], 0.075 * both, FORWARD)
            if both:
                _arrow(axis, boxes[b], boxes[a], 0.075, BACK)
        _legend(axis, bool(drawing.back))
    return Captioned(figure, drawing.caption, drawing.alt)


def _box(axis: Axes, box: Box) -> None:
    """Draw one part, its text on a plain ground so that hatching never crosses it."""
    axis.add_patch(FancyBboxPatch((box.x - box.width / 2, box.y - HEIGHT / 2), box.width, HEIGHT, zorder=3,
                           boxstyle="round,pad=0.02,rounding_size=0.08", **KINDS[box.kind]))
    ground = {"fc": "#fbe6cc", "ec": "none", "pad": 1.5} if box.kind == "learned" else None
    axis.text(box.x, box.y, box.text, ha="center", va="center", fontsize=10.5, zorder=4, bbox=ground,
              linespacing=1.15)


def _arrow(axis: Axes, a: Box, b: Box, aside: float, style: dict[str, Any]) -> None:
    """From the edge of box a to that of b, `aside` inches left of the straight line. What leads forward to a
    box on the left goes up first, around what is between."""
    if not aside and b.x < a.x and b.y > a.y and not _above(a, b):
        start, end = (a.x - a.width / 2 + 0.15, a.y + HEIGHT / 2), (b.x + b.width / 2, b.y)
        line = "angle,angleA=90,angleB=0,rad=6"
    else:
        (x, y), (x_end, y_end) = _ends(a, b)
        length = math.hypot(x_end - x, y_end - y)
        dx, dy, line = -(y_end - y) / length * aside, (x_end - x) / length * aside, "arc3"
        start, end = (x + dx, y + dy), (x_end + dx, y_end + dy)
    axis.add_patch(FancyArrowPatch(start, end, shrinkA=2, shrinkB=2, zorder=2, connectionstyle=line, **style))


def _above(a: Box, b: Box) -> bool:
    """Whether one of the two stands above the other."""
    return min(a.x + a.width / 2, b.x + b.width / 2) - max(a.x - a.width / 2, b.x - b.width / 2) > 0.2


def _ends(a: Box, b: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where a straight arrow leaves a and enters b: at facing sides, of boxes above each other at the middle
    of what both cover."""
    if _above(a, b):
        x = (min(a.x + a.width / 2, b.x + b.width / 2) + max(a.x - a.width / 2, b.x - b.width / 2)) / 2
        side = math.copysign(HEIGHT / 2, b.y - a.y)
        return (x, a.y + side), (x, b.y - side)
    side = math.copysign(1, b.x - a.x)
    return (a.x + side * a.width / 2, a.y), (b.x - side * b.width / 2, b.y)


def _legend(axis: Axes, learns: bool) -> None:
    """The kinds of boxes and arrows below the picture."""
    shown = ["frozen", "learned", "computed", "loss"] if learns else ["frozen", "computed"]
    handles: list[Patch | Line2D] = [Patch(label=kind, **KINDS[kind]) for kind in shown]
    handles.append(Line2D([], [], color=FORWARD["color"], lw=1.3, label="forward"))
    if learns:
        handles.append(Line2D([], [], color=BACK["color"], lw=1.6, ls=BACK["ls"], label="gradient"))
    axis.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=10.5, handlelength=2.4)
