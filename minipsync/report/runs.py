"""Runs read back from their record files, and which of them are the same setting but for the seed.

    runs = load_runs("results/records")
    for group in group_runs(runs, notes=[]):
        print(group.label(), group.dataset, group.row()["accuracy"])

Runs that differ only in the seed of their prompts are one group. A group's label says every setting that is
not the method's own for that data set, "promptsync [steps=2]", and what else the groups of a method differ in
(precision, code). Data of one's own are "own NAME", incomplete copies "NAME (partial)".
"""

import csv
import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..data import BENCHMARKS
from ..data.checks import some
from ..evaluation.records import HEADER, parse_row, run_key
from ..evaluation.results import Result, summarise, wilson
from ..files.paths import expand
from ..methods import REGISTRY, TestTimeMethod
from .published import PRINTED

# what belongs to a data set, or to the day: two values make two settings only where one data set has both
LOCAL = ("template", "append_template", "init", "fine_grained", "augmix", "extra", "code", "classes",
         "images", "content", "prompts", "source", "trained_on", "libraries")


# ---- reading ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """One run of `evaluate`, of which at least one image is on disk.

    seed: of the choice of images; config: the method's, with the seed of its prompts or views; backbone: the
    CLIP's fingerprint; about: all of the run's description, of which key is the hash, and facts: what changes
    no prediction, as origin, model, trained_on, images (asked for), skipped, left_out (see records.py)."""

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


def load_runs(folder) -> list[Run]:
    """Every run that has complete rows in a record file somewhere below `folder`; nothing is written.

    Files of one run are pooled: those of the processes of a run that was killed, and copies, but not those
    that other versions of the libraries made. A torn last line does not count, other CSV files are passed
    over. Raises ValueError, with its name, for a file that is broken and for a folder that is not there."""
    folder = expand(folder)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; expected one that evaluate(…, records=…) wrote")
    found = {}
    for path in sorted(folder.rglob("*.csv")):             # a run's own file comes before its ….rank0.csv
        content = path.read_bytes()
        if _has_records(path, content):
            about, key, facts = _describe(path.with_suffix(".run.json"))
            if rows := _rows(path, content, key):
                first = found.setdefault((key, libraries_of(facts)), (path, about, facts, {}))
                first[3].update((row["image"], row) for row in rows if row["image"] not in first[3])
    return [_run(key, *parts) for (key, _), parts in found.items()]


def libraries_of(facts) -> str:
    """The versions of the libraries that a run was made with; several where it went on with others."""
    return "; ".join(facts.get("libraries", []))


def _run(key, path, about, facts, rows):
    method, dataset, seed = (about[name] for name in ("method", "dataset", "seed"))
    dataset = {"own": f"own {dataset}", "partial": f"{dataset} (partial)"}.get(facts.get("origin"), dataset)
    skipped = [(image, "cannot be read") for image in facts.get("skipped") or () if image not in rows]
    result = summarise(method, dataset, seed, pd.DataFrame(list(rows.values())), path=path, skipped=skipped,
                       found=facts.get("found"), left_out=facts.get("left_out") or {})
    config = about.get("config") or {}
    config = config if isinstance(config, dict) else {"config": config}
    return Run(method, dataset, seed, config, about.get("backbone"), key, path, result.records, result, about,
               facts)


def _has_records(path, content):
    if content.startswith(HEADER):
        return True
    if not HEADER.startswith(content) and path.with_suffix(".run.json").exists():
        raise ValueError(f"{path} is broken: its first line is not {HEADER.decode().strip()!r}; delete it")
    return False                                          # of another kind, or killed while it was begun


def _describe(sidecar):
    """The run's description and its key, from the file beside the records."""
    try:
        kept = json.loads(sidecar.read_text(encoding="utf-8"))
        about, key = kept["run"], kept["key"]
        if not {"method", "dataset", "seed"} <= set(about) or run_key(about) != key:
            raise ValueError("it does not describe the run that its key stands for")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{sidecar} is broken or missing ({error}); it says what the records beside it are "
                         "of: delete it and evaluate again, which writes it anew, or delete both") from None
    return about, key, kept.get("facts") or {}


def _rows(path, content, key):
    rows = []
    for number, line in enumerate(content[len(HEADER):].split(b"\n")[:-1], start=2):      # the last is torn
        try:
            [fields] = csv.reader([line.decode()])
            rows.append(parse_row(fields, key))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path}, line {number} is not a record of its run ({error}): {line[:80]!r}; "
                             "delete that line, its image will be evaluated again") from None
    return rows


# ---- settings and seeds -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Group:
    """A setting of a method on a data set: its runs differ in the seed of the prompts alone.

    settings: everything else; differ: names of those in which the method's runs differ; right: 0 or 1
    [image, run], for the images that all runs have."""

    method: str
    dataset: str
    settings: dict
    differ: tuple[str, ...]
    runs: list[Run]
    right: pd.DataFrame = field(repr=False)

    @property
    def facts(self) -> dict:
        return self.runs[0].facts

    def unusual(self) -> dict:
        """The settings that are not the method's own on this data set."""
        origin = {"partial": "full"}.get(self.facts.get("origin"), self.facts.get("origin"))
        found = []
        for bench in [origin] if origin in BENCHMARKS else BENCHMARKS:      # own data are run with either's
            own = defaults(self.method, self.runs[0].about["dataset"], bench)
            said = [name for name in own if name in self.settings and name != "seed"]
            found.append({name: self.settings[name] for name in said
                          if as_json(own[name]) != as_json(self.settings[name])})
        unusual = min(found, key=len)
        precise = self.settings.get("precision") in (None, "fp32")
        return unusual if precise else unusual | {"precision": self.settings["precision"]}

    def other_differences(self) -> list[str]:
        """What the method's runs differ in, beside its own settings: code, prompts, …"""
        own = defaults(self.method)
        return [name for name in self.differ if name not in own]

    def label(self, but=None):
        """The method's name, and in brackets what is unusual and what else differs (except `but`)."""
        said = self.unusual()
        said |= {name: self.settings.get(name) for name in self.other_differences()}
        said = [f"{name}={as_text(value)}" for name, value in said.items() if name != but]
        return f"{self.method} [{', '.join(said)}]" if said else self.method

    def row(self) -> dict:
        """Mean over seeds as fractions; std is the population's (nan for one seed), the interval Wilson's."""
        each, n = self.right.mean(), len(self.right)
        low, high = wilson(each.mean() * n, n)
        return {"method": self.label(), "dataset": self.dataset, "accuracy": each.mean(), "low": low,
                "high": high, "n": n, "of": max(n, *(run.facts.get("images", n) for run in self.runs)),
                "std": spread(each), "seeds": len(self.runs)}


def group_runs(runs, notes) -> list[Group]:
    """Every setting of every method on every data set, in the order of the papers; `notes` grows by what
    must be left out, and by what was left out when the runs were made."""
    groups = []
    notes += dict.fromkeys(note for run in runs for note in _not_predicted(run))
    for method in sorted({r.method for r in runs}, key=lambda m: ([*PRINTED, m].index(m), m)):
        own = [r for r in runs if r.method == method]
        settings = _settings(method, own)
        differ = tuple(name for name in dict.fromkeys(n for s in settings for n in s)
                       if _differs(name, own, settings))
        parts = {}
        for run, values in zip(own, settings, strict=True):
            parts.setdefault((run.dataset, as_json(values)), (values, []))[1].append(run)
        for _, part in parts.values():
            part[:] = _other_prompts(part, notes)
        found = [Group(method, dataset, values, differ, part, _right(part, notes))
                 for (dataset, _), (values, part) in parts.items()]
        groups += sorted(found, key=lambda g: ([_order(g.settings.get(n)) for n in differ], g.dataset))
    return groups


def _not_predicted(run):
    """In words: the pictures that a run's data set is without, and those that could not be read."""
    notes = [f"{run.dataset}: {n} {reason}" for reason, n in run.result.left_out.items()]
    if skipped := [image for image, _ in run.result.skipped]:
        notes.append(f"{run.dataset}: {len(skipped)} that cannot be read ({some(skipped)})")
    return notes


def _other_prompts(runs, notes):
    """The same prompts twice, under two seeds, are one seed."""
    if not _trained(runs[0].method) or runs[0].about.get("prompts") is None:
        return runs
    kept = {run.about["prompts"]: run.key for run in reversed(runs)}
    if len(kept) < len(runs):
        notes.append(f"{len(runs) - len(kept)} run(s) of {runs[0].method} on {runs[0].dataset}, with the "
                     "prompts of another seed")
    return [run for run in runs if run.key in kept.values()]


def _trained(method):
    return method in REGISTRY and not issubclass(REGISTRY[method], TestTimeMethod)


def _settings(method, runs) -> list[dict]:
    """For each run all that it depends on, but for the seed of its prompts."""
    whole = ("precision", "backbone", "extra", "code", "classes", "images", "content")
    settings = []
    for run in runs:
        apart = {"image seed": run.seed, **{name: run.about.get(name) for name in whole},
                 "trained_on": run.facts.get("trained_on")}
        config = {f"config.{n}" if n in apart else n: v for n, v in run.config.items() if n != "seed"}
        settings.append(config | apart)
    # One seed has one outcome of training; a second was trained otherwise, which no config tells. A method
    # that tunes at test time takes prompts from outside, and its own seed is that of the views.
    trained = _trained(method)
    for name, by in (("prompts", ()), ("source", ("prompts",)), ("libraries", ("prompts", "source"))):
        if name != "prompts" or trained:
            seen = {}
            own = [libraries_of(r.facts) if name == "libraries" else r.about.get(name) for r in runs]
            for run, values, value in zip(runs, settings, own, strict=True):
                place = [run.dataset, values, run.config.get("seed"), *(run.about.get(n) for n in by)]
                seen.setdefault(as_json(place), set()).add(value)
            if any(len(values) > 1 for values in seen.values()):
                settings = [s | {name: value} for s, value in zip(settings, own, strict=True)]
    return settings


def _differs(name, runs, settings):
    values = {}
    for run, own in zip(runs, settings, strict=True):
        values.setdefault(run.dataset if name in LOCAL else "", set()).add(as_json(own.get(name)))
    return any(len(found) > 1 for found in values.values())


def _right(runs, notes):
    parts = [r.records.set_index("image")["correct"].rename(r.key) for r in runs]
    right = pd.concat(parts, axis=1, join="inner")
    name = f"{runs[0].method} on {runs[0].dataset}"
    if right.empty:
        raise ValueError(f"the {len(runs)} seeds of {name} have no image in common: finish them, or take "
                         f"{runs[-1].path} out of the folder")
    if missing := sum(map(len, parts)) - right.size:
        notes.append(f"{missing} record(s) of {name}, of images that not all its {len(runs)} seeds have")
    return right


def spread(values) -> float:
    """Population standard deviation over seeds, as Dassl gives it; nan for one seed, which shows none."""
    return float(pd.Series(list(values)).std(ddof=0)) if len(values) > 1 else math.nan


def defaults(method, dataset=None, bench="full") -> dict:
    """The method's own settings, on a data set of that benchmark if it is given."""
    if method not in REGISTRY:
        return {}
    own = BENCHMARKS[bench].settings(method, dataset) if dataset else {}
    return dataclasses.asdict(REGISTRY[method].Config(**own))


def as_json(value):
    return json.dumps(value, sort_keys=True, default=str)


def as_text(value):
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _order(value):
    number = isinstance(value, (int, float))
    return number, value if number else 0, as_text(value)
