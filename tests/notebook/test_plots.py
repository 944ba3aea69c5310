"""Every figure renders to a PNG that is not empty, and refuses what does not belong together."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rounding import U

from minipsync.evaluation.results import summarise
from minipsync.notebook import plots

NAMES = ["cat", "dog", "fish", "bird", "bee", "ant", "cow", "sailing boat", "red apple", "tree", "hut", "car"]
SKILLS = {"zero_shot": 0.6, "maple": 0.7, "maple_tpt": 0.75, "promptalign": 0.78, "promptsync": 0.8}
STYLES = ["noto", "twemoji", "openmoji-black", "fluent-3d", "fxemoji"]


def png(figure):
    """The figure as an array [H, W, 3]; it must have been drawn on."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    pixels = np.asarray(Image.open(file).convert("RGB"))
    assert pixels.std() > 5
    return pixels


def made_result(method, skill, n=200):
    draw = np.random.RandomState(len(method))
    confidence = draw.uniform(0.15, 1, n)
    correct = (draw.uniform(size=n) < confidence * skill).astype(int)
    records = pd.DataFrame({"image": [str(i) for i in range(n)], "label": 0, "correct": correct,
                            "confidence": confidence, "seconds": 0.01})
    return summarise(method, "sketch", 0, records)


def some_images(n):
    draw = np.random.RandomState(0)
    return [Image.fromarray(draw.randint(0, 255, (24, 24, 3), dtype=np.uint8)) for _ in range(n)]


def some_gains():
    draw = np.random.RandomState(0)
    names = [(p, line, half) for p in ("animals", "signs") for line in SKILLS for half in ("base", "novel")]
    rows = pd.DataFrame(names, columns=["panel", "line", "classes"])
    rows["difference"] = draw.normal(0, 0.1, len(rows))
    return rows.assign(low=rows["difference"] - 0.05, high=rows["difference"] + 0.05)


def figures():
    """name -> figure: one of each kind."""
    draw = np.random.RandomState(0)
    results = [made_result(name, skill) for name, skill in SKILLS.items()]
    rows = [result.row() for result in results]
    tables = pd.DataFrame([row | {"dataset": name} for name in ("sketch", "r") for row in rows])
    before, after = draw.dirichlet(np.ones(12)), draw.dirichlet(np.ones(12) / 3)
    near = draw.uniform(0.6, 1.2, 12)
    tensors = torch.rand(32, 3, 24, 24)
    clear = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
    return {"accuracy": plots.accuracy_bars(results, chance=1 / 12),
            "accuracy_two": plots.accuracy_bars(tables, title="mini"),
            "views": plots.view_grid(tensors, torch.rand(32) * 4, torch.tensor([3, 7, 11])),
            "views_plain": plots.view_grid(some_images(3)),
            "probabilities": plots.class_probabilities(before, torch.tensor(after), NAMES, label=4),
            "distances": plots.prototype_distances(near, near * draw.uniform(0.7, 1.1, 12), NAMES, label=7),
            "map": plots.prototype_map(torch.eye(3, 8), torch.rand(5, 8), [0, 0, 1, 1, 2], "abc", "r: "),
            "gains": plots.gains(some_gains(), title="mini"),
            "reliability": plots.reliability([results[0], results[-1]]),
            "sheet": plots.contact_sheet([[*some_images(4), None], [*some_images(4), clear]],
                                         ["cat", "sailing boat"], STYLES, "styles")}


def test_every_figure_renders():
    for name, figure in figures().items():
        height, width, _ = png(figure).shape
        assert 100 < width < 1600 and 80 < height < 1200, name


def test_bars_show_the_numbers():
    result = made_result("zero_shot", 0.6)
    axis = plots.accuracy_bars([result], chance=0.1).axes[0]
    assert axis.patches[0].get_width() == pytest.approx(100 * result.accuracy)
    assert f"{100 * result.accuracy:.1f}" in [text.get_text() for text in axis.texts]
    assert "n = 200" in axis.get_title(loc="left") and "95 % interval" in axis.get_xlabel()


def test_reliability_bins_are_those_of_the_ece():
    result = made_result("zero_shot", 0.6)
    top, bottom = plots.reliability(result).axes
    count = np.array([bar.get_height() for bar in bottom.patches])
    accuracy = np.array([bar.get_height() for bar in top.patches]) / 100
    place = np.clip((result.records.confidence * 15).astype(int), 0, 14)
    mean = result.records.confidence.groupby(place).mean().reindex(range(15)).fillna(0).to_numpy()
    assert (count * np.abs(accuracy - mean)).sum() / 200 == pytest.approx(result.ece)


def test_gains_are_points_on_the_line_of_their_name():
    axis = plots.gains(some_gains()).axes[1]                                  # signs
    novel = axis.containers[1].lines[0]
    third = some_gains().query("panel == 'signs' and classes == 'novel'").difference.iloc[2]
    assert [label.get_text() for label in axis.figure.axes[0].get_yticklabels()] == list(SKILLS)
    assert novel.get_xdata()[2] == pytest.approx(100 * third) and round(novel.get_ydata()[2]) == 2


def test_a_forest_fills_what_is_told_apart():
    table = pd.DataFrame({"panel": ["r", "r", "a"], "line": ["tpt", "coop", "coop"], "n": [9, 9, 4000],
                          "difference": [.02, -.01, .03], "low": [.01, -.02, -.01], "high": [.03, .0, .07],
                          "verdict": ["better", "not told apart", "not told apart"]})
    first, second = plots.forest(table, "gains").axes
    points = [line for line in first.lines if line.get_marker() == "o"]
    assert [(round(p.get_xdata()[0], 9), p.get_ydata()[0]) for p in points] == [(2, 0), (-1, 1)]
    assert [p.get_markerfacecolor() == p.get_color() for p in points] == [True, False]
    (only,) = [line for line in second.lines if line.get_marker() == "o"]
    assert only.get_ydata()[0] == 1 and "n = 4,000" in second.get_xlabel()
    with pytest.raises(ValueError, match="forest: .* it lacks verdict"):
        plots.forest(table.drop(columns="verdict"), "gains")


def test_the_map_keeps_distances_between_three_prototypes():
    centres = torch.tensor([[0.0, 0, 0, 3], [4, 0, 0, 3], [0, 3, 0, 3]])       # sides 4, 3 and 5, in a plane
    axis = plots.prototype_map(centres, centres[:1], [0], "abc").axes[0]
    stars = np.array([c.get_offsets()[0] for c in axis.collections if c.get_sizes()[0] == 260])
    sides = [np.linalg.norm(stars[i] - stars[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert sides == pytest.approx([4, 3, 5], abs=64 * U)        # float32: a mean, axes and products, below 5


def test_figures_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="it lacks accuracy"):
        plots.accuracy_bars(pd.DataFrame({"method": ["a"], "n": 1, "low": 0, "high": 1}))
    with pytest.raises(ValueError, match="it is empty"):
        plots.accuracy_bars([])
    with pytest.raises(ValueError, match="3 views, 2 entropies"):
        plots.view_grid(some_images(3), [0.1, 0.2])
    with pytest.raises(ValueError, match=r"selected=\[9\]"):
        plots.view_grid(some_images(3), selected=[9])
    with pytest.raises(ValueError, match="2 before, 3 after"):
        plots.class_probabilities([0.5, 0.5], [0.2, 0.3, 0.5], ["a", "b"])
    with pytest.raises(ValueError, match="2 features, 1 labels"):
        plots.prototype_map(torch.eye(3), torch.eye(3)[:2], [0], "abc")
    with pytest.raises(ValueError, match="gains: expected .*; it lacks low"):
        plots.gains(some_gains().drop(columns="low"))
    with pytest.raises(ValueError, match="1 row names and 2 column names"):
        plots.contact_sheet([some_images(3)], ["a"], ["b", "c"])


def test_arrows_lead_from_before_to_after_and_the_true_class_is_marked():
    before, after = np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.5, 0.5])
    figure = plots.prototype_distances(before, after, ["cat", "dog", "ant"], label=1)
    [axis] = figure.axes
    shown = [2, 1, 0]                                                         # nearest before comes first
    assert [text.get_text() for text in axis.get_yticklabels()] == ["ant", "dog *", "cat"]
    arrows = [(text.xyann[0], text.xy[0]) for text in axis.texts]
    assert arrows == [(before[c], after[c]) for c in shown]
    first, second = axis.collections
    assert first.get_label() == "before" and second.get_label() == "after"
    assert first.get_offsets()[:, 0].tolist() == before[shown].tolist()
    assert second.get_offsets()[:, 0].tolist() == after[shown].tolist()
    figure = plots.class_probabilities([0.5, 0.3, 0.2], [0.1, 0.7, 0.2], ["cat", "dog", "ant"], label=0)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["dog", "ant", "cat *"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["before", "after"]
