"""What test-time alignment knows of its source: moments (PromptAlign), prototypes and samples (PromptSync).

Moments and prototypes are computed once, offline, with the trained prompts, and belong to one backbone and
one set of prompts: the file says which, and loading it beside others raises.

    SourceStatistics   mean and variance of every vision token, per block       PromptAlign, METHODS 5.8
    Prototypes         one text, vision and CLS vector per source class         PromptSync, METHODS 5.9.2
    SourceSampler      augmented source images of random classes                PromptSync, the A(c) of L_D
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from .text import PackedText, pack_context
from .views import (
    PROMPTSYNC_VIEWS,
    RELATIONS,
    ViewConfig,
    augment_views,
    content_seed,
    make_views,
    text_variants,
    working_copy,
)

FORMAT = "minipsync-statistics-1"
SHIPPED = Path(__file__).resolve().parent / "assets" / "statistics"


def prompts_fingerprint(learner: torch.nn.Module) -> str:
    """16 hex digits that name the learner's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(learner.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


# ---- files -------------------------------------------------------------------------------------------------
@dataclass
class FromSource:
    """Tensors computed on a source data set, with what they belong to.

    class_names: of the source, in label order. clip, prompts: fingerprints. source: name of the data set.
    """

    kind: ClassVar[str]
    tensors: ClassVar[tuple[str, ...]]

    class_names: list[str] = field(default_factory=list, kw_only=True)
    clip: str = field(default="", kw_only=True)
    prompts: str = field(default="", kw_only=True)
    source: str = field(default="", kw_only=True)
    n_images: int = field(default=0, kw_only=True)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file (whole or not at all). Returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.tensors}
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        save_file({name: getattr(self, name).float().cpu().contiguous() for name in self.tensors}, partial,
                  {"format": FORMAT, "kind": self.kind, "facts": json.dumps(facts)})
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path: str | Path, clip=None, learner=None, class_names: Sequence[str] | None = None):
        """Read a file that `save` wrote. `clip`, `learner`, `class_names`: refuse a file made for others.

        FileNotFoundError, or ValueError that says what does not fit and what to do.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; expected a file of source {cls.kind}: compute "
                                    "them with method.prepare(source_set) and save them")
        try:
            with safe_open(path, "pt") as file:
                metadata, tensors = file.metadata() or {}, {k: file.get_tensor(k) for k in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file ({error})") from None
        if metadata.get("format") != FORMAT or metadata.get("kind") != cls.kind:
            kind = metadata.get("kind", "something else")
            raise ValueError(f"{path} holds {kind}, expected source {cls.kind}")
        out = cls(**tensors, **json.loads(metadata["facts"]))
        if reason := out.misfit(clip, learner, class_names):
            raise ValueError(f"{path}: {reason}; compute them again with method.prepare(source_set)")
        return out.to(clip.device) if clip is not None else out

    def misfit(self, clip=None, learner=None, class_names=None) -> str:
        """Why this does not belong to the given backbone, prompts or source classes; empty if it does."""
        if clip is not None and self.clip != clip.fingerprint:
            return f"source {self.kind} of the backbone {self.clip}, this is {clip.fingerprint} ({clip.name})"
        if learner is not None and self.prompts != prompts_fingerprint(learner):
            return (f"source {self.kind} of the prompts {self.prompts}, these are "
                    f"{prompts_fingerprint(learner)}")
        if class_names is not None and list(class_names) != self.class_names:
            return f"source {self.kind} of other classes, {len(self.class_names)}: {self.class_names[0]}, …"
        if not all(getattr(self, name).isfinite().all() for name in self.tensors):
            return f"the source {self.kind} contain NaN or infinity"
        return ""

    def to(self, device):
        """Move the tensors, in place. Returns self."""
        for name in self.tensors:
            setattr(self, name, getattr(self, name).to(device))
        return self

    @classmethod
    def shipped(cls, clip, learner):
        """The file in this package that belongs to these weights and prompts, or None."""
        for path in sorted(SHIPPED.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            if metadata["kind"] == cls.kind:
                facts = json.loads(metadata["facts"])
                if (facts["clip"], facts["prompts"]) == (clip.fingerprint, prompts_fingerprint(learner)):
                    return cls.load(path, clip, learner)
        return None


# ---- PromptAlign -------------------------------------------------------------------------------------------
class RunningMoments:
    """Mean and biased variance over the first axis of everything given to `update`, in one pass and float64.

    Two sets of n and m numbers merge by Chan, Golub & LeVeque (1979): with d = mean_m - mean_n,
    mean = mean_n + d m / (n + m) and M2 = M2_n + M2_m + d^2 n m / (n + m); no large numbers cancel.
    """

    def __init__(self):
        self.n, self.mean, self.m2 = 0, 0.0, 0.0

    def update(self, x: Tensor) -> None:
        """x [m, ...]."""
        x, m = x.double(), len(x)
        mean = x.mean(0)
        delta, total = mean - self.mean, self.n + m
        self.m2 = self.m2 + (x - mean).square().sum(0) + delta.square() * (self.n * m / total)
        self.mean, self.n = self.mean + delta * (m / total), total

    @property
    def variance(self) -> Tensor:
        return self.m2 / self.n


@dataclass
class SourceStatistics(FromSource):
    """PromptAlign's statistics of the input of every vision block, prompts in place, over the source images.

    means, variances: [L, T, W], layer, token position (CLS, patches, prompts), channel. Biased variance.
    """

    kind, tensors = "moments", ("means", "variances")

    means: Tensor
    variances: Tensor

    @classmethod
    @torch.no_grad()
    def collect(cls, clip, learner, dataset, *, layers: int | None = None, batch_size: int = 64,
                progress: bool = True):
        """One pass over `dataset`, test transform, the learner's prompts; memory does not grow with its size.

        The authors take two passes, means first (their issue 5), over ImageNet's training set; the result is
        the same. layers: how many blocks, from the first; None = all.
        """
        if not len(dataset):
            raise ValueError("the source set is empty; expected a data set with at least one image")
        blocks = range(clip.vision_layers if layers is None else layers)
        prompts, moments = learner().vision, [RunningMoments() for _ in blocks]
        starts = range(0, len(dataset), batch_size)
        for start in tqdm(starts, desc="source statistics", unit="batch", disable=not progress):
            images = [dataset[i][0] for i in range(start, min(start + batch_size, len(dataset)))]
            _, inputs = clip.encode_image(clip.preprocess(images), prompts, trace=tuple(blocks))
            for k, running in zip(blocks, moments, strict=True):
                running.update(inputs[k])                                            # [N, T, W]
        return cls(torch.stack([m.mean for m in moments]).float(),
                   torch.stack([m.variance for m in moments]).float(), **origin(clip, learner, dataset))


def origin(clip, learner, dataset) -> dict:
    """The facts that a file carries about where its tensors come from."""
    return {"class_names": list(dataset.class_names), "clip": clip.fingerprint, "n_images": len(dataset),
            "prompts": prompts_fingerprint(learner), "source": getattr(dataset, "name", "")}


# ---- PromptSync --------------------------------------------------------------------------------------------
def image_prototypes(clip, images: Tensor, prompts: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """(features, h) of images [..., 3, S, S], each [..., D] and of unit length.

    h["vision"]: mean over patch and prompt tokens (not CLS) of the last block through ln_post and the
    projection. h["cls"]: the same of CLS, which is the feature.
    """
    features, kept = clip.encode_image(images, prompts, trace=("tokens",))
    return features, {"vision": F.normalize(kept["tokens"].mean(-2), dim=-1), "cls": features}


def text_prototypes(clip, packed: PackedText, prompts: Tensor | None) -> tuple[Tensor, Tensor]:
    """(features, h) of C texts, each [B?, C, D] and of unit length.

    h: mean over the tokens between SOS and EOT (context, class name, full stop; no pads) of the last block
    through ln_final and the projection.
    """
    features, kept = clip.encode_text(packed, prompts, trace=("tokens",))
    return features, F.normalize(kept["tokens"].sum(-2), dim=-1)                       # 0 at pads: sum ~ mean


def variant_prototypes(clip, learner, prompts: Tensor, names: list[list[list[str]]]) -> tuple[Tensor, Tensor]:
    """h [B, K, V, D] and weights [B, K, V] of names[b][k], the text variants of K classes of episode b.

    prompts [B, L, n, W]. Episodes have different texts, so all are packed into one list in which every text
    has slots of its own, filled with its episode's prompts. Classes with fewer than V variants are padded:
    weight 0.
    """
    flat = [(b, k, v, text) for b, classes in enumerate(names) for k, texts in enumerate(classes)
            for v, text in enumerate(texts)]
    b, k, v = torch.tensor([row[:3] for row in flat], device=prompts.device).T
    packed = pack_context([row[3] for row in flat], learner.n_ctx, tail=learner.tail, class_specific=True,
                          context_length=clip.context_length)
    slots = prompts[b].transpose(0, 1).flatten(1, 2)                                   # [L, texts * n, W]
    _, h = text_prototypes(clip, packed, slots)                                        # [texts, D]
    n_variants = max(len(texts) for classes in names for texts in classes)
    shape = (len(names), len(names[0]), n_variants)
    used = h.new_zeros(shape).index_put((b, k, v), h.new_ones(len(flat)))
    return h.new_zeros(*shape, h.shape[-1]).index_put((b, k, v), h), used / used.sum(-1, keepdim=True)


@dataclass
class Prototypes(FromSource):
    """PromptSync's class prototypes p_c = mean of h_x over the samples x of class c, frozen.

    text, vision, cls: [C, D], means of unit vectors, so no longer than 1. variants: the texts of every class.
    """

    kind, tensors = "prototypes", ("text", "vision", "cls")

    text: Tensor
    vision: Tensor
    cls: Tensor
    variants: list[list[str]] = field(default_factory=list, kw_only=True)
    n_views: int = field(default=0, kw_only=True)

    @classmethod
    @torch.no_grad()
    def collect(cls, clip, learner, dataset, *, n_views: int = 4, view_config: ViewConfig = PROMPTSYNC_VIEWS,
                relations: Sequence[str] = tuple(RELATIONS), n_variants: int = 4, seed: int = 0,
                batch_size: int = 128, progress: bool = True):
        """One pass over `dataset`: every image and n_views augmentations of it, every class's text variants.

        ValueError for a class without an image.
        """
        n_classes, prompts = len(dataset.class_names), learner()
        counts = np.bincount(np.asarray(dataset.labels), minlength=n_classes)
        if (counts == 0).any():
            missing = dataset.class_names[int(np.argmin(counts))]
            raise ValueError(f"the source set has no image of {missing!r}; every source class needs one: use "
                             "dataset.of_classes(...) or a set with all classes")
        sums = {part: torch.zeros(n_classes, clip.embed_dim, device=clip.device)
                for part in ("vision", "cls")}
        group = max(1, batch_size // (1 + n_views))                                  # images per encoder call
        with tqdm(total=len(dataset), desc="prototypes", unit="image", disable=not progress) as bar:
            for start in range(0, len(dataset), group):
                items = [dataset[i] for i in range(start, min(start + group, len(dataset)))]
                views = torch.cat([make_views(image, 1 + n_views, clip, view_config,
                                              seed=content_seed(image, seed)) for image, _ in items])
                labels = torch.tensor([label for _, label in items], device=clip.device)
                _, h = image_prototypes(clip, views, prompts.vision)                 # [N * (1 + n_views), D]
                for part, total in sums.items():
                    total.index_add_(0, labels.repeat_interleave(1 + n_views), h[part])
                bar.update(len(items))
        means = {part: total / torch.as_tensor(counts * (1 + n_views), device=clip.device)[:, None]
                 for part, total in sums.items()}
        variants = fitting(text_variants(dataset.class_names, relations, n_variants), learner)
        h, weights = variant_prototypes(clip, learner, prompts.text[None], [variants])
        text = (h * weights[..., None]).sum(2)[0]                                      # [C, D]
        return cls(text, means["vision"], means["cls"], variants=variants, n_views=n_views,
                   **origin(clip, learner, dataset))


def fitting(variants: list[list[str]], learner) -> list[list[str]]:
    """The variants short enough for the context; a class name itself that is too long raises (see
    pack_context)."""
    def fits(name):
        try:
            return bool(learner.packing([name]))
        except ValueError:
            return False

    return [[names[0], *filter(fits, names[1:])] for names in variants]


class SourceSampler:
    """Draws the source batch of L_D: K random classes, of each one random image, of that A augmented views.

    Images are read when drawn and kept as bytes, up to cache_mb. A draw depends on its seed alone.
    """

    def __init__(self, dataset, clip, view_config: ViewConfig = PROMPTSYNC_VIEWS, cache_mb: int = 512):
        self.dataset, self.clip, self.view_config, self.room = dataset, clip, view_config, cache_mb * 2**20
        labels = np.asarray(dataset.labels)
        self.by_class = [np.flatnonzero(labels == c) for c in range(len(dataset.class_names))]
        self.cache: dict[int, Tensor] = {}

    def draw(self, seed: int, n_classes: int, n_views: int) -> tuple[Tensor, Tensor]:
        """Labels [K] and model input [K, A, 3, S, S]. n_classes: 0 = all."""
        generator = torch.Generator().manual_seed(seed)
        classes = torch.randperm(len(self.by_class), generator=generator)[:n_classes or None]
        views = []
        for c in classes.tolist():
            rows = self.by_class[c]
            row = int(rows[int(torch.randint(len(rows), (), generator=generator))])
            views.append(augment_views(self.image(row), n_views, self.clip.image_size, self.view_config,
                                       generator))
        return classes.to(self.clip.device), self.clip.normalize(torch.stack(views))

    def image(self, row: int) -> Tensor:
        """Source image as floats [3, H, W] in [0, 1] on the clip's device."""
        x = self.cache.get(row)
        if x is None:
            x = working_copy(self.dataset[row][0], self.clip.image_size, self.view_config)
            if x.numel() <= self.room:
                self.room -= x.numel()
                self.cache[row] = x
        return x.to(self.clip.device).float() / 255
