"""The source domain: what a test-time method keeps of the data set that its prompts were learned on.

PromptAlign keeps token moments (moments.py), PromptSync class prototypes (prototypes.py) and images to draw
from (sampler.py). Moments and prototypes are computed once, with the trained prompts, and belong to one
backbone and one set of prompts: a `SourceDomain` and its file say which, and a method refuses one that was
made for others.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..clip.encoders import Clip
from ..data.content import of_dataset
from ..files.paths import expand
from ..files.tensors import read_metadata, read_tensors, write_tensors
from .moments import Moments
from .prototypes import Prototypes
from .sampler import SourceSampler

FORMAT = "minipsync-statistics-1"
SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "statistics"
MEND = "compute them with method.prepare(source_set) and save them"


def prompts_fingerprint(learner: torch.nn.Module) -> str:
    """16 hex digits that name the learner's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(learner.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


@dataclass
class SourceDomain:
    """Moments, prototypes and images of a source data set, and what they belong to.

    class_names: of the source, in label order. clip, prompts: fingerprints of the backbone and of the
    prompts; "" where nobody noted them. source, content, n_images: name of the data set, fingerprint and
    number of its pictures. sampler: draws images of the source; it is not saved.
    """

    moments: Moments | None = None
    prototypes: Prototypes | None = None
    sampler: SourceSampler | None = None
    class_names: Sequence[str] = ()
    clip: str = ""
    prompts: str = ""
    source: str = ""
    content: str = ""
    n_images: int = 0

    @classmethod
    def collect(cls, clip: Clip, learner: torch.nn.Module, dataset: Any, *, moments: dict | None = None,
                prototypes: dict | None = None, checkpoint: str | Path | None = None,
                progress: bool = True) -> Self:
        """Compute what is asked for on `dataset`, with the learner's present prompts.

        moments, prototypes: keywords for `Moments.collect` and `Prototypes.collect`, {} for their defaults;
        None leaves that part out. checkpoint, errors: see `one_pass`.
        """
        facts: dict[str, Any] = {"class_names": list(dataset.class_names), "clip": clip.fingerprint,
                 "prompts": prompts_fingerprint(learner), "source": getattr(dataset, "name", ""),
                 "content": of_dataset(dataset), "n_images": len(dataset)}
        found = cls(**facts)

        def how(part: str) -> dict[str, Any]:                 # each pass has a checkpoint of its own
            return {"identity": facts, "progress": progress,
                    "checkpoint": None if checkpoint is None else f"{checkpoint}.{part}"}

        if moments is not None:
            found.moments = Moments.collect(clip, learner, dataset, **how("moments"), **moments)
        if prototypes is not None:
            found.prototypes = Prototypes.collect(clip, learner, dataset, **how("prototypes"), **prototypes)
        return found

    @property
    def kind(self) -> str:
        """What it holds: "moments", "prototypes", or "moments and prototypes"."""
        return " and ".join(name for name in ("moments", "prototypes") if getattr(self, name) is not None)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of all parts, by name."""
        return {name: x for part in (self.moments, self.prototypes) if part is not None
                for name, x in part.tensors().items()}

    def to(self, device: torch.device | str) -> Self:
        """A copy with its tensors on `device`; another method may have the same object."""
        return replace(self, moments=self.moments and self.moments.to(device),
                       prototypes=self.prototypes and self.prototypes.to(device))

    def misfit(self, clip: Clip | None = None, learner: torch.nn.Module | None = None,
               class_names: Sequence[str] | None = None) -> str:
        """Why this does not belong to the given backbone, prompts or source classes; "" if it does."""
        what = f"source {self.kind}"
        if clip is not None and self.clip != clip.fingerprint:
            return f"{what} of the backbone {self.clip}, this is {clip.fingerprint} ({clip.name})"
        if learner is not None and self.prompts != (own := prompts_fingerprint(learner)):
            return f"{what} of the prompts {self.prompts}, these are {own}"
        if class_names is not None and list(class_names) != list(self.class_names):
            return f"{what} of other classes, {len(self.class_names)}: {self.class_names[0]}, …"
        if not all(x.isfinite().all() for x in self.tensors().values()):
            return f"the {what} contain NaN or infinity"
        return ""

    # ---- files ----
    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, whole or not at all. Returns its path.

        path: a file that ends in .safetensors, or a folder, in which the file gets a name of its own.
        """
        path = expand(path)
        if path.suffix != ".safetensors":
            path = path / self._file_name()
        facts = {name: getattr(self, name)
                 for name in ("class_names", "clip", "prompts", "source", "content", "n_images")}
        facts |= self.prototypes.facts() if self.prototypes is not None else {}
        return write_tensors(path, {name: x.float() for name, x in self.tensors().items()},
                             {"format": FORMAT, "kind": self.kind, "facts": json.dumps(facts)})

    def _file_name(self) -> str:
        recipe = json.dumps(self.prototypes.recipe if self.prototypes else "", sort_keys=True)
        key = hashlib.sha256(f"{self.clip} {self.prompts} {recipe} {self.content}".encode()).hexdigest()[:10]
        name = re.sub(r"[^\w.-]+", "_", self.source)
        return f"{self.kind.replace(' ', '_')}_{name}_{key}.safetensors"

    @classmethod
    def load(cls, path: str | Path, clip: Clip | None = None, learner: torch.nn.Module | None = None,
             class_names: Sequence[str] | None = None) -> Self:
        """Read a file that `save` wrote. clip, learner, class_names: refuse a file that was made for others.

        Raises FileNotFoundError, or ValueError that says what does not fit and what to do.
        """
        tensors, metadata = read_tensors(path, f"a file of source moments or prototypes: {MEND}")
        kinds = metadata.get("kind", "").split(" and ")
        if metadata.get("format") != FORMAT or not set(kinds) <= {"moments", "prototypes"}:
            kind = metadata.get("kind", "something else")
            raise ValueError(f"{path} holds {kind}, expected source moments or prototypes: {MEND}")
        facts = json.loads(metadata["facts"])
        more: dict[str, Any] = {name: facts.pop(name) for name in ("variants", "recipe") if name in facts}
        parts: dict[str, type[Moments] | type[Prototypes]] = {"moments": Moments, "prototypes": Prototypes}
        names = [name for kind in kinds for name in parts[kind].NAMES]
        if set(tensors) != set(names):
            raise ValueError(f"{path} holds {', '.join(sorted(tensors)) or 'no tensors'}, expected the "
                             f"{metadata['kind']} {', '.join(names)}; the file is damaged or not ours")
        found = cls(**facts)
        if "moments" in kinds:
            found.moments = Moments(**{name: tensors[name] for name in Moments.NAMES})
        if "prototypes" in kinds:
            more |= {name: tensors[name] for name in Prototypes.NAMES}
            found.prototypes = Prototypes(**more)
        if reason := found.misfit(clip, learner, class_names):
            raise ValueError(f"{path}: {reason}; compute them again with method.prepare(source_set)")
        return found.to(clip.device) if clip is not None else found

    @classmethod
    def find(cls, clip: Clip, learner: torch.nn.Module, kind: str, folder: str | Path | None = None,
             **wanted: Any) -> Self | None:
        """Look in `folder`, then in this package, for a file of this `kind`, backbone and prompts; or None.

        wanted: facts that it must have, as source="imagenet": the same prompts have other moments on other
        data. A content of "" is not known, and fits any.
        """
        wanted |= {"clip": clip.fingerprint, "prompts": prompts_fingerprint(learner)}
        folders = [SHIPPED] if folder is None else [expand(folder), SHIPPED]
        for path in (path for each in folders for path in sorted(each.glob("*.safetensors"))):
            try:
                metadata = read_metadata(path)
            except ValueError:
                continue                                       # damaged: `load` would say so, if it is named
            if (metadata.get("format"), metadata.get("kind")) == (FORMAT, kind):
                facts = json.loads(metadata["facts"])
                if all(facts.get(name) == value or name == "content" and not (value and facts.get(name))
                       for name, value in wanted.items()):
                    return cls.load(path, clip, learner)
        return None
