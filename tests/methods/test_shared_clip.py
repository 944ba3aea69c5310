"""Methods that share a CLIP: none moves it, and one that is elsewhere says so."""
import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import minipsync as mp
from minipsync.data import Dataset
from minipsync.methods import REGISTRY, build
from minipsync.source.domain import SourceDomain

NAMES = ["cat", "sea horse", "kite"]
FEW = {"n_views": 4, "selection": 0.5}
SETTINGS = {"tpt": FEW, "maple_tpt": FEW, "promptalign": FEW, "promptsync": FEW | {"classes_per_step": 2},
            "promptsync_star": FEW | {"classes_per_step": 2}, "confident_views": FEW}
LEARNED = [name for name in REGISTRY if name != "zero_shot"]
CACHES = ("nearest_mean", "tip_adapter")                                 # features in the place of prompts


def picture(seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 255, (40, 36, 3), dtype=np.uint8))


def source():
    return Dataset("drawn", NAMES, np.arange(6) % 3, [str(i) for i in range(6)], picture)


READY = {}


def made(name, clip):
    """A method that has all it needs to predict; they share `clip`."""
    if name not in READY:
        READY[name] = build(name, clip, NAMES, **SETTINGS.get(name, {}))
        READY[name]._initial = None                              # no warning of prompts that were not trained
        if READY[name].needs:
            READY[name].prepare(source(), progress=False)
        if name in CACHES:
            READY[name].fit(source(), epochs=1, progress=False)
    return copy.deepcopy(READY[name])


def with_own_clip(name, clip):
    """The same, with a CLIP that a test may move."""
    return pickle.loads(pickle.dumps(made(name, clip)))


@pytest.mark.parametrize("name", LEARNED)
def test_a_moved_method_leaves_the_clip_to_the_others(name, tiny_clip):
    a, b = made(name, tiny_clip), made(name, tiny_clip)
    if a.needs:
        b.source = a.source                                      # even the source's numbers are shared
    before = b.predict(picture())
    assert a.to("meta") is a and a.device.type == "meta"
    assert tiny_clip.device.type == "cpu" and all(p.is_meta for p in a.parameters())
    assert torch.equal(b.predict(picture()), before)


WAYS = {"predict": lambda m: m.predict(picture()), "predict a tensor": lambda m: m.predict(X),
        "text_features": lambda m: m.text_features(), "logits": lambda m: m.logits(X),
        "loss": lambda m: m.loss(X, torch.tensor([0])), "evaluate": lambda m: mp.evaluate(m, source()),
        "fit": lambda m: m.fit(source(), epochs=1, progress=False),
        "adapt": lambda m: m.adapt(X[None]), "predict_views": lambda m: m.predict_views(X[None]),
        "prepare": lambda m: m.prepare(source(), progress=False)}
X = torch.zeros(1, 3, 32, 32)
CASES = [(name, way) for name in LEARNED for way in WAYS
         if not (way in ("adapt", "predict_views", "prepare") and not hasattr(REGISTRY[name], way))
         and not (way == "fit" and REGISTRY[name].recipe is None)
         and not (way in ("logits", "loss") and name in ("tpt", "confident_views"))     # of features
         and not (way == "adapt" and name == "confident_views")
         and not (way == "loss" and name in CACHES)
         and not (way == "text_features" and name == "cocoop")]


@pytest.mark.parametrize("name, way", CASES)
def test_a_method_elsewhere_says_so(name, way, tiny_clip):
    method = made(name, tiny_clip).to("meta")
    with pytest.raises(ValueError, match=rf"^{name} is on 'meta' and its CLIP on 'cpu'.*method.to\('cpu'\).*"
                                         r"clip.to\('meta'\)"):
        WAYS[way](method)


@pytest.mark.parametrize("name", LEARNED)
def test_a_clip_that_is_moved_leaves_its_methods(name, tiny_clip):
    method = with_own_clip(name, tiny_clip)
    method.clip.to("meta")
    with pytest.raises(ValueError, match=rf"^{name} is on 'cpu' and its CLIP on 'meta'"):
        method.predict(X)


@pytest.mark.parametrize("name", ["promptalign", "promptsync"])
def test_what_is_kept_of_the_source_moves_and_must_be_there(name, tiny_clip):
    method = made(name, tiny_clip)
    kept = method.source
    moved = kept.to("meta")
    assert all(x.is_meta for x in moved.tensors().values())
    assert moved.class_names == kept.class_names and moved.prompts == kept.prompts
    assert all(t.is_meta for t in method.to("meta").own_tensors())
    assert not any(x.is_meta for x in kept.tensors().values())
    other = made(name, tiny_clip)
    other._source = moved
    with pytest.raises(ValueError, match="is on 'meta' and its CLIP on 'cpu'"):
        other.predict(picture())


def test_zero_shot_has_nothing_to_move(tiny_clip):
    method = build("zero_shot", tiny_clip, NAMES)
    before = method.predict(picture())
    assert torch.equal(method.to("meta").predict(picture()), before) and method.device.type == "cpu"


@pytest.mark.parametrize("name", REGISTRY)
def test_float_types_are_refused_and_change_nothing(name, tiny_clip):
    method = made(name, tiny_clip)
    before = method.predict(picture())
    for change in ("half", "double", "bfloat16"):
        with pytest.raises(TypeError, match=f"{name}: prompts stay float32.*precision='fp16'"):
            getattr(method, change)()
    assert method.float() is method and method.to(torch.float32) is method
    assert torch.equal(method.predict(picture()), before)
    assert all(p.dtype == torch.float32 for p in [*method.parameters(), *tiny_clip.parameters()])


@pytest.mark.parametrize("name", REGISTRY)
def test_copies(name, tiny_clip):
    """deepcopy: prompts of its own, the same CLIP. Pickle: all of it."""
    method = made(name, tiny_clip)
    before = method.predict(picture())
    other, stored = copy.deepcopy(method), pickle.loads(pickle.dumps(method))
    assert other.clip is tiny_clip and stored.clip is not tiny_clip
    assert stored.clip.fingerprint == tiny_clip.fingerprint
    for each in (other, stored):
        assert each.config == method.config and torch.equal(each.predict(picture()), before)
        with torch.no_grad():
            for p in each.parameters():
                p.add_(1.0)
    assert torch.equal(method.predict(picture()), before)


def test_statistics_are_taken_to_where_the_method_is(tiny_clip):
    method = made("promptalign", tiny_clip)
    given = SourceDomain.collect(tiny_clip, method.learner, source(), moments={}, progress=False)
    method.source = given
    assert method.source.moments.means.device == method.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", REGISTRY)
def test_both_are_moved(name, tiny_clip):
    """In either order, there and back. Logits (about 20) differ by float32's rounding on another device, as
    the losses of one step do: 1e-2 is a thousandth of what another prompt changes."""
    method = with_own_clip(name, tiny_clip)
    before = method.predict(X)
    for first, second in ((method.clip, method), (method, method.clip)):
        first.to("cuda"), second.to("cuda")
        assert torch.allclose(method.predict(X.cuda()).cpu(), before, atol=1e-2)
        first.to("cpu"), second.to("cpu")
        assert torch.allclose(method.predict(X), before, atol=1e-2)
