"""Encodings with learned prompts against the official implementations' numbers (tests/golden/README.md)."""

import pytest
import torch
import torch.nn.functional as F
from conftest import OFFICIAL
from rounding import features, relative

from minipsync.clip.text import POSITIONS, pack_texts
from minipsync.methods.cocoop import ConditionalPrompt
from minipsync.methods.coop import ContextPrompt
from minipsync.methods.ivlp import IndependentPrompt
from minipsync.methods.maple import CoupledPrompt

LEARNERS = {
    "maple": lambda clip: CoupledPrompt(clip, n_ctx=2, depth=3),
    "ivlp": lambda clip: IndependentPrompt(clip, n_text=2, depth_text=3, n_vision=2, depth_vision=3),
}


def test_zero_shot(golden):
    want = golden["zero_shot"]
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in golden.class_names]
    text = golden.clip.encode_text(pack_texts(texts))
    image = golden.clip.encode_image(golden.images)
    assert relative(text, want["text_features"]) < 2 * features(golden.clip)
    assert relative(image, want["image_features"]) < 2 * features(golden.clip)
    assert relative(golden.clip.logit_scale * image @ text.T, want["logits"]) < OFFICIAL


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", ["unified", "csc"])
def test_coop(golden, kind, position):
    want, clip, specific = golden["coop"], golden.clip, kind == "csc"
    learner = ContextPrompt(clip, 4, class_specific=specific, n_classes=12, position=position)
    learner.ctx.data = golden.draw(3, *learner.ctx.shape, scale=0.02)
    text = clip.encode_text(learner.packing(golden.class_names), learner().text)
    logits = clip.logit_scale * clip.encode_image(golden.images) @ text.T
    loss = F.cross_entropy(logits, golden.labels)
    loss.backward()
    assert relative(logits, want[f"{kind}_{position}_logits"]) < OFFICIAL
    assert relative(loss, want[f"{kind}_{position}_loss"]) < OFFICIAL
    assert relative(learner.ctx.grad, want[f"{kind}_{position}_ctx_grad"]) < OFFICIAL


def test_coop_from_words(golden):
    learner = ContextPrompt(golden.clip, init="a photo of a")
    text = golden.clip.encode_text(learner.packing(golden.class_names), learner().text)
    logits = golden.clip.logit_scale * golden.clip.encode_image(golden.images) @ text.T
    assert torch.equal(learner.ctx, golden["coop"]["words_ctx"])              # copied, not computed
    assert relative(logits, golden["coop"]["words_logits"]) < OFFICIAL


def test_cocoop(golden):
    clip, images = golden.clip, golden.images[:4]
    learner = ConditionalPrompt(clip)
    parameters = golden.fill(learner, "cocoop")
    features = clip.encode_image(images)
    text = clip.encode_text(learner.packing(golden.class_names), learner(features).text)  # (4, 12, 64)
    logits = clip.logit_scale * torch.einsum("bd,bcd->bc", features, text)
    check(golden["cocoop"], parameters, logits, golden.labels[:4])


@pytest.mark.parametrize("name", LEARNERS)
def test_deep_prompts(golden, name):
    clip, learner = golden.clip, LEARNERS[name](golden.clip)
    assert torch.equal(learner.ctx, golden[name]["ctx_initial"])
    parameters = golden.fill(learner, name)
    prompts = learner()
    text = clip.encode_text(learner.packing(golden.class_names), prompts.text)
    logits = clip.logit_scale * clip.encode_image(golden.images, prompts.vision) @ text.T
    check(golden[name], parameters, logits, golden.labels)


def check(want, parameters, logits, labels):
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    assert relative(logits, want["logits"]) < OFFICIAL
    assert relative(loss, want["loss"]) < OFFICIAL
    for name, p in parameters.items():
        assert relative(p.grad, want[f"grad_{name}"]) < OFFICIAL, name
