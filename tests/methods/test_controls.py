"""Controls, which tune nothing: each is what its formula says, on float64 and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rounding import features, largest, logits

from minipsync.data.dataset import Dataset
from minipsync.methods import build
from minipsync.methods.tpt import view_entropy

NAMES = ["cat", "sea horse", "kite", "fern"]
PLAIN = {"epochs": 1, "crop": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}     # the picture as it is
FEW_SHOT = ["nearest_mean", "tip_adapter"]


def picture(i):
    """Blocks of colour, square, of the tiny CLIP's size."""
    small = np.random.RandomState(int(i)).randint(0, 256, (4, 4, 3)).astype("uint8")
    return Image.fromarray(small).resize((32, 32), Image.Resampling.NEAREST)


def shown(counts=(3, 3, 3, 3), names=NAMES):
    """A training set with so many pictures of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return Dataset("toys", names, labels, [str(i) for i in range(len(labels))], lambda i: picture(int(i)))


TESTED = [picture(i) for i in range(50, 56)]


def fitted(name, clip, train=None, **settings):
    return build(name, clip, NAMES, shots=3, **settings).fit(train or shown(), progress=False, **PLAIN)


def unit(clip, images):
    """Unit features [n, D] in float64."""
    return F.normalize(clip.encode_image(clip.preprocess(images)).double(), dim=-1)


def keys(clip, train):
    return unit(clip, [picture(i) for i in range(len(train))])


# ---- the mean of confident views ----
def test_confident_views_are_averaged_and_nothing_is_tuned(tiny_clip):
    method = build("confident_views", tiny_clip, NAMES, n_views=8, selection=0.4)
    before, seen = method.copy_prompts(), 0
    found = method.predict(TESTED)
    for image, row in zip(TESTED, found, strict=True):
        views = method.make_views(image)
        one_by_one = method.logits(method.inputs(views[None]))[0].double()                   # [8, C]
        entropy = view_entropy(one_by_one)
        third, fourth = entropy.sort().values[2:4]
        if fourth - third < 4 * logits(tiny_clip):               # dH = -sum p_c (log p_c + H) dz_c < 2 dz
            continue                                             # a tie of the views at the border
        seen += 1
        confident = one_by_one[entropy.argsort()[:3]]                            # 0.4 of 8 is 3.2
        assert largest(row, confident.softmax(-1).mean(0).log()) < 2 * logits(tiny_clip)
    assert seen >= 3 and method.prompts_are(before)
    assert largest(found.untuned, build("zero_shot", tiny_clip, NAMES, template="a photo of a {}.")
                   .predict(TESTED)) < 2 * logits(tiny_clip)
    with pytest.raises(TypeError, match="confident_views tunes nothing.*tpt is what takes the step"):
        method.adapt(views[None])


def test_confident_views_and_tpt_see_the_same_views(tiny_clip):
    """So that their difference is the step alone."""
    ours, tpt = (build(name, tiny_clip, NAMES, n_views=8) for name in ("confident_views", "tpt"))
    assert torch.equal(ours.make_views(TESTED[0]), tpt.make_views(TESTED[0]))
    shared = set(type(ours.config).model_fields) & set(type(tpt.config).model_fields)
    assert shared == set(type(ours.config).model_fields)
    default = ours.config.replace(n_views=64).model_dump()
    assert default == {k: v for k, v in build("tpt", tiny_clip, NAMES).config.model_dump().items()
                       if k in shared}


# ---- few labelled pictures ----
def test_nearest_mean(tiny_clip):
    train = shown((3, 1, 2, 3))                                                  # class 1 has fewer than 3
    method = fitted("nearest_mean", tiny_clip, train)
    k = keys(tiny_clip, train)
    means = torch.stack([F.normalize(k[torch.as_tensor(train.labels) == c].mean(0), dim=0)
                         for c in range(len(NAMES))])
    want = tiny_clip.logit_scale.double() * unit(tiny_clip, TESTED) @ means.T
    assert largest(method.predict(TESTED), want) < 3 * logits(tiny_clip)
    assert int(method.predict(picture(3)).argmax()) == 1                         # the only picture of class 1


@pytest.mark.parametrize("alpha, beta", [(1.0, 5.5), (3.0, 1.0), (0.0, 5.5)])
def test_tip_adapter(tiny_clip, alpha, beta):
    train = shown((3, 1, 2, 3))
    method = fitted("tip_adapter", tiny_clip, train, alpha=alpha, beta=beta)
    affinity = unit(tiny_clip, TESTED) @ keys(tiny_clip, train).T                          # [N, n]
    values = F.one_hot(torch.as_tensor(train.labels)).double()                             # [n, C]
    plain = build("zero_shot", tiny_clip, NAMES).predict(TESTED)
    want = plain + alpha * (-(beta - beta * affinity)).exp() @ values
    room = logits(tiny_clip) + alpha * 3 * beta * 4 * features(tiny_clip)     # 3 pictures, d exp(-b d) <= b
    assert largest(method.predict(TESTED), want) < 2 * room
    assert (largest(method.predict(TESTED), plain) > 0.1 * alpha) == (alpha > 0)


def test_features_are_the_mean_over_crops(tiny_clip):
    """Ten crops differ from one, and the seed decides them; the file stands for both."""
    one, other, again = (build("nearest_mean", tiny_clip, NAMES, shots=3, seed=seed)
                         .fit(shown(), progress=False) for seed in (1, 2, 1))
    assert torch.equal(one.learner.features, again.learner.features)
    assert not torch.equal(one.learner.features, other.learner.features)
    assert largest(one.learner.features.norm(dim=-1), torch.ones(4, 3)) < 1e-6
    assert largest(one.learner.features, fitted("nearest_mean", tiny_clip).learner.features) > 1e-3


@pytest.mark.parametrize("name", FEW_SHOT)
def test_files(name, tiny_clip, tmp_path):
    method = fitted(name, tiny_clip)
    file = method.save(tmp_path / "features.safetensors")
    other = build(name, tiny_clip, NAMES, shots=3).load(file)
    assert torch.equal(other.predict(TESTED), method.predict(TESTED)) and other.trained_on == "toys"
    with pytest.raises(ValueError, match="shots|shape"):
        build(name, tiny_clip, NAMES, shots=2).load(file)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_what_they_refuse(name, tiny_clip):
    method = build(name, tiny_clip, NAMES, shots=3)
    with pytest.raises(ValueError, match=f"{name} has no pictures yet: fit"):
        method.predict(TESTED)
    with pytest.raises(ValueError, match="takes no gradient steps, lr would do nothing"):
        method.fit(shown(), lr=0.1)
    with pytest.raises(ValueError, match="shots=2 in fit and 3 in the method"):
        method.fit(shown(), shots=2)
    with pytest.warns(match="no picture of 1"), \
            pytest.raises(ValueError, match="no picture of 'fern'; it needs one of every class"):
        method.fit(shown((3, 3, 3, 0)))
    with pytest.raises(ValueError, match="training set has 4 classes"):
        method.fit(shown(names=NAMES[::-1]))
    with pytest.raises(ValueError, match="among the classes that it has pictures of .*, not among"):
        method.set_class_names(["dog", "cat"])
    assert method.set_class_names(NAMES) is method
