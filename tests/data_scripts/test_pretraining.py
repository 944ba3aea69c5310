"""How the mini CLIP is made: captions that tell what is seen, a run that goes on, a harmless rescaling."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import minipsync as mp
from data_scripts import train_mini_clip as pretraining
from data_scripts.captions import CORNERS, LARGE, NEAR, SIDES, SMALL, Web
from data_scripts.mini_sources import ICON_SETS, STYLES

NAMES = ("camel", "ball", "piano", "rose", "anchor", "tent", "lemon", "robot", "ship", "key", "bell", "cake")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """A file as `make_mini --drawings` writes it: twelve classes, random drawings."""
    file, rng = tmp_path_factory.mktemp("web") / "drawings.npz", np.random.RandomState(0)
    rows = [[f"{i:04x}", name, [f"{name}s"], "objects", "thing"] for i, name in enumerate(NAMES)]
    stacks = {s.name: rng.randint(1, 256, (len(NAMES), 64, 64, 4)).astype(np.uint8)
              for s in STYLES + ICON_SETS if s.role != "test"}
    np.savez_compressed(file, emoji=json.dumps(rows), **stacks)
    return file


@pytest.fixture(scope="module")
def web(drawings):
    return Web(drawings, {"camel"})


def test_a_batch_is_a_function_of_its_seed(web):
    pictures, captions, labels = web.batch(np.random.RandomState(5), 6, 48)
    again = web.batch(np.random.RandomState(5), 6, 48)
    assert torch.equal(pictures, again[0]) and captions == again[1] and np.array_equal(labels, again[2])
    assert pictures.shape == (12, 3, 48, 48) and 0 <= pictures.min() < pictures.max() <= 1
    assert np.array_equal(labels[:6], labels[6:]) and len(set(labels[:6])) == 6
    for caption, label in zip(captions, labels, strict=True):
        assert NAMES[label] in caption


def test_every_word_of_a_caption_is_among_the_words_that_are_trained(web):
    known = {word for text in web.words() for word in text.replace(",", " , ").replace(".", " . ").split()}
    for seed in range(12):
        for caption in web.batch(np.random.RandomState(seed), 12, 16)[1]:
            assert set(caption.replace(",", " , ").replace(".", " . ").split()) <= known, caption


def described(web, side, place=(0.0, 0.0), beside=(), n=300):
    """n captions of a camel of this size at this place."""
    from minipsync.data.scenes import sample
    rng = np.random.RandomState(0)
    scenes = sample(rng, np.zeros(n, bool), 1.0, SIDES)
    return [web._caption(rng, 0, "noto", "", "", scenes, i, False, np.zeros(3), side, np.array(place),
                         list(beside)) for i in range(n)]


def share(captions, words):
    """Share of the captions that have one of the words."""
    padded = [f" {caption} ".replace(".", " ") for caption in captions]
    return np.mean([any(f" {word} " in caption for word in words) for caption in padded])


def test_captions_tell_size_place_and_company(web):
    small, middle, near = (described(web, side) for side in (0.3, 0.6, 1.5))
    assert share(small, SMALL) > 0.2 and share(small, LARGE) == share(small, NEAR) == 0
    assert share(middle, (*SMALL, *LARGE, *NEAR)) == 0
    assert share(near, NEAR) > 0.3 and share(near, SMALL) == 0
    corner = described(web, 0.3, (0.8, -0.8))
    assert share(corner, ("in the top right corner", "in the corner")) > 0.1
    assert share(corner, [words for key, words in CORNERS.items() if key != (1, -1)]) == 0
    assert share(described(web, 0.3, (-0.8, 0.0)), ("on the left",)) > 0.1
    assert share(described(web, 0.6, beside=["piano"]), ("and a piano", "with a piano")) > 0.1
    assert share(described(web, 0.6), ("piano", "things")) == 0


def arguments(drawings, work, steps=3):
    return SimpleNamespace(drawings=drawings, work=work, start=None, steps=steps, pairs=4, lr=1e-3, decay=0.3,
                           patch_keep=0.5, seed=0, device="cpu", out=work / "clip.safetensors")


def test_a_run_goes_on_where_it_stopped(drawings, tmp_path):
    mini = mp.benchmark("mini")
    through = pretraining.start(arguments(drawings, tmp_path / "a"), mini)
    for step in range(3):
        through.step(step, pretraining.learning_rate(step, 3, 1e-3))
    first = pretraining.start(arguments(drawings, tmp_path / "b"), mini)
    first.step(0, pretraining.learning_rate(0, 3, 1e-3))
    first.save(1)
    second = pretraining.start(arguments(drawings, tmp_path / "b"), mini)
    assert second.resume() == 1
    for step in (1, 2):
        second.step(step, pretraining.learning_rate(step, 3, 1e-3))
    for name, value in through.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name]), name
    other = pretraining.start(arguments(drawings, tmp_path / "b", steps=4), mini)
    with pytest.raises(ValueError, match="--steps 4.*was begun with 3"):
        other.resume()
    second.export()
    assert float(mp.load_clip("mini", weights=tmp_path / "b/clip.safetensors").logit_scale) == pytest.approx(
        pretraining.FINAL_SCALE, rel=1e-6)                                    # stored in float32


def test_rates_and_scales_follow_their_schedules():
    rate = [pretraining.learning_rate(step, 1000, 2.0) for step in range(1001)]
    assert rate[0] == pytest.approx(0.02) and max(rate) < 2 and rate[1000] == pytest.approx(0, abs=1e-12)
    assert rate[500] == pytest.approx(1.0)
    scale = [pretraining.logit_scale(step, 1000, 15.0) for step in (0, 200, 400, 1000)]
    assert scale == pytest.approx([15, 30, 60, 60])    # at 200 half of the way, in logarithms


def test_rescaling_leaves_the_function_as_it_is():
    """LayerNorms divide by the spread that the factors multiply. What they do not undo is their epsilon of
    1e-5 beside a smaller variance: a relative change of 1e-5 / 2 / variance at each of them."""
    model = pretraining.new_model({**pretraining.CONFIG, "seed": 3}).double().eval()
    with torch.no_grad():                                               # streams as wide as the trained ones
        for tower in (model.transformer, model.visual.transformer):
            for block in tower.resblocks:
                for w in (block.attn.out_proj.weight, block.mlp.c_proj.weight):
                    w.mul_(60)
        model.token_embedding.weight.mul_(60)
        model.visual.ln_pre.weight.mul_(20)
    pictures = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)).double()
    tokens = pretraining.get_tokenizer("ViT-B-16")(["a photo of a cat", "a dog"])

    def features():
        with torch.no_grad():
            return torch.cat([model.encode_image(pictures), model.encode_text(tokens)])

    before, std = features(), model.token_embedding.weight.std()
    pretraining.rescaled(model)
    assert float((model.token_embedding.weight.std() / std).detach()) == pytest.approx(0.04, rel=1e-9)
    after = features()
    assert float((after - before).norm() / before.norm()) < 5e-3
    assert not torch.equal(after, before)
