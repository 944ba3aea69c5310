"""What PromptAlign knows of the source: mean and variance of every vision token, per block (METHODS 5.8).

They are computed once, offline, with the trained prompts, and belong to one backbone and one set of prompts:
the file says which, and loading it beside others raises. PromptSync's prototypes (prototypes.py) do the same.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ..data.content import of_dataset
from ..files.paths import expand
from ..files.tensors import read_metadata, read_tensors, write_tensors
from .one_pass import one_pass

FORMAT = "minipsync-statistics-1"
SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "statistics"


def prompts_fingerprint(learner: torch.nn.Module) -> str:
    """16 hex digits that name the learner's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(learner.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


# ---- files ----
@dataclass
class FromSource:
    """Tensors computed on a source data set, with what they belong to.

    class_names: of the source, in label order. clip, prompts: fingerprints. source: name of the data set;
    content: fingerprint of its pictures, "" where that was not noted.
    """

    kind: ClassVar[str]
    tensors: ClassVar[tuple[str, ...]]

    class_names: list[str] = field(default_factory=list, kw_only=True)
    clip: str = field(default="", kw_only=True)
    prompts: str = field(default="", kw_only=True)
    source: str = field(default="", kw_only=True)
    content: str = field(default="", kw_only=True)
    n_images: int = field(default=0, kw_only=True)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file (whole or not at all). Returns the path."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.tensors}
        return write_tensors(path, {name: getattr(self, name).float() for name in self.tensors},
                             {"format": FORMAT, "kind": self.kind, "facts": json.dumps(facts)})

    def keep(self, folder: str | Path) -> Path:
        """`save` to `folder`, under a name of its own. Returns the path."""
        recipe = json.dumps(getattr(self, "recipe", ""), sort_keys=True)
        key = hashlib.sha256(f"{self.clip} {self.prompts} {recipe} {self.content}".encode()).hexdigest()[:10]
        name = re.sub(r"[^\w.-]+", "_", self.source)
        return self.save(expand(folder) / f"{self.kind}_{name}_{key}.safetensors")

    @classmethod
    def load(cls, path: str | Path, clip=None, learner=None, class_names: Sequence[str] | None = None):
        """Read a file that `save` wrote. `clip`, `learner`, `class_names`: refuse a file made for others.

        FileNotFoundError, or ValueError that says what does not fit and what to do.
        """
        tensors, metadata = read_tensors(path, f"a file of source {cls.kind}: compute them with "
                                               "method.prepare(source_set) and save them")
        if metadata.get("format") != FORMAT or metadata.get("kind") != cls.kind:
            kind = metadata.get("kind", "something else")
            raise ValueError(f"{path} holds {kind}, expected source {cls.kind}: compute them with "
                             "method.prepare(source_set) and save them")
        if set(tensors) != set(cls.tensors):
            raise ValueError(f"{path} holds {', '.join(sorted(tensors)) or 'no tensors'}, expected the "
                             f"{cls.kind} {', '.join(cls.tensors)}; the file is damaged or not ours")
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
        """A copy with its tensors on `device`; another method may have the same object."""
        return replace(self, **{name: getattr(self, name).to(device) for name in self.tensors})

    @classmethod
    def find(cls, clip, learner, folder: str | Path | None = None, **wanted):
        """The file in `folder`, else in this package, that belongs to these weights and prompts, or None.

        wanted: facts that it must have, as source="imagenet": the same prompts have other statistics on
        other data. A content of "" is not known, and fits any."""
        folders = [SHIPPED] if folder is None else [expand(folder), SHIPPED]
        for path in (path for each in folders for path in sorted(each.glob("*.safetensors"))):
            try:
                metadata = read_metadata(path)
            except ValueError:
                continue                                       # damaged: `load` would say so, if it is named
            if (metadata.get("format"), metadata.get("kind")) == (FORMAT, cls.kind):
                facts = json.loads(metadata["facts"])
                mine = {"clip": clip.fingerprint, "prompts": prompts_fingerprint(learner), **wanted}
                if all(facts.get(name) == value or name == "content" and not (value and facts.get(name))
                       for name, value in mine.items()):
                    return cls.load(path, clip, learner)
        return None


# ---- token moments ----
class RunningMoments:
    """Mean and biased variance over the first axis of everything given to `update`, in one pass and float64.

    Two sets of n and m numbers merge by Chan, Golub & LeVeque (1979): with d = mean_m - mean_n,
    mean = mean_n + d m / (n + m) and M2 = M2_n + M2_m + d^2 n m / (n + m); no large numbers cancel.
    """

    def __init__(self, n=0, mean=0.0, m2=0.0):
        self.n, self.mean, self.m2 = int(n), mean, m2

    def update(self, x: Tensor) -> None:
        """x [m, ...]."""
        mean = x.double().mean(0)
        self.merge(len(x), mean, (x.double() - mean).square().sum(0))

    def merge(self, m: int, mean: Tensor, m2: Tensor) -> None:
        """m more numbers of which only the mean and M2 = sum (x - mean)^2 are known."""
        delta, total = mean - self.mean, self.n + m
        self.m2 = self.m2 + m2 + delta.square() * (self.n * m / total)
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
                checkpoint: str | Path | None = None, progress: bool = True):
        """One pass over `dataset`, test transform, the learner's prompts; memory does not grow with its size.

        The authors take two passes, means first (their issue 5), over ImageNet's training set; the result is
        the same. layers: how many blocks, from the first; None = all. checkpoint, errors: see `one_pass`.
        """
        if not len(dataset):
            raise ValueError("the source set is empty; expected a data set with at least one image")
        blocks = range(clip.vision_layers if layers is None else layers)
        prompts, facts = learner().vision, origin(clip, learner, dataset)

        def add(state, items):
            images = clip.preprocess([image for image, _ in items])
            _, inputs = clip.encode_image(images, prompts, trace=tuple(blocks))
            for k in blocks:
                moments = RunningMoments(*(state.get(f"{k}.{part}", 0.0) for part in ("n", "mean", "m2")))
                moments.update(inputs[k])                                            # [N, T, W]
                state |= {f"{k}.{part}": torch.as_tensor(value) for part, value in vars(moments).items()}
            return state

        states = one_pass(dataset, batch_size, add, {**facts, "layers": len(blocks)}, checkpoint=checkpoint,
                          progress=progress, name="source statistics")
        means, variances = [], []
        for k in blocks:
            total = RunningMoments()
            for state in filter(None, states):             # a process may have had no batch
                total.merge(int(state[f"{k}.n"]), state[f"{k}.mean"], state[f"{k}.m2"])
            means, variances = [*means, total.mean.float()], [*variances, total.variance.float()]
        return cls(torch.stack(means), torch.stack(variances), **facts).to(clip.device)


def origin(clip, learner, dataset) -> dict:
    """The facts that a file carries about where its tensors come from."""
    return {"class_names": list(dataset.class_names), "clip": clip.fingerprint, "n_images": len(dataset),
            "prompts": prompts_fingerprint(learner), "source": getattr(dataset, "name", ""),
            "content": of_dataset(dataset)}
