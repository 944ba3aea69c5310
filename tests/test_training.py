"""The training loop: schedule, few-shot rule, views, and that a killed run goes on bit for bit."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import U

from minipsync import training
from minipsync.data.few_shot import few_shot
from minipsync.methods import build
from minipsync.training import TrainConfig, TrainingImages, batches, learning_rate, training_view

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}


class Toy:
    """Noisy squares of four colours: PIL images of two sizes and labels."""

    name, class_names = "toy", list(COLOURS)

    def __init__(self, per_class=6):
        self.labels = np.arange(4 * per_class) % 4

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        rng, label = np.random.RandomState(i), int(self.labels[i])
        noise = rng.randint(-30, 30, (36 + 4 * (i % 2), 40, 3))
        pixels = np.array(list(COLOURS.values())[label]) + noise
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), label


def toy_method(clip, **settings):
    return build("coop", clip, Toy.class_names, n_ctx=2, class_specific=True, **settings)


FAST = {"epochs": 3, "batch_size": 5, "lr": 0.5, "shots": 4, "progress": False}


# ---- the parts ----
@pytest.mark.parametrize("lr, epochs, rates", [           # METHODS 4
    (0.0035, 5, [1e-5, 0.0035, 0.0031658, 0.0022908, 0.0012092]), (0.0026, 2, [1e-5, 0.0026])])
def test_schedule(lr, epochs, rates):
    config = TrainConfig(epochs=epochs, lr=lr)
    assert [learning_rate(e, config) for e in range(epochs)] == pytest.approx(rates, abs=5e-8)


def test_schedule_ends_as_published():
    assert learning_rate(9, TrainConfig(epochs=10, lr=0.002)) == pytest.approx(0.00019098, abs=5e-9)


def test_few_shot_is_dassls_rule():
    labels = [3, 1, 3, 3, 1, 0, 3, 1, 3]
    random.seed(2)                                        # as the official code: one stream, in order
    expected = random.sample([0, 2, 3, 6, 8], 3) + random.sample([1, 4, 7], 3) + [5]
    assert few_shot(labels, 3, 2) == expected
    assert sorted(few_shot(labels, None, 2)) == list(range(9))
    assert few_shot(np.array(labels), 3, 1) != expected


def test_short_last_batch_is_dropped_unless_it_is_all():
    config = TrainConfig(batch_size=4)
    assert [len(b) for b in batches(list(range(10)), 0, config)] == [4, 4]
    assert [len(b) for b in batches(list(range(3)), 0, config)] == [3]
    assert batches(list(range(10)), 0, config) == batches(list(range(10)), 0, config)
    assert batches(list(range(10)), 0, config) != batches(list(range(10)), 1, config)
    seen = [i for e in range(40) for b in batches(list(range(10)), e, config) for i in b]
    assert set(seen) == set(range(10))


def test_training_view_draws_what_torchvision_draws():
    """Area and flips over many draws; a strip too narrow for any ratio takes the central box."""
    ramp = np.zeros((60, 80, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(80) * 3, np.arange(60)[:, None] * 4
    areas, flips, config = [], [], TrainConfig()
    for i in range(400):
        x = np.asarray(training_view(Image.fromarray(ramp), 16, config, random.Random(i))).astype(float)
        assert x.shape == (16, 16, 3)
        across = (x[:, -1, 0] - x[:, 0, 0]).mean() / 3 * 16 / 15
        down = (x[-1, :, 1] - x[0, :, 1]).mean() / 4 * 16 / 15
        areas.append(abs(across) * down / 4800)
        flips.append(across < 0)
    assert 0.4 < np.mean(flips) < 0.6
    assert min(areas) < 0.15 and max(areas) > 0.8 and 0.4 < np.mean(areas) < 0.6      # U(.08, 1)
    strip = np.zeros((4, 200, 3), np.uint8)
    strip[:, 99] = 255                                    # the central box is columns 97 to 101
    plain = TrainConfig(flip=0.0, crop=(0.9, 1.0))
    x = np.asarray(training_view(Image.fromarray(strip), 10, plain, random.Random(0)))
    assert x[:, 0].max() == 0 and x[:, -1].max() == 0 and x[5, 5].max() > 200


def test_images_are_the_same_with_and_without_cache():
    keys = [(e, i) for e in range(2) for i in range(5)]
    cached, plain = (TrainingImages(Toy(), 32, TrainConfig(cache_mb=mb)) for mb in (10, 0))
    for key in keys + keys:
        a, b = cached[key], plain[key]
        assert torch.equal(a[0], b[0]) and a[1] == b[1] and a[0].shape == (3, 32, 32)
    assert len(cached.cache) == 5 and not plain.cache
    assert not torch.equal(cached[0, 1][0], cached[1, 1][0])


# ---- the whole ----
@pytest.mark.parametrize("name, settings, lr", [
    ("coop", {"n_ctx": 2, "class_specific": True}, 0.01), ("maple", {}, 0.01)])
def test_fit_lowers_loss_and_raises_accuracy(tiny_clip, name, settings, lr):
    data, method = Toy(), build(name, tiny_clip, Toy.class_names, **settings)
    images, labels = [data[i][0] for i in range(len(data))], torch.tensor(data.labels)

    def accuracy():
        return (method.predict(images).argmax(1) == labels).float().mean().item()

    before = accuracy()
    method.fit(data, epochs=6, batch_size=8, lr=lr, progress=False)
    losses = [h["loss"] for h in method.history]
    assert [h["epoch"] for h in method.history] == list(range(6)) and method.trained_on == "toy"
    assert losses[-1] < 0.75 * losses[0]
    assert accuracy() >= max(0.9, before + 0.2)


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_at, save_every", [(5, 0.0), (7, 0.0), (2, 1000.0)])
def test_resume_equals_unbroken(tiny_clip, tmp_path, killed_at, save_every, monkeypatch):
    """3 steps an epoch: killed in the middle of epochs 1 and 2, and before anything was written."""
    whole = toy_method(tiny_clip).fit(Toy(), **FAST)
    method, path = toy_method(tiny_clip), tmp_path / "run.safetensors"
    steps, loss = [], method.loss

    def dying_loss(images, labels):
        steps.append(1)
        if len(steps) > killed_at:
            raise Killed
        return loss(images, labels)

    monkeypatch.setattr(method, "loss", dying_loss)
    with pytest.raises(Killed):
        method.fit(Toy(), checkpoint=path, save_every=save_every, **FAST)
    again = toy_method(tiny_clip)
    again.learner.ctx.data += 1                           # the file decides, or the start if there is none
    if save_every:
        assert not path.exists()
        again.learner.ctx.data.copy_(toy_method(tiny_clip).learner.ctx)
    again.fit(Toy(), checkpoint=path, **FAST)
    assert torch.equal(again.learner.ctx, whole.learner.ctx)
    assert [h["loss"] for h in again.history] == [h["loss"] for h in whole.history]
    assert [f.name for f in tmp_path.iterdir()] == ["run.safetensors"]                 # no partial files left
    finished = toy_method(tiny_clip)
    monkeypatch.setattr(finished, "loss", None)           # nothing is left to do
    assert torch.equal(finished.fit(Toy(), checkpoint=path, **FAST).learner.ctx, whole.learner.ctx)


def test_worker_processes_change_nothing(tiny_clip):
    one = toy_method(tiny_clip).fit(Toy(), **FAST | {"epochs": 2})
    two = toy_method(tiny_clip).fit(Toy(), workers=2, **FAST | {"epochs": 2})
    assert torch.equal(one.learner.ctx, two.learner.ctx)


def test_checkpoint_of_another_run_or_no_checkpoint(tiny_clip, tmp_path):
    path = tmp_path / "run.safetensors"
    toy_method(tiny_clip).fit(Toy(), checkpoint=path, **FAST | {"epochs": 2})
    with pytest.raises(ValueError, match="another run: lr was 0.5, is 0.25"):
        toy_method(tiny_clip).fit(Toy(), checkpoint=path, **FAST | {"epochs": 2, "lr": 0.25})
    other = Toy()
    other.image_id = lambda i: f"another picture {i}"                 # as many, with the same labels
    with pytest.raises(ValueError, match="another run: data was .*; images was"):
        toy_method(tiny_clip).fit(other, checkpoint=path, **FAST | {"epochs": 2})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="not a training checkpoint"):
        toy_method(tiny_clip).fit(Toy(), checkpoint=path, **FAST | {"epochs": 2})


class Plain:
    """What `training.fit` asks of a CLIP."""

    image_size, device, fingerprint, precision = 8, torch.device("cpu"), "0", "fp32"

    def normalize(self, x):
        return x


def test_gradient_that_is_not_finite_keeps_the_parameters():
    p = torch.nn.Parameter(torch.zeros(2))                # sqrt has no slope at 0, and the loss is finite
    with pytest.raises(FloatingPointError, match="loss is 1.0, its gradient not finite at epoch 0, step 0"):
        training.fit([p], lambda images, labels: p.abs().sqrt().sum() + 1, Toy(),
                     TrainConfig(epochs=2, batch_size=8, lr=0.1), Plain(), progress=False)
    assert p.tolist() == [0, 0]


def test_loss_that_is_not_finite_names_the_step_and_keeps_the_parameters():
    p = torch.nn.Parameter(torch.ones(2))
    seen = []

    def loss(images, labels):
        seen.append(p.detach().clone())
        return p.sum() * (math.inf if len(seen) == 5 else 1.0)

    with pytest.raises(FloatingPointError, match=r"inf at epoch 1, step 1, lr 0.1; use a smaller lr"):
        training.fit([p], loss, Toy(), TrainConfig(epochs=3, batch_size=8, lr=0.1), Plain(), progress=False)
    assert torch.equal(p.detach(), seen[-1])


def test_update_is_sgd_with_coupled_decay():
    """Two steps by hand: v = 0.9 v + (g + wd p), p = p - lr v."""
    p, q, v = torch.nn.Parameter(torch.tensor(2.0)), 2.0, 0.0
    config = TrainConfig(epochs=1, warmup_epochs=0, batch_size=4, lr=0.1)
    training.fit([p], lambda x, y: p * p, Toy(2), config, Plain(), progress=False)
    for _ in range(2):
        v = 0.9 * v + (2 * q + 5e-4 * q)
        q = q - 0.1 * v
    assert p.item() == pytest.approx(q, rel=12 * U)                       # twice six operations


def test_bad_settings(tiny_clip):
    method = toy_method(tiny_clip)
    with pytest.raises(ValueError, match="fit: unknown setting .epoch.*mean .epochs.*batch_size"):
        method.fit(Toy(), epoch=3)
    with pytest.raises(ValueError, match="epochs='3'.*expected a whole number"):
        method.fit(Toy(), epochs="3")
    with pytest.raises(ValueError, match="batch_size=0 does not fit; expected a whole number, 1 or more"):
        method.fit(Toy(), batch_size=0)
    with pytest.warns(UserWarning, match="all warm-up"):
        method.fit(Toy(), epochs=1, shots=1, progress=False)
    other = build("coop", tiny_clip, ["cat", "dog"])
    with pytest.raises(ValueError, match="4 classes .red.*method 2 .cat"):
        other.fit(Toy())
