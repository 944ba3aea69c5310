"""Test-time methods that know their source domain, and refuse one that was made for other prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from ..source.domain import SourceDomain
from .tpt import TestTimeMethod


class SourceMethod(TestTimeMethod):
    """A test-time method with a `source`, which belongs to the present prompts: loading others drops it.

    `prepare(source_set)` computes it, `method.source = SourceDomain.load(path)` takes one from a file, and
    `bench.build` finds what the package or a folder has.
    """

    _source: SourceDomain | None = None
    _made_for: list[Tensor]                              # the prompts that it belongs to

    # ---- what a method says for itself ----
    def source_settings(self) -> dict:
        """Keywords for the `collect` of what the method needs."""
        return {}

    def source_set(self, data: Any) -> Any:
        """The part of a source data set that is used; all of it by default."""
        return data

    def accept(self, source: SourceDomain) -> None:
        """Get ready for a new source; ValueError if it cannot be used, whatever prompts it was made for."""

    def source_is_needed(self) -> bool:
        """Do the settings make use of the source?"""
        return True

    # ---- the source ----
    @property
    def source(self) -> SourceDomain | None:
        """What the method knows of its source, for the present prompts."""
        return self._source

    @source.setter
    def source(self, source: SourceDomain | None) -> None:
        if source is not None:
            if getattr(source, self.needs) is None:
                raise ValueError(f"{self.name}: this source has {source.kind or 'nothing'}, expected "
                                 f"{self.needs}; method.prepare(source_set) computes them")
            names = source.sampler.dataset.class_names if source.sampler is not None else None
            # tensors that somebody made by hand say nothing of prompts
            if source.prompts and (reason := source.misfit(self.clip, self.learner, names)):
                raise ValueError(f"{self.name}: {reason}; method.prepare(source_set) computes fitting ones")
            self.accept(source)
            source = source.to(self.device)
        self._source, self._made_for = source, self.copy_prompts()

    @property
    def known(self) -> Any:
        """The part of the source that the method needs: its `Moments` or its `Prototypes`."""
        return getattr(self.source, self.needs)

    def prepare(self, source_set: Any, *, found: SourceDomain | None = None,
                checkpoint: str | Path | None = None, progress: bool = True) -> Self:
        """Compute what the method needs of `source_set`, with the present prompts. Returns self.

        The papers take ImageNet's training set. found: what is known already and not computed again.
        checkpoint, errors: see `one_pass`. `method.source.save(path)` keeps the result.
        """
        self.check_device()
        data = self.source_set(source_set)
        if found is None:
            found = SourceDomain.collect(self.clip, self.learner, data, checkpoint=checkpoint,
                                         progress=progress, **{self.needs: self.source_settings()})
        self.source = self.with_images(found, data)
        return self

    def with_images(self, source: SourceDomain, data: Any) -> SourceDomain:
        """The source with a sampler of its images, for a method that draws some; as it is by default."""
        return source

    def wanted_source(self, source_set: Any = None, cache: str | Path | None = None) -> dict:
        """The facts that a file must have to hold the source of these prompts, for `SourceDomain.find`.

        source_set: the data set itself, where it is at hand: then its pictures count, too. cache: a folder in
        which the fingerprint of a large set is kept.
        """
        return {"source": self.trained_on} if self.trained_on else {}

    def check_source(self) -> None:
        """Raise ValueError that says what the tuning lacks or what is out of date, and how to get it."""
        self.check_device()
        if not (self.config.steps and self.source_is_needed()):
            return
        mend = "method.prepare(source_set) computes them from the set that the prompts were trained on"
        if self.source is None:
            raise ValueError(f"{self.name} has no source {self.needs} for these prompts; {mend}")
        if not self.prompts_are(self._made_for):
            raise ValueError(f"{self.name}: the prompts are not those that the source {self.needs} were made "
                             f"for, they have changed since; {mend}")

    def adapt(self, views: Tensor) -> Any:
        self.check_source()
        return super().adapt(views)

    # ---- prompts and devices: the source goes with them ----
    def fit(self, train_set: Any, *, progress: bool = True, **settings: Any) -> Self:
        """Train the prompts as MaPLe does, then `prepare` with the same set."""
        super().fit(train_set, progress=progress, **settings)
        return self.prepare(train_set, progress=progress)

    def load(self, path: str | Path = "auto", **choice: Any) -> Self:
        """Read prompts, as `Method.load`. The source of other prompts goes: `prepare`, or set `source`."""
        super().load(path, **choice)
        self.source = None
        return self

    def own_tensors(self) -> list[Tensor]:
        known = self.source.tensors() if self.source is not None else {}
        return [*super().own_tensors(), *known.values()]

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self.source is not None:                              # method.to(device) takes the source along
            self._source = self.source.to(next(self.parameters()).device)
        return self


def find_source(method: SourceMethod, folder: str | Path | None = None,
                source_set: Any = None) -> SourceDomain | None:
    """The source of the method's present prompts that `folder` or the package has, or None.

    source_set: the data set that it is of, where it is at hand: a file of other pictures is then none.
    """
    return SourceDomain.find(method.clip, method.learner, method.needs, folder,
                             **method.wanted_source(source_set, folder))


def find_or_prepare(method: SourceMethod, source_set: Any, folder: str | Path | None = None) -> None:
    """Give the method its source: that which `folder` or the package has, else computed from `source_set`."""
    prepare_and_keep(method, source_set, find_source(method, folder, source_set), folder)


def prepare_and_keep(method: SourceMethod, source_set: Any, found: SourceDomain | None,
                     folder: str | Path | None) -> None:
    """`prepare` the method; what was not found but computed is saved to `folder`, if one is given."""
    source = method.prepare(source_set, found=found).source
    if found is None and folder is not None and source is not None:
        source.save(folder)
