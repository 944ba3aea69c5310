"""The headroom report: on a model whose answers are known, and on a tiny CLIP against steps written out."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lookalikes_headroom import CORNERS, Colours, Pictures, corner_pictures
from rounding import largest

import minipsync as mp
from minipsync.evaluation.headroom import COLUMNS, headroom
from minipsync.evaluation.headroom_rows import CROPS, FINDS, STEP
from minipsync.methods.base import Method
from minipsync.methods.probe import (
    NothingToTune,
    Probe,
    ProbeConfig,
    label_step,
    tuner_for,
    view_logits,
    what_is_tuned,
)
from minipsync.views.areas import view_areas
from minipsync.views.crops import ViewConfig, content_seed, make_views

NAMES = ["goldfish", "t-shirt", "hot dog", "water_lily", "CD player", "jack-o'-lantern"]
LEARNERS = {"zero_shot": {}, "coop": {"n_ctx": 4}, "cocoop": {}, "maple": {"depth": 2}, "ivlp": {},
            "tpt": {"n_views": 6, "selection": 0.5}, "maple_tpt": {"n_views": 6, "selection": 0.5}}


def one(report, start):
    """The row whose measure begins so."""
    rows = report.table[report.table["measure"].str.startswith(start)]
    assert len(rows) == 1, rows
    return rows.iloc[0]


# ---- where the answer is known ------------------------------------------------------------------------
def test_views_that_help(tiny_clip):
    """The object is 45 % of the picture, so the picture as a whole looks like none of the classes, and the
    crops that hold nothing but it are the surest."""
    data = Colours(corner_pictures(0.45, per_class=2))
    method = data.method(tiny_clip)
    report = headroom(method, data, None, progress=False, n_views=64, selection=0.05, crop_scale=(0.08, 0.25))
    assert report.n == len(data) == 16 and report.method == method.name
    assert one(report, "the image itself").value == 0
    gain = one(report, "mean of 3 confident of 64 views")
    assert (gain.value, gain.says) == (100, f"{CROPS}: yes") and gain.low > 0 and gain.n == 16
    found = one(report, "confident views right")
    assert 0 < found.value <= 100 and found.says == f"{FINDS}: yes"
    for measure in ("crops of 0.08 to 0.2", "crops of 0.2 to 0.25"):
        crops = one(report, measure)
        assert crops.value > 0 and crops.says == "better than the image itself"
    assert list(report.table.columns) == COLUMNS


def test_shares_of_crops_are_those_of_their_views(tiny_clip):
    picture, label = corner_pictures(0.4, per_class=1)[2]
    data = Colours([(picture, label)])
    method = data.method(tiny_clip)
    report = headroom(method, data, progress=False, n_views=40)
    seed = content_seed(picture, 0)
    views = make_views(picture, 40, tiny_clip, ViewConfig(), seed=seed)
    right = (method.own_logits(views).argmax(1) == label).numpy()[1:]
    areas = view_areas(picture, 40, tiny_clip, ViewConfig(), seed).numpy()
    for low, high in ((0.08, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)):
        inside = (areas >= low - 0.02 * (low == 0.08)) & (areas < high + 0.02 * (high == 1))
        row = one(report, f"crops of {low:g} to {high:g}")
        assert inside.any() and row.value == pytest.approx(100 * right[inside].mean())
    assert right.any() and not right.all()


def test_views_that_are_all_alike(tiny_clip):
    """Pictures of one colour: every crop is as right as the picture, and no view is surer than another."""
    data = Colours(corner_pictures(1.0, per_class=2))
    report = headroom(data.method(tiny_clip), data, None, progress=False, n_views=8)
    assert one(report, "the image itself").value == 100 and one(report, "the image itself").high == 100
    gain, found = one(report, "mean of 1 confident of 8"), one(report, "confident views right")
    assert gain.value == found.value == 0 and gain.low < 0 < gain.high
    assert gain.says == f"{CROPS}: not told apart" and found.says == f"{FINDS}: not told apart"
    assert "all 16 values are 1" in one(report, "within-class").says


def test_views_that_harm(tiny_clip):
    """Only the whole picture is right, by its mean colour: a crop of the object alone is surer, and wrong. It
    is one class, so the loss of all points may be that class's own, and tells nothing of others."""
    data = Colours(corner_pictures(0.4, per_class=1))
    data.labels = np.full(len(data), len(CORNERS))                             # "mixed", the centre
    report = headroom(data.method(tiny_clip), data, None, progress=False, n_views=64, crop_scale=(0.08, 0.1),
                      selection=0.03)
    assert one(report, "the image itself").value == 100
    gain = one(report, "mean of 1 confident of 64")
    assert gain.value == -100 and gain.says == f"{CROPS}: not told apart"


def test_correlation_is_of_the_images_alone(tiny_clip):
    """Half of the classes are always right, half never: a class is worth one image, however many it has."""
    pictures = [(picture, label) for share in (1.0, 0.3) for picture, label in corner_pictures(share, 4)
                if (label % 2 == 0) == (share == 1.0)]
    data = Colours(pictures)
    method = data.method(tiny_clip)
    report = headroom(method, data, None, progress=False, n_views=2)
    row, worth = one(report, "within-class"), one(report, "independent images")
    assert row.value == pytest.approx(1) and row.says.endswith(": yes")
    assert worth.value == pytest.approx(8) and worth.n == 32 and "32 images tell as much as 8" in worth.says
    few = headroom(method, data, 8, progress=False, n_views=2)      # one of each class, 3 more alone
    assert few.n == 8 and one(few, "within-class").value == pytest.approx(1)
    assert one(few, "within-class").n == 32 and one(few, "the image itself").n == 8


def test_a_model_without_prompts_has_no_step(tiny_clip):
    data = Colours(corner_pictures(1.0, per_class=1))
    report = headroom(data.method(tiny_clip), data, progress=False, n_views=4)
    for measure in ("one step on the true label", "the step without label"):
        row = one(report, measure)
        assert row.n == 0 and np.isnan(row.value) and row.says.startswith("not applicable: colours")
    assert "nothing to tune" in report.verdict and "movement" not in " ".join(report.table["measure"])
    with pytest.raises(NothingToTune, match="colours"):
        tuner_for(data.method(tiny_clip))


# ---- steps ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", LEARNERS)
def test_the_label_step_against_plain_descent(tiny_clip, gradient_descent, name):
    """One step by hand, an image at a time. Errors: gradients in float32 have a relative error of 1e-4 at
    most (tests/conftest.py), and the step changes logits by a few tenths of their size."""
    method = mp.build(name, tiny_clip, NAMES, **LEARNERS[name])
    tuner = tuner_for(method, ProbeConfig(lr=1e-4) if name not in ("tpt", "maple_tpt") else None)
    if name in ("tpt", "maple_tpt"):
        tuner.config = tuner.config.replace(lr=1e-4)
    pictures = Pictures(NAMES, 1)
    views = tiny_clip.preprocess([pictures[i][0] for i in range(4)])[:, None]
    truth = torch.tensor([3, 1, 4, 0])
    before, after = label_step(tuner, views, truth)
    for b in range(4):
        x = tuner.inputs(views[b:b + 1])
        params = tuner.start(x)
        loss = F.cross_entropy(tuner.logits(x, params)[0], truth[b:b + 1])
        grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        moved = {k: p - 10 * 1e-4 * g if g is not None else p
                 for (k, p), g in zip(params.items(), grads, strict=True)}     # GradientDescent is 10 faster
        with torch.no_grad():
            want = tuner.logits(x, moved)[0, 0]
        change = float((want - before[b]).abs().max())
        assert change > 0.005 and largest(after[b], want) < 0.05 * change
        assert F.cross_entropy(after[b:b + 1], truth[b:b + 1]) < F.cross_entropy(before[b:b + 1],
                                                                                  truth[b:b + 1])
    # what is tuned is a copy: the method predicts as before
    assert torch.equal(view_logits(method, views), view_logits(mp.build(name, tiny_clip, NAMES,
                                                                        **LEARNERS[name]), views))


@pytest.mark.parametrize("name", LEARNERS)
def test_the_prompts_of_a_method_are_where_its_step_starts(tiny_clip, name):
    """Before the step, method and tuner agree: to float32 rounding of logits at a temperature of 100."""
    method = mp.build(name, tiny_clip, NAMES, **LEARNERS[name])
    tuner = tuner_for(method)
    views = tiny_clip.preprocess([Pictures(NAMES, 1)[i][0] for i in range(3)])[:, None]
    before, _ = label_step(tuner, views, torch.tensor([0, 1, 2]))
    assert largest(before, view_logits(method, views)[:, 0]) < 2e-3
    said = what_is_tuned(method, tuner)
    assert ("own step" in said) is (tuner is method)
    assert ("words 'a photo of a'" in said) is (name == "zero_shot")
    assert f"rate {0.04 if name in ('maple', 'ivlp', 'maple_tpt') else 0.005:g}" in said
    assert isinstance(tuner, Probe) is (name in ("coop", "maple", "ivlp"))


@pytest.mark.parametrize("settings", [{"class_specific": True}, {"position": "front"}])
def test_contexts_of_any_form_can_be_tuned(tiny_clip, settings):
    method = mp.build("coop", tiny_clip, NAMES, n_ctx=3, **settings)
    report = headroom(method, Pictures(NAMES, 1), progress=False, n_views=3)
    assert one(report, "one step on the true label").n == 6


@pytest.mark.parametrize("template", ["itap of a {} in the snow", "{}."])
def test_words_that_no_context_can_stand_for(tiny_clip, template):
    method = mp.build("zero_shot", tiny_clip, NAMES, template=template)
    report = headroom(method, Pictures(NAMES, 1), progress=False, n_views=3)
    assert repr(template) in one(report, "one step").says and one(report, "crops of 0.4").n >= 0


@pytest.mark.parametrize("name", LEARNERS)
def test_who_moves_less_than_its_margin_stays(tiny_clip, name):
    own = name in ("tpt", "maple_tpt")
    method = mp.build(name, tiny_clip, NAMES, **LEARNERS[name])
    settings = {} if own else {"n_views": 6, "selection": 0.5, "lr": 0.05}
    data = Pictures(NAMES, 2)
    with pytest.warns(UserWarning, match="never trained") if name == "maple_tpt" else _nothing():
        report = headroom(method, data, None, progress=False, **settings)
    images = report.images
    assert report.n == len(images) == 12 and (images["movement"] >= 0).all() and images["movement"].max() > 0
    assert (images["movement"] >= images["margin"])[images["changed"] == 1].all()
    within = one(report, "margin within the movement")
    assert within.value == pytest.approx(100 * (images["movement"] >= images["margin"]).mean())
    assert one(report, "predictions that the step changes").value == pytest.approx(
        100 * images["changed"].mean()) and within.value >= 100 * images["changed"].mean()
    assert one(report, "margin of the best logit, median").value == sorted(images["margin"])[5]
    step = one(report, "one step on the true label")
    assert step.value == pytest.approx(100 * (images["label_after"] - images["label_before"]).mean())
    assert step.says.startswith(f"{STEP}: ")
    if own:                                              # tuning is what predict does
        best = method.predict([data[i][0] for i in range(12)]).argmax(1).numpy()
        right = dict(zip(images["image"], images["tuned"], strict=True))
        assert [right[data.image_id(i)] for i in range(12)] == (best == data.labels).astype(float).tolist()


def test_the_same_again_whatever_ran_before(tiny_clip):
    data = Pictures(NAMES, 3)
    first = headroom(mp.build("zero_shot", tiny_clip, NAMES), data, 9, progress=False, n_views=5)
    torch.manual_seed(1)
    again = headroom(mp.build("zero_shot", tiny_clip, NAMES), data, 9, progress=False, n_views=5)
    pd.testing.assert_frame_equal(first.table, again.table)
    pd.testing.assert_frame_equal(first.images, again.images)
    other = headroom(mp.build("zero_shot", tiny_clip, NAMES), data, 9, 1, progress=False, n_views=5)
    assert set(other.images["image"]) != set(first.images["image"]) and other.seed == 1


# ---- the report, and what is told -----------------------------------------------------------------------
def test_how_it_looks(tiny_clip, tmp_path, capsys):
    report = headroom(mp.build("zero_shot", tiny_clip, NAMES), Pictures(NAMES, 2), 8, n_views=4)
    assert "headroom of zero_shot on pictures" in capsys.readouterr().err       # the bar
    text, page = str(report), report._repr_html_()
    assert text.startswith("zero_shot on pictures, n = 8; a step moves the words 'a photo of a'")
    assert text.endswith(report.verdict) and page.startswith("<p>zero_shot on pictures") and "<table" in page
    for measure in report.table["measure"]:
        assert measure in text
    assert max(map(len, text.split("\n")[:-1])) < 180
    table = pd.read_csv(pd.io.common.StringIO(report.to_csv(tmp_path / "x.csv")))
    assert list(table.columns) == COLUMNS and (tmp_path / "x.csv").read_text() == report.to_csv()
    pd.testing.assert_series_equal(table["value"], report.table["value"])
    inside = report.table.dropna()
    assert ((inside["low"] <= inside["value"]) & (inside["value"] <= inside["high"])).all()


def test_pictures_that_cannot_be_read(tiny_clip):
    data = Pictures(NAMES, 1, broken=(2,))
    with pytest.warns(UserWarning, match="1 of 6 images of pictures could not be read"):
        report = headroom(mp.build("zero_shot", tiny_clip, NAMES), data, progress=False, n_views=3)
    assert report.n == 5 and report.skipped == [("2.png", "OSError: image file is truncated")]
    assert "(1 could not be read)" in str(report)
    with pytest.raises(ValueError, match="none of the 6 images of pictures could be read.*truncated"):
        headroom(mp.build("zero_shot", tiny_clip, NAMES), Pictures(NAMES, 1, broken=range(6)), progress=False)


def test_one_class_and_one_view(tiny_clip):
    method = mp.build("zero_shot", tiny_clip, NAMES[:1])
    report = headroom(method, Pictures(NAMES[:1], 2), progress=False, n_views=1)
    assert one(report, "crops of 0.2").says == "not applicable: no crop has this area"
    assert one(report, "confident views").says.startswith("not applicable: all views are")
    assert one(report, "the image itself").value == 100


@pytest.mark.parametrize("settings, kind, told", [
    ({"n_view": 4}, ValueError, "headroom: unknown setting 'n_view'. Did you mean 'n_views'"),
    ({"lr": -1}, ValueError, "headroom: lr=-1"), ({"limit": 0}, ValueError, "limit=0: expected a whole"),
    ({"sample_seed": 0.5}, ValueError, "sample_seed=0.5")])
def test_settings_that_do_not_fit(tiny_clip, settings, kind, told):
    with pytest.raises(kind, match=told):
        headroom(mp.build("zero_shot", tiny_clip, NAMES), Pictures(NAMES, 1), progress=False, **settings)


def test_what_is_refused(tiny_clip):
    data = Pictures(NAMES, 1)
    with pytest.raises(TypeError, match="tpt has views and a step of its own and takes no n_view here.*Did "
                                        "you mean 'n_views'"):
        headroom(mp.build("tpt", tiny_clip, NAMES), data, n_view=3)
    with pytest.raises(TypeError, match="method is a str; expected a method of minipsync"):
        headroom("tpt", data)
    with pytest.raises(ValueError, match="method knows 6 classes and pictures has 5"):
        headroom(mp.build("tpt", tiny_clip, NAMES), Pictures(NAMES[:5], 1))
    assert issubclass(type(mp.build("tpt", tiny_clip, NAMES)), Method)


def _nothing():
    import contextlib
    return contextlib.nullcontext()
