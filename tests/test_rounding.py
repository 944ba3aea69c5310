"""The bounds of rounding.py: what they assume is measured, rounding stays below them, mistakes do not."""

import copy

import pytest
import reference
import test_clip
import tiny_clip as tiny
import torch
import torch.nn.functional as F
from conftest import GIVEN
from rounding import (
    FEATURES,
    GRADIENTS,
    assert_agrees,
    assert_apart,
    condition,
    features,
    gradients,
    longest_sum,
    moves,
    perturbed,
    relative,
    sums,
    with_perturbed_weights,
)

from minipsync.clip.text import pack_context, pack_texts
from minipsync.clip.weights import load_clip
from minipsync.methods import build
from minipsync.methods.tpt import take_views
from minipsync.source.domain import SourceDomain
from minipsync.source.moments import Moments

CLIPS = {"tiny 0": lambda: load_clip(state_dict=tiny.tiny_state_dict(0), device="cpu"),
         "tiny 7": lambda: load_clip(state_dict=tiny.tiny_state_dict(7), device="cpu"),
         "mini": lambda: load_clip("mini", device="cpu"),
         **{name: lambda config=config: test_clip.random_clip(config)
            for name, config in test_clip.VARIANTS.items()}}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encodings(clip):
    """name -> function of a CLIP: features, tokens and, to prompts in either encoder, gradients."""
    x, names = normal(3, 3, clip.image_size, clip.image_size), ["cat", "great white shark", "hot dog"]
    packed = pack_context(names, 3, context_length=clip.context_length)
    text = 0.2 * normal(2, 3, clip.text_width)
    vision, weight = 0.2 * normal(2, 3, clip.vision_width), normal(3, clip.embed_dim)

    def gradient(encode, prompts):
        prompts = prompts.clone().requires_grad_()
        return torch.autograd.grad((encode(prompts) * weight).sum(), prompts)[0]

    found = {"text": lambda c: c.encode_text(pack_texts(names, c.context_length)),
             "image": lambda c: c.encode_image(x),
             "prompted text": lambda c: c.encode_text(packed, text),
             "prompted image": lambda c: c.encode_image(x, vision),
             "tokens": lambda c: c.encode_image(x, vision, trace=("tokens",))[1]["tokens"]}
    return found, {"text": lambda c: gradient(lambda p: c.encode_text(packed, p), text),
                   "image": lambda c: gradient(lambda p: c.encode_image(x, p), vision)}


@pytest.mark.parametrize("name", CLIPS)
def test_conditions_are_those_assumed(name):
    clip = CLIPS[name]()
    for results, assumed in zip(encodings(clip), (FEATURES, GRADIENTS), strict=True):
        measured = {kind: condition(result, clip) for kind, result in results.items()}
        assert max(measured.values()) < assumed, measured
        assert max(measured.values()) > assumed / 8, measured                    # and not far too large


@pytest.mark.parametrize("kind", ["text", "image"])
def test_rounding_stays_below_and_mistakes_do_not(tiny_clip, kind):
    """Against the literal reference in float64; the mistakes are small ones of the kind that happens."""
    exact = copy.deepcopy(tiny_clip.model).double()
    x, names = normal(3, 3, 32, 32), ["goldfish", "great white shark", "hot dog"]
    packed, (ids, slots) = pack_context(names, 4), reference.layout(names, 4)
    prompts = 0.2 * normal(2, 4, 128 if kind == "text" else 192)
    weight = normal(3, 64)

    def run(encode, p):
        p = p.clone().requires_grad_()
        found = encode(p)
        return found.detach(), torch.autograd.grad((found * weight.to(found)).sum(), p)[0]

    def literal(model):
        return run((lambda p: reference.text_features(model, ids, slots, p)) if kind == "text" else
                   (lambda p: reference.image_features(model.visual, x.to(p), p)), prompts.double())

    ours = run((lambda p: tiny_clip.encode_text(packed, p)) if kind == "text" else
               (lambda p: tiny_clip.encode_image(x, p)), prompts)
    bounds = features(tiny_clip), gradients(tiny_clip)
    for got, want, bound in zip(ours, literal(exact), bounds, strict=True):
        assert relative(got, want) < bound / 3
        assert relative(1.001 * got, want) > 10 * bound                               # a factor
    tower = exact if kind == "text" else exact.visual
    mistakes = {"no position of one token": lambda: tower.positional_embedding[1].zero_(),
                "a bias left out": lambda: tower.transformer.resblocks[2].ln_2.bias.zero_(),
                "one weight of 1 %": lambda: tower.transformer.resblocks[3].attn.out_proj.weight.mul_(1.01)}
    for what, mistake in mistakes.items():
        saved = copy.deepcopy(exact.state_dict())
        with torch.no_grad():
            mistake()
        assert all(relative(got, want) > 10 * bound
                   for got, want, bound in zip(ours, literal(exact), bounds, strict=True)), what
        exact.load_state_dict(saved)


@pytest.mark.parametrize("name, n_images", [("coop", 8), ("cocoop", 4), ("maple", 8), ("ivlp", 8), ("tpt", 0),
                                            ("promptalign", 0)])
def test_conditions_of_the_official_gradients(golden, name, n_images):
    """What conftest.OFFICIAL says of them."""
    file = golden[name]
    settings = {"coop": {"n_ctx": 4}, "maple": {"depth": 3}, "ivlp": {"depth_text": 3, "depth_vision": 3}}

    def method(clip):
        method = build(name, clip, golden.class_names, **settings.get(name, {}))
        if name == "coop":
            method.learner.ctx.data.copy_(golden.draw(3, 4, 128, scale=0.02))
        elif name != "tpt":
            golden.fill(method.learner, name)
        if name == "promptalign":
            scale = float(file["stats_scale"])
            method.source = SourceDomain(Moments(golden.draw(60, 4, 19, 192, scale=scale),
                                                 golden.draw(61, 4, 19, 192, scale=scale).abs()))
        return method

    if not n_images:
        views = golden.draw(2, int(file["n_views"]), 3, 32, 32)
        views = (views[:1] + 0.35 * views)[None]
        selected = method(golden.clip).adapt(views).selected

    def gradient(clip):
        m = method(clip)
        if n_images:
            params = list(m.parameters())
            loss = F.cross_entropy(m.logits(golden.images[:n_images]), golden.labels[:n_images])
        else:
            x = m.inputs(views)
            params = list((start := m.start(x)).values())
            loss = m.objective(take_views(x, selected), start)["loss"].sum()
        return torch.autograd.grad(loss, params)

    size = 1e-5                                            # a small change, as PromptAlign's |.| has kinks
    there = gradient(with_perturbed_weights(golden.clip, size))
    for g, other in zip(gradient(golden.clip), there, strict=True):
        assert GIVEN or relative(other, g) / size < 40


def test_ties_are_found():
    assert_apart([3.0, 1.0, 2.0], 2, 0.05)
    assert_apart([1.0, 2.0, 5.0, 5.0], 1, 0.05)                                  # those behind play no part
    for values, k in (([1.0, 2.0, 2.3], 2), ([1.0, 1.3, 5.0], 2), ([[1.0, 2.0], [1.0, 1.3]], 1)):
        with pytest.raises(AssertionError, match="a tie"):
            assert_apart(values, k, 0.05)
    exact = torch.tensor([3.0, 4.0])
    assert_agrees(exact + 1e-3, exact, exact - 4e-3)
    with pytest.raises(AssertionError, match=" of 1"):
        assert_agrees(exact + 2e-3, exact, exact - 4e-3)
    with pytest.raises(AssertionError, match="a tie"):
        assert_agrees(exact, exact, exact + 1)


def test_what_rounding_moves_is_what_the_condition_says(tiny_clip):
    x, size = normal(4, 3, 32, 32), sums(longest_sum(tiny_clip.model))
    assert longest_sum(tiny_clip.model) == 768                                   # the MLP of the vision tower

    def encode(clip):
        return clip.encode_image(x)

    entry = condition(encode, tiny_clip) * size / 8                 # of a unit vector of 64 entries
    assert entry < moves(encode, tiny_clip) / 3 < 8 * entry
    other = perturbed(tiny_clip.model, 0.01)
    assert 0.009 < relative(other.visual.proj, tiny_clip.model.visual.proj) < 0.011
    assert other.token_embedding is tiny_clip.model.token_embedding
