"""Runs read back from their record files, and groups of runs that differ in nothing but the seed.

    runs = load_runs("results/records")
    for group in group_runs(runs, notes=[]):
        print(group.label(), group.dataset, group.row()["accuracy"])

Runs that differ only in the seed of their prompts form one group. A group's label says every setting that is
not the method's own on that data set, as in "promptsync [steps=2]", and what else the groups of a method
differ in (precision, code).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.checks import some
from ..evaluation.benchmark import BENCHMARKS
from ..evaluation.record_format import HEADER, Row, as_json, read_rows, read_sidecar, sidecar_of
from ..evaluation.results import Result, accuracy_interval, summarise
from ..files.paths import expand
from ..methods import REGISTRY, TestTimeMethod
from .published import PRINTED, label_of

# These belong to a data set, or to the day: two values make two settings only where one data set has both.
LOCAL = ("template", "append_template", "init", "fine_grained", "augmix", "extra", "code", "classes",
         "images", "content", "prompts", "source", "trained_on", "libraries")

Rows = list[dict[str, Any]]                                # lines of a table


# ---- reading ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """One run of `evaluate`, of which at least one image is on disk.

    dataset:  as tables call it: data of one's own are "own NAME", incomplete copies "NAME (partial)"
    seed:     of the choice of images; config: the method's, with the seeds of its prompts and its views
    backbone: the CLIP's fingerprint
    about:    the whole description of the run, of which `key` is the hash
    facts:    what changes no prediction: origin, model, trained_on, images (how many were asked for),
              skipped, left_out (see evaluation/record_format.py)"""

    method: str
    dataset: str
    seed: int
    config: dict
    backbone: str | None
    key: str
    path: Path
    records: pd.DataFrame = field(repr=False)
    result: Result = field(repr=False)
    about: dict = field(repr=False)
    facts: dict = field(repr=False)

    @property
    def benchmark(self) -> str:
        """"mini", "full" or "own": whose data set it is."""
        origin = self.facts.get("origin", "")
        return {"partial": "full", "": "own"}.get(origin, origin)

    @property
    def libraries(self) -> str:
        """The versions that made the rows; several where the run went on with others."""
        return "; ".join(self.facts.get("libraries", []))


def load_runs(folder: str | Path) -> list[Run]:
    """Every run that has complete rows in a record file somewhere below `folder`; nothing is written.

    Files of one run are pooled: copies, and those of the processes of a run that was killed; but not those
    that other versions of the libraries made. A torn last line does not count, other CSV files are passed
    over. Raises ValueError, with its name, for a file that is broken and for a folder that is not there."""
    folder = expand(folder)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; expected one that evaluate(…, records=…) wrote")
    found: dict[tuple, tuple[Path, dict, dict, dict[str, Row]]] = {}
    for path in sorted(folder.rglob("*.csv")):             # a run's own file comes before its ….rank0.csv
        content = path.read_bytes()
        if content.startswith(HEADER):
            about, key, facts = read_sidecar(sidecar_of(path))
            if rows := read_rows(path, content, key):
                same = key, *facts.get("libraries", [])
                _, _, _, known = found.setdefault(same, (path, about, facts, {}))
                known |= rows | known
        elif not HEADER.startswith(content) and sidecar_of(path).exists():     # not killed in the first line
            raise ValueError(f"{path} is broken: its first line is not {HEADER.decode().strip()!r}; "
                             "delete it")
    return [_run(key, *parts) for (key, *_), parts in found.items()]


def _run(key: str, path: Path, about: dict, facts: dict, rows: dict[str, Row]) -> Run:
    skipped = [(image, "cannot be read") for image in facts.get("skipped") or () if image not in rows]
    result = summarise(about["method"], about["dataset"], about["seed"], pd.DataFrame(list(rows.values())),
                       path=path, skipped=skipped, origin=facts.get("origin", ""),
                       found=facts.get("found"), left_out=facts.get("left_out") or {})
    config = about.get("config") or {}
    return Run(result.method, label_of(result.dataset, result.origin), result.seed,
               config if isinstance(config, dict) else {"config": config}, about.get("backbone"), key, path,
               result.records, result, about, facts)


# ---- settings and seeds -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Group:
    """One setting of a method on a data set: its runs differ in the seed of the prompts alone.

    settings: everything else that a run depends on
    differ:   names of the settings in which the method's runs differ
    right:    0 or 1 [image, run], for the images that all runs have"""

    method: str
    dataset: str
    settings: dict
    differ: tuple[str, ...]
    runs: list[Run]
    right: pd.DataFrame = field(repr=False)

    @property
    def facts(self) -> dict:
        """Those of the first run."""
        return self.runs[0].facts

    @property
    def labels(self) -> pd.Series:
        """The label of each image of `right`."""
        return self.runs[0].records.set_index("image")["label"].reindex(self.right.index)

    def observations(self) -> pd.DataFrame:
        """Columns right (mean over seeds) and class, of each image; data sets with one list share classes."""
        names = f"{self.settings['classes']} " + self.labels.astype(str)
        return pd.DataFrame({"right": self.right.mean(axis=1), "class": names})

    def unusual(self) -> dict:
        """The settings that are not the method's own on this data set."""
        run, found = self.runs[0], []
        # one's own data are run with the settings of either benchmark: those that fit better count
        for bench in [run.benchmark] if run.benchmark in BENCHMARKS else BENCHMARKS:
            own = without_seed(defaults(self.method, run.about["dataset"], bench)) | {"view_seed": None}
            found.append({name: self.settings[name] for name in own if name in self.settings
                          and as_json(own[name]) != as_json(self.settings[name])})
        unusual, precision = min(found, key=len), self.settings.get("precision")
        return unusual if precision in (None, "fp32") else unusual | {"precision": precision}

    def other_differences(self) -> list[str]:
        """What the method's runs differ in, beside its own settings: code, prompts, …"""
        own = defaults(self.method)
        return [name for name in self.differ if name not in own]

    def label(self, but: str | None = None) -> str:
        """The method's name, and in brackets what is unusual and what else differs (except `but`)."""
        said = self.unusual() | {name: self.settings.get(name) for name in self.other_differences()}
        words = [f"{name}={as_text(value)}" for name, value in said.items() if name != but]
        return f"{self.method} [{', '.join(words)}]" if words else self.method

    def row(self) -> dict[str, Any]:
        """Means over seeds as fractions. std is the population's (nan for one seed), the interval that of the
        mean accuracy over resampled classes; `of` is the number of images that were asked for. `observations`
        is for averages over data sets, which resample what these share."""
        each, n = self.right.mean(), len(self.right)
        low, high = accuracy_interval(self.right.mean(axis=1).to_numpy(), self.labels.to_numpy())
        return {"method": self.label(), "dataset": self.dataset, "observations": self.observations(),
                "accuracy": each.mean(), "low": low,
                "high": high, "n": n, "of": max(n, *(run.facts.get("images", n) for run in self.runs)),
                "std": spread(each), "seeds": len(self.runs)}


def group_runs(runs: Iterable[Run], notes: list[str]) -> list[Group]:
    """Every setting of every method on every data set, in the order of the papers. Appends to `notes` what
    must be left out here, and what was left out when the runs were made."""
    groups: list[Group] = []
    methods: dict[str, list[Run]] = {name: [] for name in PRINTED}
    for run in sorted(runs, key=lambda run: run.method):
        methods.setdefault(run.method, []).append(run)
        notes += [note for note in _not_predicted(run) if note not in notes]
    for method, own in methods.items():
        settings = _settings(method, own)
        differ = tuple(name for name in dict.fromkeys(n for s in settings for n in s)
                       if _differs(name, own, settings))
        parts: dict[tuple, tuple[dict, list[Run]]] = {}
        for run, values in zip(own, settings, strict=True):
            parts.setdefault((run.dataset, as_json(values)), (values, []))[1].append(run)
        found = []
        for (dataset, _), (values, part) in parts.items():
            part = _different_prompts(part, notes)
            found.append(Group(method, dataset, values, differ, part, _right(part, notes)))
        groups += sorted(found, key=lambda g: ([_order(g.settings.get(n)) for n in differ], g.dataset))
    return groups


def _not_predicted(run: Run) -> list[str]:
    """In words: the pictures that a run's data set is without, and those that could not be read."""
    notes = [f"{run.dataset}: {n} {reason}" for reason, n in run.result.left_out.items()]
    if skipped := [image for image, _ in run.result.skipped]:
        notes.append(f"{run.dataset}: {len(skipped)} that cannot be read ({some(skipped)})")
    return notes


def _different_prompts(runs: list[Run], notes: list[str]) -> list[Run]:
    """The runs without those whose prompts are another run's: under two seeds they are still one."""
    if not _trained(runs[0].method) or runs[0].about.get("prompts") is None:
        return runs
    kept = {run.about["prompts"]: run.key for run in reversed(runs)}
    if len(kept) < len(runs):
        notes.append(f"{len(runs) - len(kept)} run(s) of {runs[0].method} on {runs[0].dataset}, with the "
                     "prompts of another seed")
    return [run for run in runs if run.key in kept.values()]


def _trained(method: str) -> bool:
    return method in REGISTRY and not issubclass(REGISTRY[method], TestTimeMethod)


def _settings(method: str, runs: list[Run]) -> list[dict]:
    """For each run everything that it depends on, except the seed of its prompts."""
    settings = []
    for run in runs:
        apart = {"sample_seed": run.seed, **{name: run.about.get(name) for name in (
            "precision", "backbone", "extra", "code", "classes", "images", "content")},
            "trained_on": run.facts.get("trained_on")}
        config = {f"config.{n}" if n in apart else n: v for n, v in without_seed(run.config).items()}
        settings.append(config | apart)
    # The same seed gives the same prompts, and the same prompts the same source. Where it did not, the runs
    # were made differently in a way that no config tells, and the hash becomes a setting. Prompts are looked
    # at only for methods that train their own: others take them from outside, and their seed is the views'.
    for name, by in (("prompts", ()), ("source", ("prompts",)), ("libraries", ("prompts", "source"))):
        if name == "prompts" and not _trained(method):
            continue
        own = [run.libraries if name == "libraries" else run.about.get(name) for run in runs]
        seen: dict[str, set] = {}
        for run, values, value in zip(runs, settings, own, strict=True):
            place = [run.dataset, values, run.config.get("seed"), *(run.about.get(n) for n in by)]
            seen.setdefault(as_json(place), set()).add(value)
        if any(len(values) > 1 for values in seen.values()):
            settings = [s | {name: value} for s, value in zip(settings, own, strict=True)]
    return settings


def without_seed(config: dict) -> dict:
    """The settings without the seed, and without that of the views where it follows from it."""
    return {name: value for name, value in config.items()
            if name != "seed" and not (name == "view_seed" and value == config.get("seed"))}


def _differs(name: str, runs: list[Run], settings: list[dict]) -> bool:
    """Do runs have two values of a setting: on one data set if it is LOCAL, else anywhere?"""
    values: dict[str, set] = {}
    for run, own in zip(runs, settings, strict=True):
        values.setdefault(run.dataset if name in LOCAL else "", set()).add(as_json(own.get(name)))
    return any(len(found) > 1 for found in values.values())


def _right(runs: list[Run], notes: list[str]) -> pd.DataFrame:
    """Whether each run is right on each image that all have: 0 or 1 [image, run]."""
    parts = [r.records.set_index("image")["correct"].rename(r.key) for r in runs]
    right = pd.concat(parts, axis=1, join="inner")
    name = f"{runs[0].method} on {runs[0].dataset}"
    if right.empty:
        raise ValueError(f"the {len(runs)} seeds of {name} have no image in common: finish them, or take "
                         f"{runs[-1].path} out of the folder")
    if missing := sum(map(len, parts)) - right.size:
        notes.append(f"{missing} record(s) of {name}, of images that not all its {len(runs)} seeds have")
    return right


def spread(values: Iterable[float]) -> float:
    """Population standard deviation over seeds, as Dassl gives it; nan for one seed, which shows none."""
    values = list(values)
    return float(pd.Series(values).std(ddof=0)) if len(values) > 1 else math.nan


def defaults(method: str, dataset: str | None = None, bench: str = "full") -> dict:
    """The method's own settings, on a data set of that benchmark if it is given; {} for an unknown method."""
    if method not in REGISTRY:
        return {}
    own = BENCHMARKS[bench].settings(method, dataset) if dataset else {}
    return REGISTRY[method].Config(**own).model_dump()


def as_text(value: object) -> str:
    """A setting as a label shows it."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _order(value: object) -> tuple:
    """What settings are sorted by: numbers by size, then all else by its text."""
    number = isinstance(value, (int, float))
    return number, value if number else 0, as_text(value)
