"""What PromptAlign's two losses and its source do; the official numbers are in test_parity.py."""

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import U, features, relative

from minipsync.data import Dataset
from minipsync.methods.promptalign import PromptAlign, moment_alignment


# ---- the losses and the source, on a small set of pictures ----
@pytest.fixture(scope="module")
def source():
    draw = np.random.RandomState(0)
    pictures = [Image.fromarray(draw.randint(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(9)]
    return Dataset("noise", ["cat", "dog", "owl"], np.arange(9) % 3, [f"noise/{i}" for i in range(9)],
                   lambda i: pictures[i])


def prepared(clip, source, **settings):
    return PromptAlign(clip, source.class_names, n_views=8, selection=0.5, **settings).prepare(source,
                                                                                            progress=False)


def test_the_alignment_alone_brings_the_moments_nearer(tiny_clip, source):
    method = prepared(tiny_clip, source, entropy=False, lr=1e-4)
    views = method.make_views(source[0][0])[None]
    adapted = method.adapt(views)
    chosen = views[:, adapted.selected[0]]

    def distance(params):                          # of CLS and patches
        _, inputs = tiny_clip.encode_image(chosen, method.learner(params).vision, method.blocks)
        means, variances = ([x[k][:-2] for k in method.blocks] for x in
                            (method.source.moments.means, method.source.moments.variances))
        return float(moment_alignment([inputs[k][..., :-2, :] for k in method.blocks], means, variances))

    # The two prompt tokens start on their own source mean, at the kink of |.|: they can only move away.
    with torch.no_grad():
        before = distance(method.start(views))
        # a mean of moments, each off by twice `features` (see test_statistics), which do not add up
        assert distance(adapted.params) < before * (1 - 4 * features(tiny_clip))


def test_the_losses_switch_off(tiny_clip, source):
    views = PromptAlign(tiny_clip, source.class_names, n_views=8).make_views(source[1][0])[None]
    both = prepared(tiny_clip, source).adapt(views).history
    align = prepared(tiny_clip, source, entropy=False).adapt(views).history
    entropy = prepared(tiny_clip, source, weight=0.0).adapt(views).history
    assert torch.equal(entropy["loss"], entropy["entropy"])
    # a division, a product and a sum of positive numbers, and the same forward pass
    assert relative(align["loss"], 100 / 3 * align["align"]) < 4 * U
    assert relative(both["loss"], entropy["loss"] + align["loss"]) < 8 * U


def test_statistics_belong_to_the_prompts(tiny_clip, source):
    method = PromptAlign(tiny_clip, source.class_names, n_views=4, selection=0.5)
    with pytest.raises(ValueError, match="no source moments.*method.prepare"):
        method.predict(source[0][0])
    method.prepare(source, progress=False)
    assert method.predict(source[0][0]).shape == (1, 3)
    next(method.parameters()).data.mul_(1.5)
    with pytest.raises(ValueError, match="have changed since.*method.prepare"):
        method.predict(source[0][0])


@pytest.mark.parametrize(("setting_", "message"), [
    ({"entropy": False, "weight": 0.0}, "True where weight is 0"), ({"align_to": 1}, "at least align_from"),
    ({"align_to": 9}, "at most 5"), ({"weight": -1.0}, "0 or more")])
def test_wrong_settings(tiny_clip, setting_, message):
    with pytest.raises(ValueError, match=message):
        PromptAlign(tiny_clip, ["a", "b"], **setting_)
