"""The library against the official implementations, on every folder of golden numbers.

What is in them: tests/golden/README.md. Tokens and selected views are equal; logits, losses, gradients and
tuned prompts agree to a relative error ||a - b|| / ||b|| of 1e-4. `pytest -s` prints the errors.
"""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative

from minipsync.methods import build
from minipsync.statistics import SourceStatistics
from minipsync.text import tokenize

LIMIT = 1e-4


def agree(case, **pairs):
    """Each value of `pairs` is (ours, official)."""
    errors = {name: relative(ours, official) for name, (ours, official) in pairs.items()}
    worst = max(errors, key=errors.get)
    print(f"{case}: {len(errors)} values, worst {worst} {errors[worst]:.1e}")
    assert all(error <= LIMIT for error in errors.values()), errors        # nan is not <= anything


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


@pytest.mark.parametrize("steps", [1, 3])
def test_tpt(golden, steps):
    g = golden["tpt"]
    views = golden.draw(2, int(g["n_views"]), 3, 32, 32)
    views = views[:1] + 0.35 * views
    method = build("tpt", golden.clip, golden.class_names, n_views=len(views), steps=steps,
                   selection=float(g["selection"]), lr=float(g["lr"]))
    x = method.inputs(views[None])
    params = method.start(x)
    chosen = x[:, g["selected"].long()]
    (gradient,) = torch.autograd.grad(method.objective(chosen, params)["loss"].sum(), [params["ctx"]])
    adapted = method.adapt(views[None])
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
    method = build("promptalign", golden.clip, golden.class_names, selection=float(g["selection"]), lr=lr,
                   steps=steps, weight=float(g["distr_loss_weight"]), align_from=int(g["align_from"]),
                   align_to=int(g["align_to"]))
    start = method.learner.ctx.clone()
    golden.fill(method.learner, "promptalign")
    scale = float(g["stats_scale"])
    method.statistics = SourceStatistics(golden.draw(60, 4, 19, 192, scale=scale),
                                         golden.draw(61, 4, 19, 192, scale=scale).abs())
    adapted = method.adapt(views)
    tuned = {name: (adapted.params[name.removeprefix(f"{key}_param_prompt_learner.")][0], g[name])
             for name in g if name.startswith(f"{key}_param_")}
    assert len(tuned) == 3
    agree(f"{golden.folder.name} promptalign {steps} steps, lr {lr}", start=(start, g["ctx_initial"]),
          views=(method.first_logits(views, method.start(views))[0], g["logits_views_initial"]),
          logits=(method.predict_views(views), g[f"{key}_logits"]),
          entropy=(adapted.history["entropy"][:, 0], g[f"{key}_entropy"]),
          align=(adapted.history["align"][:, 0], g[f"{key}_align"]), **tuned)


def test_a_number_that_is_none_does_not_agree():
    good, bad = (torch.ones(2), torch.ones(2)), (torch.tensor([1.0, torch.nan]), torch.ones(2))
    for pairs in ((good, bad), (bad, good), (good, bad[::-1])):
        with pytest.raises(AssertionError):
            agree("nan", first=pairs[0], second=pairs[1])
    agree("equal", first=good)
