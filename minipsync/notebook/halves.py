"""Base and novel classes in a notebook: learned on the base half of data sets, tested on both halves.

    methods = {"zero_shot": ("zero_shot", {}), "coop": ("coop", {"n_ctx": 4})}          # names are yours
    found = Halves(bench, clip, methods, ["animals"], seeds=[1, 2, 3])
    accuracies(found.rows())                            # the columns of results/mini/base_to_novel.csv
    found.difference("coop", "zero_shot", "novel")      # in pairs, over all data sets

The protocol is `evaluation.protocols.base_to_novel`; here every `Result` is kept, and what was learned, too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..clip.encoders import Clip
from ..data import Dataset
from ..data.mini import TRANSFER
from ..data.own import HALVES
from ..data.splits import SPLITS
from ..evaluation.benchmark import Benchmark
from ..evaluation.evaluate import evaluate
from ..evaluation.prompts import learned
from ..evaluation.results import Result
from ..methods import REGISTRY, Method
from ..report.differences import Difference, pooled
from .opened import SMALL, data_set


def transfer_sets(bench: Benchmark) -> list[str]:
    """The names of a benchmark's transfer sets: those that have a base and a novel half of their own."""
    return [name for name in bench.names if name in TRANSFER or name in SPLITS]


class Halves:
    """Methods on the halves of data sets; learned and evaluated when first asked for, then kept.

    bench, clip: what `open_benchmark` gave
    methods:     {label: (what `build` calls the method, its settings)}
    datasets:    names of transfer sets
    seeds:       of the prompts; zero_shot has none, and one result
    prompts:     folder of prompts, beside those of the package; what is learned is kept there
    records, limit, sample_seed: as in `evaluate`, for each half

    On a partial copy, whose numbers mean nothing, prompts are learned from one picture of each class.
    """

    def __init__(self, bench: Benchmark, clip: Clip, methods: Mapping[str, tuple[str, Mapping[str, Any]]],
                 datasets: Sequence[str], seeds: Sequence[int] = (1, 2, 3), prompts: str | Path | None = None,
                 records: str | Path | None = None, limit: int | None = None, sample_seed: int = 0) -> None:
        self.bench, self.clip, self.methods = bench, clip, dict(methods)
        self.datasets, self.seeds = [*dict.fromkeys(datasets)], [*dict.fromkeys(seeds)]
        self.prompts, self.records = prompts or None, records or None
        self.limit, self.sample_seed = limit or None, sample_seed
        self._data: dict[tuple[str, str, str], Dataset] = {}
        self._trained: dict[tuple[str, str, int | None], Method] = {}
        self._results: dict[tuple[str, str, str], list[Result]] = {}

    def data(self, name: str, half: str, split: str = "test") -> Dataset:
        """The half "base" or "novel" of a data set."""
        key = name, half, split
        if key not in self._data:
            self._data[key] = data_set(self.bench, f"{name}_{half}", split)
        return self._data[key]

    def trained(self, label: str, name: str, seed: int | None = None) -> Method:
        """The method `label` with prompts of `seed` (default: the first) for the base half of `name`.

        Each call returns the same method, whose classes may meanwhile be those of another half.
        """
        kind, settings = self.methods[label]
        trains = REGISTRY[kind].recipe is not None
        key = label, name, (self.seeds[0] if seed is None else seed) if trains else None
        if key not in self._trained:
            train = self.data(name, "base", "train")
            first = {"seed": key[2]} if trains else {"template": train.templates[0]}
            method = self.bench.build(kind, train, clip=self.clip, load=False, **first | dict(settings))
            if trains:
                small = getattr(self.bench, "partial", False)
                recipe = SMALL if small else self.bench.settings(f"{kind}.fit", train.name)
                learned(method, train, self.prompts, progress=False, **recipe)
            self._trained[key] = method
        return self._trained[key]

    def results(self, label: str, name: str, half: str) -> list[Result]:
        """One `Result` for each seed, on the test images of a half, among its classes only."""
        key, test = (label, name, half), self.data(name, half)
        if key not in self._results:
            trains = REGISTRY[self.methods[label][0]].recipe is not None
            self._results[key] = [
                evaluate(self.trained(label, name, seed).set_class_names(test.class_names), test,
                         min(self.limit or len(test), len(test)), self.records,
                         sample_seed=self.sample_seed, progress=False)
                for seed in (self.seeds if trains else [None])]
        return self._results[key]

    def rows(self) -> pd.DataFrame:
        """A line for each label, data set, half and seed, as in results/mini/base_to_novel.csv."""
        return pd.DataFrame([
            result.row() | {"method": label, "dataset": f"{name}_{half}", "seed": seed}
            for label in self.methods for name in self.datasets for half in HALVES
            for seed, result in zip(self.seeds, self.results(label, name, half), strict=False)])

    def difference(self, a: str, b: str, half: str, datasets: Sequence[str] = ()) -> Difference:
        """a minus b, two labels, on the test images of a half of `datasets` (default: all): see `pooled`."""
        names = {name: self.data(name, half).class_names for name in datasets or self.datasets}
        first, second = ({name: self.results(label, name, half) for name in names} for label in (a, b))
        return pooled(first, second, names)

    def gains(self, reference: str = "zero_shot") -> pd.DataFrame:
        """Differences of all other methods to one, on each data set, as `plots.gains` takes them."""
        return pd.DataFrame([
            {"panel": name, "line": label, **found._asdict(), "classes": half}
            for name in self.datasets for label in self.methods if label != reference for half in HALVES
            for found in [self.difference(label, reference, half, [name])]])
