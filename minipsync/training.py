"""Few-shot training of prompts: Dassl's engine (METHODS 4) as one loop that knows no method.

Everything random is a function of (seed, epoch, index), so a run that was killed goes on bit for bit.
"""

import hashlib
import itertools
import json
import math
import pickle
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as TF
from tqdm.auto import tqdm

from .clip.encoders import Clip
from .data.few_shot import few_shot_images
from .data.pixels import to_rgb
from .files.paths import check_writable, expand
from .files.tensors import first_line, read_tensors, write_tensors
from .settings import Probability, Settings, in_order, require


class TrainConfig(Settings, title="fit"):
    """How prompts are trained. The papers share all but epochs, batch_size and lr (CoOp's Dassl configs)."""

    epochs: PositiveInt = 50
    """passes over the training images; CoOp on ImageNet 50 (elsewhere 200), CoCoOp 10, MaPLe 5 or 2"""
    batch_size: PositiveInt = 32
    """images per step; CoOp 32, CoCoOp 1, MaPLe 4"""
    lr: PositiveFloat = 0.002
    """rate of SGD after the warm-up; CoOp and CoCoOp 0.002, MaPLe 0.0035 or 0.0026"""
    warmup_epochs: NonNegativeInt = 1
    """epochs at the constant rate warmup_lr; one in all configs"""
    warmup_lr: NonNegativeFloat = 1e-5
    """rate during the warm-up"""
    momentum: NonNegativeFloat = 0.9
    """momentum of SGD, without Nesterov or dampening"""
    weight_decay: NonNegativeFloat = 5e-4
    """this share of the prompts is added to their gradient"""
    shots: PositiveInt | None = 16
    """training images per class, None for all; 16 in every table used here"""
    seed: int = 1
    """seed of the few-shot choice, the crops and the order; the papers average 1, 2 and 3"""
    crop: Annotated[tuple[float, float], in_order(1)] = (0.08, 1.0)
    """smallest and largest share of the image's area in a random crop, resized bicubically"""
    ratio: Annotated[tuple[float, float], in_order()] = (3 / 4, 4 / 3)
    """smallest and largest width / height of a random crop"""
    flip: Probability = 0.5
    """probability of a horizontal flip"""
    workers: NonNegativeInt = 0
    """processes that read images; 0: this one, with a cache"""
    cache_mb: NonNegativeInt = 2048
    """MiB of decoded images to keep in memory"""
    save_every: NonNegativeFloat = 10.0
    """seconds between checkpoints"""


def learning_rate(epoch: int, config: TrainConfig) -> float:
    """Rate of epoch 0, 1, …: a constant warm-up, then lr * (1 + cos(pi * (epoch - warmup) / epochs)) / 2."""
    if epoch < config.warmup_epochs:
        return config.warmup_lr
    return config.lr * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / config.epochs)) / 2


def batches(indices: list[int], epoch: int, config: TrainConfig) -> list[list[int]]:
    """The batches of one epoch: a seeded permutation; a short last batch is dropped unless it is all."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = [indices[i] for i in torch.randperm(len(indices), generator=generator).tolist()]
    size = min(config.batch_size, len(order))
    return [order[s:s + size] for s in range(0, len(order) - size + 1, size)]


def training_view(image: Image.Image, size: int, config: TrainConfig, rng: random.Random) -> Image.Image:
    """Crop a random part, resize it to [size, size] and perhaps flip it; every draw comes from `rng`."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*config.crop)
        ratio = math.exp(rng.uniform(math.log(config.ratio[0]), math.log(config.ratio[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            break
    else:                                     # as torchvision: the largest central box of a legal ratio
        ratio = min(max(width / height, config.ratio[0]), config.ratio[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        left, top = (width - w) // 2, (height - h) // 2
    image = TF.resized_crop(image, top, left, h, w, [size, size], TF.InterpolationMode.BICUBIC)
    return TF.horizontal_flip(image) if rng.random() < config.flip else image


class TrainingImages(torch.utils.data.Dataset):
    """Item (epoch, index) -> (float [3,S,S] in [0,1], label), the same for the same seed, epoch and index."""

    def __init__(self, source: Any, size: int, config: TrainConfig):
        self.source, self.size, self.config = source, size, config
        self.cache: dict[int, tuple[Image.Image, int]] = {}
        self.room = config.cache_mb * 2**20 // max(1, config.workers)     # bytes left

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        image, label = self.cache[index] if index in self.cache else self._read(index)
        rng = random.Random(f"{self.config.seed} {epoch} {index}")
        view = training_view(image, self.size, self.config, rng)
        return TF.to_dtype(TF.pil_to_tensor(view), torch.float32, scale=True), label

    def _read(self, index: int) -> tuple[Image.Image, int]:
        try:
            image, label = self.source[index]
            image, label = to_rgb(image), int(label)
        except (OSError, ValueError) as error:  # left out silently, other shots than the paper's would train
            raise ValueError(f"image {self.source.image_id(index)} of {self.source.name} cannot be read "
                             f"({error}); get it again, or leave it out with dataset.subset(…)") from error
        cost = 3 * image.width * image.height
        if cost <= self.room:
            self.room -= cost
            self.cache[index] = (image, label)
        return image, label


def fit(parameters: Iterable[Tensor], loss_fn: Callable[[Tensor, Tensor], Tensor], train_set: Any,
        config: TrainConfig, clip: Clip, *, checkpoint: str | Path | None = None, progress: bool = True,
        name: str = "training", about: dict | None = None) -> list[dict]:
    """Minimise `loss_fn(images [B,3,S,S], labels [B]) -> scalar` over `parameters` in place.

    train_set: has `labels` and gives (PIL image, label). checkpoint: a file, written whole every
    `config.save_every` seconds; if it is there, training goes on from it. about: what else makes this run
    this one, name -> value: a checkpoint with another is refused. `loss_fn` must not draw random numbers.
    Returns one dict per epoch: epoch, lr, loss (mean), seconds. A loss or gradient that is not finite raises
    FloatingPointError before it reaches the parameters; the checkpoint keeps the last good state.
    """
    parameters = [p for p in parameters if p.requires_grad]
    indices = few_shot_images(train_set, config.shots, config.seed)
    require(len(indices) > 0, name, "train_set", train_set, "at least one image")
    if config.epochs <= config.warmup_epochs:
        warnings.warn(f"{name}: epochs={config.epochs} is all warm-up at lr {config.warmup_lr}, which learns "
                      "hardly anything; use more epochs or warmup_epochs=0", stacklevel=3)
    optimizer = torch.optim.SGD(parameters, config.lr, config.momentum, weight_decay=config.weight_decay)
    ids = [train_set.image_id(i) if hasattr(train_set, "image_id") else i for i in indices]
    run = _Run(parameters, optimizer, _identity(config, ids, parameters, clip, about or {}), checkpoint)
    per_epoch = len(batches(indices, 0, config))
    plan = ([(e, i) for i in batch] for e in range(config.epochs) for batch in batches(indices, e, config))
    loader = DataLoader(TrainingImages(train_set, clip.image_size, config), num_workers=config.workers,
                        batch_sampler=itertools.islice(plan, run.step, None), generator=torch.Generator())
    bar = tqdm(desc=name, total=config.epochs * per_epoch, initial=run.step, disable=not progress)
    for images, labels in _loaded(loader, name):
        start, epoch = time.perf_counter(), run.step // per_epoch
        lr = learning_rate(epoch, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss = loss_fn(clip.normalize(images.to(clip.device)), labels.to(clip.device))
        value = loss.item()
        wrong = "" if math.isfinite(value) else f"the loss is {value}"
        if not wrong:
            loss.backward()
            finite = [p.grad.isfinite().all() for p in parameters if p.grad is not None]
            if finite and not torch.stack(finite).all():                   # together: one wait for a GPU
                wrong = f"the loss is {value}, its gradient not finite"
        if wrong:
            raise FloatingPointError(f"{name}: {wrong} at epoch {epoch}, step {run.step % per_epoch}, lr "
                                     f"{lr:g}; use a smaller lr than {config.lr:g} or precision='fp32'")
        optimizer.step()
        run.advance(epoch, lr, value, time.perf_counter() - start, per_epoch, config.save_every)
        bar.update()
        bar.set_postfix(epoch=epoch, lr=f"{lr:.2g}", loss=f"{value:.3f}")
    bar.close()
    run.write()
    return run.history


def _loaded(loader: DataLoader, name: str) -> Iterator:
    """The batches of `loader`. Errors of the processes that read images say what happened and what to do."""
    try:
        found = iter(loader)                       # starts the processes
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"{name}: the training set cannot be sent to {loader.num_workers} processes "
                        f"({first_line(error)}); read its pictures by a function or class of a module, not "
                        "by a lambda or a local function, or use workers=0") from error
    try:
        yield from found
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise RuntimeError(f"{name}: a process that reads images has ended ({first_line(error)}). A script "
                           "must call fit below `if __name__ == '__main__':`, and what reads the pictures "
                           "must be in a module, not in a notebook; or use workers=0") from error
    except ValueError as error:
        if "Original Traceback" not in str(error):
            raise
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


class _Run:
    """Where a training run stands, and its file."""

    def __init__(self, parameters: list[Tensor], optimizer: torch.optim.Optimizer, identity: dict,
                 path: str | Path | None):
        self.parameters, self.optimizer, self.identity = parameters, optimizer, identity
        self.path = expand(path) if path is not None else None
        self.step, self.written = 0, time.monotonic()
        self.history: list[dict] = []
        if self.path is not None:
            check_writable(self.path)
            if self.path.exists():
                self._read(self.path)

    def advance(self, epoch: int, lr: float, loss: float, seconds: float, per_epoch: int,
                save_every: float) -> None:
        """Count a step, and write the file if `save_every` seconds have gone by."""
        if self.step % per_epoch == 0:
            self.history.append({"epoch": epoch, "lr": lr, "loss": 0.0, "seconds": 0.0})
        self.history[-1]["loss"] += loss / per_epoch
        self.history[-1]["seconds"] += seconds
        self.step += 1
        if time.monotonic() - self.written >= save_every:
            self.write()

    def write(self) -> None:
        """Write the file whole or not at all."""
        if self.path is None:
            return
        tensors = {f"parameter.{i}": p for i, p in enumerate(self.parameters)}
        for i, p in enumerate(self.parameters):
            buffer = self.optimizer.state.get(p, {}).get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{i}"] = buffer
        write_tensors(self.path, tensors, {"step": str(self.step), "history": json.dumps(self.history),
                                           "identity": json.dumps(self.identity)})
        self.written = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            tensors, metadata = read_tensors(path)
            identity = json.loads(metadata["identity"])
        except (ValueError, KeyError) as error:
            raise ValueError(f"{self.path} is not a training checkpoint ({error}); remove it or name another "
                             "file") from None
        differing = [k for k in self.identity if identity.get(k) != self.identity[k]]
        if differing:
            raise ValueError(f"{self.path} belongs to another run: " + "; ".join(
                f"{k} was {identity.get(k)}, is {self.identity[k]}" for k in differing) +
                "; remove it or name another file")
        self.step, self.history = int(metadata["step"]), json.loads(metadata["history"])
        with torch.no_grad():
            for i, p in enumerate(self.parameters):
                p.copy_(tensors[f"parameter.{i}"])
                if f"momentum.{i}" in tensors:
                    self.optimizer.state[p]["momentum_buffer"] = tensors[f"momentum.{i}"].to(p.device)


def _identity(config: TrainConfig, ids: list, parameters: list[Tensor], clip: Clip, about: dict) -> dict:
    """What must be equal for one run to go on with another's file (not where or how often it is saved)."""
    free = ("workers", "cache_mb", "save_every")
    settings = {k: v for k, v in config.model_dump().items() if k not in free}
    own = {name: hashlib.sha256(repr(value).encode()).hexdigest()[:16]
           for name, value in {**about, "images": ids}.items()}
    return json.loads(json.dumps(settings)) | own | {
        "backbone": clip.fingerprint,
        "precision": clip.precision, "shapes": [list(p.shape) for p in parameters]}
