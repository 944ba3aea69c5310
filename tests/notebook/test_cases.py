"""One image under a test-time method: which one is a win, and that what is shown is what the method does."""

import dataclasses

import pandas as pd
import pytest
import torch

import minipsync as mp
from minipsync.evaluation.results import summarise
from minipsync.methods.tpt import select_confident
from minipsync.notebook.cases import look, win_and_loss


@pytest.fixture(scope="module")
def data():
    return mp.benchmark("mini").dataset("sketch")


@pytest.fixture(scope="module")
def tpt(data):
    return mp.benchmark("mini").build("tpt", data, n_views=8, selection=0.25)


def result(data, positions, correct):
    records = pd.DataFrame({"image": [data.image_id(i) for i in positions], "correct": correct,
                            "label": [data.labels[i] for i in positions], "confidence": 0.5, "seconds": 0.01})
    return summarise("m", "sketch", 0, records)


def test_the_first_win_and_the_first_loss(data):
    a, b = result(data, [7, 3, 5, 9], [1, 1, 0, 1]), result(data, [9, 7, 5, 3], [1, 1, 1, 0])
    assert win_and_loss(a, b, data) == {"win": 3, "loss": 5}
    assert win_and_loss(a, a, data) == {}


def test_what_is_shown_is_what_the_method_does(data, tpt):
    case = look(tpt, data, 4)
    told = tpt.predict([data[4][0]])
    torch.testing.assert_close(case.after, told[0].cpu(), rtol=0, atol=1e-3)
    torch.testing.assert_close(case.before[0], told.untuned[0].cpu(), rtol=0, atol=1e-3)
    assert case.kept == select_confident(case.before, 0.25).tolist() and len(case.kept) == 2
    assert case.views.shape[0] == 8 and 0 <= float(case.views.min()) and float(case.views.max()) <= 1
    votes = sum(int(case.before[i].argmax()) == case.label for i in case.kept)
    assert f"{votes} of the 2 kept views" in case.views_figure().caption
    assert data.class_names[int(case.after.argmax())] in case.step_figure().caption


@pytest.mark.parametrize(("old", "new", "said"), [
    (1, 0, "goes from wrong to right"), (0, 1, "goes from right to wrong"), (0, 0, "stays right"),
    (1, 1, "stays wrong"), (1, 2, "stays wrong, in another class")])
def test_right_and_wrong_are_named(data, tpt, old, new, said):
    case = dataclasses.replace(look(tpt, data, 4), label=0, before=torch.eye(8)[[old] * 8],
                               after=torch.eye(8)[new])
    assert case.moved == said


def test_a_position_that_there_is_not(data, tpt):
    with pytest.raises(IndexError, match="position=1000: sketch has 1000 images, 0 to 999"):
        look(tpt, data, 1000)
