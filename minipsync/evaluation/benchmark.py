"""A benchmark: data sets, the CLIP to use on them, and every method ready to run with its settings.

    bench = benchmark("mini")
    data = bench.dataset("sketch")
    method = bench.build("promptsync", data)          # settings, prompts and source of this benchmark

"mini" is all in the package; "full" are the papers' data sets and OpenAI's CLIP.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..clip.encoders import Clip
from ..clip.weights import load_clip
from ..data.dataset import Dataset
from ..data.full import Full
from ..data.mini import ASSETS, OOD, TRANSFER, TRANSFER_SCENES, Mini
from ..data.own import split_half
from ..data.sampling import balanced_name, long_tailed, tail_counts
from ..data.splits import SPLITS
from ..files.paths import expand, read_text
from ..files.tensors import read_metadata
from ..methods import REGISTRY, Method, build, prompt_files
from ..methods.with_source import SourceMethod, find_source, prepare_and_keep
from ..settings import did_you_mean
from .prompts import prompt_file

MANY = 50_000                                      # source images that `build` does not read by itself
# MaPLe's training for its base-to-new tables, where it has depth 9
BASE_TO_NEW: dict[str, Any] = {"epochs": 5, "lr": 0.0035}


class Benchmark:
    """What both benchmarks can do with their data sets; `Mini` and `Full` say which those are."""

    name: str
    names: tuple[str, ...]

    def dataset(self, name: str, split: str = "test") -> Dataset:
        """The data set `name`; see `Mini.dataset` and `Full.dataset`."""
        raise NotImplementedError

    def long_tailed(self, name: str, limit: int, seed: int = 0) -> Dataset:
        """A sample of the test set `name` in which the class of rank r is 1/r times as frequent as the first.

        limit, seed, errors: see `data.long_tailed`. The sample is called `name` + "_longtail".
        """
        return long_tailed(self.dataset(name), limit, seed)

    @staticmethod
    def settings(method: str, dataset: str | None = None) -> dict:
        """What differs from the defaults of `method`, or, as "maple.fit", of its training, on `dataset`."""
        raise NotImplementedError

    def clip(self, **settings: Any) -> Clip:
        """A CLIP for these data sets; settings go to `load_clip`."""
        raise NotImplementedError

    @functools.cached_property
    def own_clip(self) -> Clip:
        """`clip()`, loaded once and shared by what `build` makes."""
        return self.clip()

    def build(self, name: str, data: Dataset, *, clip: Clip | None = None, load: bool = True,
              prompts: str | Path = "auto", source: str | Path | None = None, trained_on: str | None = None,
              prompt_seed: int | None = None, **settings: Any) -> Method:
        """Make the method `name` for the classes of `data`, ready to predict.

        It has this benchmark's settings, replaced by `settings`; and, unless load=False, the prompts that fit
        them and what it needs of its source.

        clip:        of which methods share one; by default the benchmark's own.
        prompts:     a file, a folder to look in before the package, or "auto": the package's.
        source:      a folder of source moments and prototypes, looked in before the package; what has to be
                     computed is kept there.
        trained_on:  the data set that prompts and source are of: by default "imagenet", or for a half, as
                     "animals_novel", its base half.
        prompt_seed: of the prompts; by default the method's own seed, or the lowest there is.

        Raises FileNotFoundError where no prompts fit, with what there is, and ValueError for unknown names.
        """
        method = build(name, clip or self.own_clip, data.class_names,
                       **{**self.settings(name, data.name), **settings})
        if not load or method.recipe is None and not method.accepts:
            return method
        stem, half = split_half(balanced_name(data.name))
        trained_on = trained_on or (f"{stem}_base" if half and stem in self.names else "imagenet")
        train = self.training_data(trained_on)
        self.load_prompts(method, train, prompts, prompt_seed)
        if isinstance(method, SourceMethod):
            self.load_source(method, train, source)
        return method

    def load_prompts(self, method: Method, trained_on: Dataset | str, place: str | Path = "auto",
                     seed: int | None = None) -> None:
        """Give `method` the prompts of a file, or those of a folder, else of the package, that fit.

        trained_on: the data set that they were learned on, or its name alone (`training_data`). Where several
        fit, those are taken that training with this benchmark's recipe makes.
        """
        if str(place) != "auto" and expand(place).is_file():
            method.load(place)
            return
        train = None if isinstance(trained_on, str) else trained_on
        choice = {"trained_on": trained_on if train is None else train.name, "seed": seed,
                  "train_set": whole(trained_on)}
        try:
            path: Path = prompt_files.find_in(method, None if str(place) == "auto" else place, **choice)
        except prompt_files.SeveralFit as error:
            if method.needs or method.recipe is None or train is None:
                raise                                          # it is another method that is trained
            same = build(method.name, method.clip, train.class_names, config=method.config)
            name = prompt_file(same, train, **self.settings(f"{method.name}.fit", train.name))
            same_name = [path for path in error.paths if path.name == name]
            if not same_name:
                raise
            path = same_name[0]
        theirs = json.loads(read_metadata(path)["class_names"])
        if train is not None and theirs != train.class_names:      # of an incomplete copy no picture says so
            raise FileNotFoundError(
                f"no prompts fit {method.name} on {method.clip.name}: those of {path.name} were learned on "
                f"another {train.name}, of {len(theirs)} classes ({theirs[0]}, …), not "
                f"{len(train.class_names)} ({train.class_names[0]}, …); fit and save your own")
        method.load(path)

    def load_source(self, method: SourceMethod, trained_on: Dataset | str,
                    folder: str | Path | None = None) -> None:
        """Give `method` its source: that which `folder` or the package has, else computed and kept there.

        trained_on: as in `load_prompts`; of a name alone nothing is computed.
        """
        found = find_source(method, folder, whole(trained_on))
        if isinstance(trained_on, str):
            method.source = found
            return
        if method.trained_on not in ("", trained_on.name):
            raise ValueError(f"{method.name}: the prompts {method.prompts_from} were learned on "
                             f"{method.trained_on}; say trained_on={method.trained_on!r}")
        if found is None and len(method.source_set(trained_on)) > MANY:
            raise FileNotFoundError(f"{method.name} has no source {method.needs} for the prompts "
                                    f"{method.prompts_from}; they are computed from {len(trained_on)} "
                                    f"images: do that once, minipsync prepare {method.name} --benchmark "
                                    f"{self.name}")
        prepare_and_keep(method, trained_on, found, folder)

    def training_data(self, name: str) -> Dataset | str:
        """The training split of a data set; its name where it is not here, by which prompts then go alone."""
        try:
            return self.dataset(name, "train")
        except (FileNotFoundError, ValueError):
            if ":" in name:                                    # one's own, asked for by its path
                raise
            return name


def whole(trained_on: Dataset | str) -> Dataset | None:
    """The data set whose pictures tell whose prompts these are; None for a name or an incomplete copy."""
    return None if isinstance(trained_on, str) or trained_on.origin == "partial" else trained_on


def papers_settings(method: str, transfer: bool, half: str) -> dict[str, Any]:
    """What the papers change of a method's defaults, or, as "maple.fit", of its training's (METHODS 5.0).

    On transfer sets, which are fine-grained: other rates (PromptAlign), AugMix (TPT), a longer training
    (CoOp); on a base half MaPLe's training is that of its base-to-new tables.
    """
    if method.endswith(".fit"):
        return {"maple.fit": BASE_TO_NEW if half else {},
                "coop.fit": {"epochs": 200} if transfer else {}}.get(method, {})
    fields = getattr(getattr(REGISTRY.get(method), "Config", None), "model_fields", {})
    switch = next((s for s in ("fine_grained", "augmix") if s in fields), None)
    return {switch: True} if switch and transfer else {}


class MiniBenchmark(Mini, Benchmark):
    """The mini benchmark: emoji in scenes and the mini CLIP, all in the package."""

    def long_tailed(self, name: str, limit: int, seed: int = 0) -> Dataset:
        """As for any benchmark, with more scenes of each drawing where the frequent classes need them."""
        data = self.dataset(name)
        if limit < 1 or name not in (*OOD, *TRANSFER):
            return super().long_tailed(name, limit, seed)
        most, fewest = tail_counts(limit, len(data.class_names))[0], np.bincount(data.labels).min()
        published = OOD[name][1] if name in OOD else TRANSFER_SCENES
        return long_tailed(self.dataset(name, scenes=max(published, -(-most * published // int(fewest)))),
                           limit, seed)

    @staticmethod
    def settings(method: str, dataset: str | None = None) -> dict:
        """What differs from the defaults of `method`: the paper's settings for sets of this kind, then those
        of assets/mini/settings.json, which these small pictures need.

        "maple.fit" and so on name the settings of training. The latter were chosen on the validation domain,
        against the paper's: benchmarks/choose_settings.py, results/mini/settings.csv.
        """
        stem, half = split_half(balanced_name(dataset or ""))
        chosen = json.loads(read_text(ASSETS / "settings.json"))
        own = (stem in TRANSFER and chosen.get(f"{method} transfer")) or chosen.get(method, {})
        return papers_settings(method, stem in TRANSFER, half) | {
            k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}

    def clip(self, **settings: Any) -> Clip:
        """The mini CLIP; settings go to `load_clip` (precision, device)."""
        return load_clip("mini", **settings)


class FullBenchmark(Full, Benchmark):
    """The full benchmark: the papers' data sets and OpenAI's CLIP."""

    @staticmethod
    def settings(method: str, dataset: str | None = None) -> dict:
        """What differs from the defaults of `method`, which are those for ImageNet, on `dataset`.

        "maple.fit" and so on name the settings of training. On a base half "maple" itself has depth 9
        (METHODS 5.0).
        """
        stem, half = split_half(balanced_name(dataset or ""))
        half = half if stem in Full.names else ""
        if method == "maple":
            return {"depth": 9} if half else {}
        if method == "zero_shot":                          # base to novel: the data set's own template
            return {"template": SPLITS[stem].template} if half and stem in SPLITS else {}
        return papers_settings(method, stem in SPLITS, half)

    def clip(self, name: str = "ViT-B-16", **settings: Any) -> Clip:
        """OpenAI's CLIP `name`; settings go to `load_clip` (weights, precision, device)."""
        return load_clip(name, **settings)


BENCHMARKS: dict[str, type[Benchmark]] = {"mini": MiniBenchmark, "full": FullBenchmark}


def benchmark(name: str = "mini", root: str | Path | None = None,
              partial: bool = False) -> MiniBenchmark | FullBenchmark:
    """The benchmark `name`: its data sets, its CLIP and its settings, and `build`, which joins them.

    "mini" is all in the package; "full" are the papers' data sets below the folder `root` (`Full`, which
    explains `partial` too). Raises ValueError for an unknown name, with the list of good ones, and for a
    `root` or `partial` that "mini" has no use for.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}, expected one of: {', '.join(BENCHMARKS)}."
                         f"{did_you_mean(name, BENCHMARKS)}")
    if name == "full":
        return FullBenchmark(root, partial)
    if root or partial:
        raise ValueError(f"benchmark {name!r} is in the package and takes no root or partial; for real "
                         "data sets say benchmark('full', root=…)")
    return MiniBenchmark()


def clip_settings(name: str, model: str = "", weights: str = "", precision: str = "fp32",
                  device: Any = "") -> dict[str, Any]:
    """What `clip` of the benchmark `name` is to be given, from texts of which an empty one is the default.

    The mini benchmark has a CLIP of its own: there model and weights must be empty."""
    settings = {"precision": precision, "device": device or None}
    return settings | ({"name": model or "ViT-B-16", "weights": weights or None} if name == "full" else {})
