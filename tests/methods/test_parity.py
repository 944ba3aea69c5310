"""The library against the official implementations, on every folder of golden numbers.

What is in them: tests/golden/README.md. Tokens and selected views are equal; logits, losses, gradients and
tuned prompts agree to a relative error ||a - b|| / ||b|| of 1e-4. `pytest -s` prints the errors. Where only
rounding decides, two machines differ by more; that this is not so is asserted of the folders that lie here.
"""

import pytest
import torch
import torch.nn.functional as F
from conftest import GIVEN, OFFICIAL
from rounding import assert_apart, moves, relative

from minipsync.clip.text import tokenize
from minipsync.methods import build
from minipsync.methods.tpt import take_views, view_entropy
from minipsync.source.domain import SourceDomain
from minipsync.source.moments import Moments


def agree(case, limit=OFFICIAL, **pairs):
    """Each value of `pairs` is (ours, official)."""
    errors = {name: relative(ours, official) for name, (ours, official) in pairs.items()}
    worst = max(errors, key=errors.get)
    print(f"{case}: {len(errors)} values, worst {worst} {errors[worst]:.1e}")
    assert all(error <= limit for error in errors.values()), errors        # nan is not <= anything


def loss_and_gradients(method, images, labels, names):
    """(logits, loss, {official name: gradient}); `names` maps official names to parameters."""
    logits = method.logits(images)
    loss = F.cross_entropy(logits, labels)
    return logits, loss, dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))


def test_zero_shot(golden):
    g, method = golden["zero_shot"], build("zero_shot", golden.clip, golden.class_names)
    for name, row in zip(golden.class_names, g["tokens"].long(), strict=True):
        ids = tokenize(f"a photo of a {name.replace('_', ' ')}.")
        assert ids == row[:len(ids)].tolist() and not row[len(ids):].any()
    agree(f"{golden.folder.name} zero_shot", text=(method.text_features(), g["text_features"]),
          image=(golden.clip.encode_image(golden.images), g["image_features"]),
          logits=(method.predict(golden.images), g["logits"]))


@pytest.mark.parametrize("kind", ["unified", "csc"])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_coop(golden, kind, position):
    g, csc = golden["coop"], kind == "csc"
    method = build("coop", golden.clip, golden.class_names, n_ctx=4, class_specific=csc, position=position)
    ctx = method.learner.ctx
    assert ctx.shape == ((12, 4, 128) if csc else (4, 128))
    ctx.data.copy_(golden.draw(3, *ctx.shape, scale=0.02))
    logits, loss, gradients = loss_and_gradients(method, golden.images, golden.labels, {"ctx": ctx})
    key = f"{kind}_{position}"
    agree(f"{golden.folder.name} coop {key}", logits=(logits, g[f"{key}_logits"]),
          loss=(loss, g[f"{key}_loss"]), gradient=(gradients["ctx"], g[f"{key}_ctx_grad"]),
          predict=(method.predict(golden.images), g[f"{key}_logits"]))


def test_coop_words(golden):
    g, method = golden["coop"], build("coop", golden.clip, golden.class_names, init="a photo of a")
    agree(f"{golden.folder.name} coop words", ctx=(method.learner.ctx, g["words_ctx"]),
          logits=(method.predict(golden.images), g["words_logits"]))


@pytest.mark.parametrize("name, n_images, settings", [
    ("cocoop", 4, {}), ("maple", 8, {"depth": 3}), ("ivlp", 8, {"depth_text": 3, "depth_vision": 3})])
def test_trained_methods(golden, name, n_images, settings):
    g, method = golden[name], build(name, golden.clip, golden.class_names, **settings)
    start = {"start": (method.learner.ctx.clone(), g["ctx_initial"])} if "ctx_initial" in g else {}
    parameters = golden.fill(method.learner, name)
    images = golden.images[:n_images]
    logits, loss, gradients = loss_and_gradients(method, images, golden.labels[:n_images], parameters)
    agree(f"{golden.folder.name} {name}", logits=(logits, g["logits"]), loss=(loss, g["loss"]),
          predict=(method.predict(images), g["logits"]), **start,
          **{f"gradient of {k}": (v, g[f"grad_{k}"]) for k, v in gradients.items()})
    assert len(gradients) == sum(k.startswith("grad_") for k in g)


def assert_no_ties(make, clip, views, k):
    """The k views that make(clip) selects, and their order, hang on no rounding error."""
    def entropies(clip):
        method = make(clip)
        x = method.inputs(views[None])
        return view_entropy(method.first_logits(x, method.start(x)))[0]

    if not GIVEN:
        assert_apart(entropies(clip), k, moves(entropies, clip))


@pytest.mark.parametrize("steps", [1, 3])
def test_tpt(golden, steps):
    g = golden["tpt"]
    views = golden.draw(2, int(g["n_views"]), 3, 32, 32)
    views = views[:1] + 0.35 * views

    def make(clip):
        return build("tpt", clip, golden.class_names, n_views=len(views), steps=steps,
                     selection=float(g["selection"]), lr=float(g["lr"]))

    method = make(golden.clip)
    x = method.inputs(views[None])
    params = method.start(x)
    chosen = x[:, g["selected"].long()]
    (gradient,) = torch.autograd.grad(method.objective(chosen, params)["loss"].sum(), [params["ctx"]])
    adapted = method.adapt(views[None])
    assert_no_ties(make, golden.clip, views, len(g["selected"]))
    # AdamW's first step is the sign of the gradient: no component is so near 0 that rounding decides it
    assert GIVEN or gradient.abs().min() > OFFICIAL * gradient.square().mean().sqrt()
    assert adapted.selected[0].tolist() == g["selected"].tolist()
    agree(f"{golden.folder.name} tpt {steps} steps", start=(method.learner.ctx, g["ctx_initial"]),
          views=(method.first_logits(x, params)[0], g["logits_views_initial"]),
          gradient=(gradient[0], g["ctx_grad"]), losses=(adapted.history["loss"][:, 0], g[f"losses_{steps}"]),
          ctx=(adapted.params["ctx"][0], g[f"ctx_{steps}"]),
          logits=(method.predict_views(views[None]), g[f"logits_{steps}"]))


@pytest.mark.parametrize("lr", [0.04, 0.0005])
@pytest.mark.parametrize("steps", [1, 2])
def test_promptalign(golden, lr, steps):
    g, key = golden["promptalign"], f"steps{steps}_lr{lr}"
    views = golden.draw(2, int(g["n_views"]), 3, 32, 32)
    views = (views[:1] + 0.35 * views)[None]

    def make(clip):
        method = build("promptalign", clip, golden.class_names, selection=float(g["selection"]), lr=lr,
                       steps=steps, weight=float(g["distr_loss_weight"]), align_from=int(g["align_from"]),
                       align_to=int(g["align_to"]))
        starts.append(method.learner.ctx.clone())
        golden.fill(method.learner, "promptalign")
        return method

    starts = []
    method = make(golden.clip)
    scale = float(g["stats_scale"])
    method.source = SourceDomain(Moments(golden.draw(60, 4, 19, 192, scale=scale),
                                         golden.draw(61, 4, 19, 192, scale=scale).abs()))
    adapted = method.adapt(views)
    assert_no_ties(make, golden.clip, views[0], adapted.selected.shape[1])
    tuned = {name: (adapted.params[name.removeprefix(f"{key}_param_prompt_learner.")][0], g[name])
             for name in g if name.startswith(f"{key}_param_")}
    assert len(tuned) == 3
    limit = OFFICIAL + relative(*other_signs(method, views, adapted))
    assert limit < 3e-3
    agree(f"{golden.folder.name} promptalign {steps} steps, lr {lr}", limit,
          start=(starts[0], g["ctx_initial"]),
          views=(method.first_logits(views, method.start(views))[0], g["logits_views_initial"]),
          logits=(method.predict_views(views), g[f"{key}_logits"]),
          entropy=(adapted.history["entropy"][:, 0], g[f"{key}_entropy"]),
          align=(adapted.history["align"][:, 0], g[f"{key}_align"]), **tuned)


def other_signs(method, views, adapted):
    """Logits after other first steps where rounding decides, and those of `adapted`.

    AdamW's first step is lr times the sign of the gradient. No prompt has a component so near 0 that rounding
    decides its sign, but some 10 of the 70,000 weights of the projections do."""
    params = method.start(views)
    loss = method.objective(take_views(views, adapted.selected), params)["loss"].sum()
    other = {}
    gradients = torch.autograd.grad(loss, list(params.values()))
    for name, g in zip(params, gradients, strict=True):
        unsure = g.abs() < OFFICIAL * g.square().mean().sqrt()
        assert GIVEN or not unsure.any() or (name.endswith("weight") and unsure.sum() < 20), name
        other[name] = adapted.params[name] + 2 * method.config.lr * g.sign() * unsure
    return method.logits(adapted.original, other), method.logits(adapted.original, adapted.params)


def test_a_number_that_is_none_does_not_agree():
    good, bad = (torch.ones(2), torch.ones(2)), (torch.tensor([1.0, torch.nan]), torch.ones(2))
    for pairs in ((good, bad), (bad, good), (good, bad[::-1])):
        with pytest.raises(AssertionError):
            agree("nan", first=pairs[0], second=pairs[1])
    agree("equal", first=good)
