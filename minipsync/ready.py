"""Methods ready to predict, for the command line: settings as typed, prompts and source found and told."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import distributed
from .data import Dataset
from .evaluation.benchmark import whole
from .files.paths import expand
from .methods import REGISTRY, Method, build
from .methods.with_source import SourceMethod, find_source
from .options import values_for

PROMPTS, SOURCE = "results/prompts", Path("results/source")


def say(text: object) -> None:
    """Print, in the first process alone."""
    if distributed.rank() == 0:
        print(text, flush=True)


@dataclass
class Place:
    """What commands build methods with: the benchmark and its CLIP, the settings as typed, where prompts and
    source lie and what they were learned on.

    prepare_again: the options of `minipsync prepare`, from settings and further pairs of option and value
    options:       of those pairs, what was typed here
    listed:        the data set that they were learned on, if it is at hand"""

    bench: Any
    clip: Any
    typed: dict[str, Any]
    prompts: str
    source: Path
    trained_on: str
    prepare_again: Callable[..., str]
    options: tuple[tuple[str, Any], ...] = ()
    listed: Dataset | None = None
    told: set = field(default_factory=set)

    @functools.cached_property
    def train_set(self) -> Dataset | str:
        """The data set that prompts were learned on, listed once; its name alone where it is not here."""
        return self.listed if self.listed is not None else self.bench.training_data(self.trained_on)

    def train_images(self) -> Dataset:
        """That data set, from which L_D of PromptSync draws; an error says why it is not here."""
        train = self.train_set
        return self.bench.dataset(self.trained_on, "train") if isinstance(train, str) else train

    def build(self, name: str, class_names: list[str], seed: int | None,
              dataset: str | None = None) -> Method:
        """The method with the benchmark's settings for `dataset`, then those that were typed; its prompts
        loaded."""
        config = REGISTRY[name].Config
        own = values_for(config, self.typed)
        own |= {"seed": seed} if seed is not None and "seed" in config.model_fields else {}
        method = build(name, self.clip, class_names, **{**self.bench.settings(name, dataset), **own})
        if method.learner is not None and (method.recipe is not None or method.accepts):
            place = expand(self.prompts)
            if self.prompts != PROMPTS and not place.exists():
                raise FileNotFoundError(f"--prompts {self.prompts}: there is no such file or folder")
            self.bench.load_prompts(method, self.train_set, place, seed)
        return method

    def ready(self, data: Dataset, name: str, seed: int | None, images: bool = True) -> Method:
        """The method for `data`, with what it keeps of its source; images=False only looks whether all is
        there. Raises FileNotFoundError with the command for what is missing, ValueError for prompts of
        another source."""
        method = self.build(name, data.class_names, seed, data.name)
        if not isinstance(method, SourceMethod):
            return method
        train = self.train_images() if method.needs == "prototypes" else None    # PromptAlign: numbers alone
        if train is not None and method.trained_on not in ("", train.name):
            raise ValueError(f"{name}: the prompts {method.prompts_from} were learned on "
                             f"{method.trained_on}; say --trained-on {method.trained_on}")
        found = find_source(method, self.source, whole(self.train_set))
        if found is None:
            own = {k: text for k, text in self.typed.items() if hasattr(method.config, k)}
            options = self.prepare_again(own, *self.options, ("--seed", seed))
            raise FileNotFoundError(f"{name} has no source {method.needs} in {str(self.source)!r} for the "
                                    f"prompts {method.prompts_from}; compute them once: minipsync prepare "
                                    f"{name} {options}")
        return method.prepare(train, found=found) if images else method

    def announce(self, data: Dataset, name: str, seed: int | None, gate: Callable | None) -> Method:
        """`ready`; says first, once each, what is predicted and with which prompts, and lets `gate` look."""
        if data not in self.told:
            self.told.add(data)
            if data.origin == "own":
                say(f"{data}: {', '.join(data.class_names[:5])}{', …' * (len(data.class_names) > 5)}")
            elif gate:
                gate(self.clip, data)
        method = self.ready(data, name, seed)
        if method.prompts_from and (name, seed) not in self.told:
            self.told.add((name, seed))
            by_name = "" if whole(self.train_set) is not None else " (by name: its pictures are not here)"
            say(f"{name}: prompts {method.prompts_from}, trained on {method.trained_on}{by_name}")
        return method
