"""Prompt learners: names, sizes, starts, and the episode axis."""

import open_clip
import pytest
import torch
from rounding import relative, sums

from minipsync.clip.encoders import Clip
from minipsync.methods.cocoop import ConditionalPrompt
from minipsync.methods.coop import ContextPrompt
from minipsync.methods.ivlp import IndependentPrompt
from minipsync.methods.learner import word_embeddings
from minipsync.methods.maple import CoupledPrompt

NAMES = ["cat", "great_white shark", "crêpe"]
LEARNERS = {
    "context": lambda clip, **how: ContextPrompt(clip, 4, **how),
    "class-specific": lambda clip, **how: ContextPrompt(clip, 4, class_specific=True, n_classes=3, **how),
    "conditional": lambda clip, **how: ConditionalPrompt(clip, **how),
    "coupled": lambda clip, **how: CoupledPrompt(clip, depth=4, **how),
    "independent": lambda clip, **how: IndependentPrompt(clip, 2, 3, 3, 2, **how),
    "vision only": lambda clip, **how: IndependentPrompt(clip, 0, 0, 8, None, **how),
    "text only": lambda clip, **how: IndependentPrompt(clip, 4, None, 0, 0, **how),
}


@pytest.fixture(scope="module")
def vit_b_16():
    """The architecture without memory or weights: enough to count."""
    with torch.device("meta"):
        return Clip(open_clip.create_model("ViT-B-16", pretrained=None, device="meta"))


def run(learner, features, params=None):
    return learner(features, params) if isinstance(learner, ConditionalPrompt) else learner(params)


@pytest.mark.parametrize("make,count", [
    (lambda c: ContextPrompt(c), 8_192),
    (lambda c: ContextPrompt(c, init="a photo of a"), 2_048),
    (lambda c: ContextPrompt(c, class_specific=True, n_classes=10), 81_920),
    (lambda c: ConditionalPrompt(c), 35_360),
    (lambda c: CoupledPrompt(c, depth=9), 3_555_072),
    (lambda c: CoupledPrompt(c), 1_185_024),
    (lambda c: IndependentPrompt(c), 30_720),
    (lambda c: IndependentPrompt(c, 4, 12, 0, 0), 4 * 12 * 512),
    (lambda c: IndependentPrompt(c, 0, 0, 8, 12), 8 * 12 * 768),
])
def test_sizes_are_the_papers(vit_b_16, make, count):
    assert sum(p.numel() for p in make(vit_b_16).parameters()) == count


def test_names_are_the_official_ones(tiny_clip):
    def names(learner):
        return sorted(dict(learner.named_parameters()))

    assert names(ContextPrompt(tiny_clip)) == ["ctx"]
    assert names(ConditionalPrompt(tiny_clip)) == [
        "ctx", "meta_net.linear1.bias", "meta_net.linear1.weight", "meta_net.linear2.bias",
        "meta_net.linear2.weight"]
    assert names(CoupledPrompt(tiny_clip, depth=2)) == [
        "compound_prompt_projections.0.bias", "compound_prompt_projections.0.weight",
        "compound_prompts_text.0", "ctx", "proj.bias", "proj.weight"]
    assert names(IndependentPrompt(tiny_clip, depth_text=2, depth_vision=2)) == [
        "ctx", "image_encoder.VPT", "image_encoder.transformer.resblocks.1.VPT_shallow",
        "text_encoder.transformer.resblocks.1.VPT_shallow"]


@pytest.mark.parametrize("name", LEARNERS)
def test_prompts_fit_their_own_packing(tiny_clip, name):
    learner = LEARNERS[name](tiny_clip)
    features = torch.randn(2, 64)
    prompts, packed = run(learner, features), learner.packing(NAMES)
    text = tiny_clip.encode_text(packed, prompts.text)
    assert text.shape == ((2, 3, 64) if name == "conditional" else (3, 64))
    assert tiny_clip.encode_image(torch.zeros(1, 3, 32, 32), prompts.vision).shape == (1, 64)
    if name == "vision only":
        assert prompts.text is None and packed.texts[0] == "a photo of a cat."
        assert prompts.vision.shape == (4, 8, 192)


@pytest.mark.parametrize("name", LEARNERS)
def test_starts_are_seeded(tiny_clip, name):
    same = [LEARNERS[name](tiny_clip, seed=s).state_dict() for s in (3, torch.Generator().manual_seed(3))]
    other = LEARNERS[name](tiny_clip, seed=4).state_dict()
    assert all(torch.equal(same[0][k], same[1][k]) for k in other)
    assert any(not torch.equal(same[0][k], other[k]) for k in other)


@pytest.mark.parametrize("name", LEARNERS)
def test_episodes_equal_a_loop(tiny_clip, name):
    learner = LEARNERS[name](tiny_clip)
    params = learner.episodes(2)
    assert set(params) == set(dict(learner.named_parameters()))
    assert all(p.is_leaf and p.requires_grad and len(p) == 2 for p in params.values())
    with torch.no_grad():
        for i, p in enumerate(params.values()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    features = torch.randn(2, 64, generator=torch.Generator().manual_seed(9))
    got = run(learner, features, params)
    for b in range(2):
        want = run(learner, features[b: b + 1], {k: p[b] for k, p in params.items()})
        for kind in ("text", "vision"):
            if getattr(got, kind) is not None:
                want_b = getattr(want, kind)[0] if name == "conditional" else getattr(want, kind)
                # one linear layer, of W = 128 or (the net of CoCoOp) two of fewer: sums of no more than 128
                assert relative(getattr(got, kind)[b], want_b) < 4 * sums(128)
    total = sum(t.square().sum() for t in (got.text, got.vision) if t is not None)
    assert all(g is not None for g in torch.autograd.grad(total, list(params.values())))


def test_some_parameters_may_have_episodes_and_others_not(tiny_clip):
    learner = CoupledPrompt(tiny_clip, depth=3)
    params = {"compound_prompts_text.1": torch.randn(5, 2, 128)}
    prompts, own = learner(params), learner()
    assert prompts.text.shape == (5, 3, 2, 128) and prompts.vision.shape == (5, 3, 2, 192)
    assert torch.equal(prompts.text[2, :2], own.text[:2])
    assert torch.equal(prompts.vision[2, :2], own.vision[:2])
    with pytest.raises(ValueError, match="unknown parameters ctxx, expected some of ctx, proj.weight"):
        learner({"ctxx": own.text})


def test_starts_from_words(tiny_clip):
    words = word_embeddings(tiny_clip, "a photo of a")
    table = tiny_clip.model.token_embedding.weight
    assert torch.equal(words, table[torch.tensor([320, 1125, 539, 320])])
    assert torch.equal(ContextPrompt(tiny_clip, init="a photo of a").ctx, words)
    specific = ContextPrompt(tiny_clip, init="a photo of a", class_specific=True, n_classes=3)
    assert torch.equal(specific.ctx, words.expand(3, 4, 128))
    for n, tail in [(1, "photo of a"), (2, "of a"), (4, "")]:
        learner = CoupledPrompt(tiny_clip, n_ctx=n)
        assert torch.equal(learner.ctx, words[:n]) and learner.tail == tail
    long = CoupledPrompt(tiny_clip, n_ctx=5)  # more tokens than words: at random, and no tail
    assert long.tail == "" and long.packing(["cat"]).texts == ("X X X X X cat.",)
    assert CoupledPrompt(tiny_clip, init=None).packing(["cat"]).texts == ("X X cat.",)
    assert 0.015 < float(ContextPrompt(tiny_clip).ctx.detach().std()) < 0.025


def test_deep_couplings_start_as_copies(tiny_clip):
    state = CoupledPrompt(tiny_clip, depth=3).state_dict()
    name = "compound_prompt_projections.{}.weight"
    assert torch.equal(state[name.format(0)], state[name.format(1)])
    assert not torch.equal(state["proj.weight"], state[name.format(0)])
    assert float(state["proj.weight"].abs().max()) <= 128**-0.5


@pytest.mark.parametrize("make,message", [
    (lambda c: CoupledPrompt(c, depth=5), "prompt depth is 5, expected 1 to 4, the text layers"),
    (lambda c: CoupledPrompt(c, depth=0), "prompt depth is 0"),
    (lambda c: IndependentPrompt(c, depth_vision=7), "the vision layers of"),
    (lambda c: CoupledPrompt(c, init="a crêperie of a"), "'a crêperie' is .* tokens, expected one per word"),
    (lambda c: ContextPrompt(c, class_specific=True), "needs n_classes"),
    (lambda c: ContextPrompt(c, 4, class_specific=True, n_classes=2).packing(NAMES), "for 2 classes got 3"),
])
def test_bad_settings_are_named(tiny_clip, make, message):
    with pytest.raises(ValueError, match=message):
        make(tiny_clip)
