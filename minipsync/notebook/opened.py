"""Which benchmark a notebook runs on: the parameters that all notebooks have, and what follows from them.

    bench, clip = open_benchmark(globals(), dataset=lambda bench: bench.names, limit=(0, None))
    data = data_set(bench, dataset)
    method = ready(bench, clip, "promptsync", data, prompts, source)

So `-p benchmark full -p root /data` turns a notebook from the laptop to the papers' data sets, with the
records, prompts and source statistics of the command line.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..clip.encoders import Clip
from ..data import Dataset
from ..evaluation.benchmark import BENCHMARKS, Benchmark, benchmark, clip_settings
from ..evaluation.evaluate import evaluate
from ..evaluation.prompts import learned
from ..evaluation.protocols import OOD
from ..evaluation.results import Result
from ..methods import REGISTRY, Method, build
from ..report.differences import pooled
from ..report.stored import stored
from .parameters import ParameterError, check_parameters

COMMON: dict[str, Any] = {
    "benchmark": list(BENCHMARKS), "root": str, "partial": bool, "model": str, "weights": str, "device": str,
    "precision": ["fp32", "fp16", "bf16"], "records": str, "prompts": str, "source": str}
SMALL = {"shots": 1, "epochs": 1, "warmup_epochs": 0, "batch_size": 50}       # only shows that all works
FULL = "docs/full.md says how to get the data sets, and which commands make prompts and source statistics"


def open_benchmark(namespace: dict[str, Any], **declared: Any) -> tuple[Benchmark, Clip]:
    """Check a notebook's parameters, and open what they ask for: (benchmark, its CLIP).

    namespace: `globals()` of the notebook, which has the parameters of COMMON (source where it uses one)
    declared:  the notebook's other parameters, as for `check_parameters`; a function is given the benchmark,
               as dataset=lambda bench: bench.names

    That CLIP is then the benchmark's `own_clip`, which protocols use.

    Raises ParameterError for what does not fit, FileNotFoundError for a benchmark whose folder is not there.
    """
    common = {key: kind for key, kind in COMMON.items() if key != "source" or key in namespace}
    asked = check_parameters({name: namespace[name] for name in common if name in namespace}, **common)
    name, own = asked["benchmark"], [each for each in ("root", "partial", "model", "weights") if asked[each]]
    if name == "mini" and own:
        raise ParameterError(f"{own[0]} = {asked[own[0]]!r}: the mini benchmark is in the package and has a "
                             f"CLIP of its own; for others say -p benchmark full. {FULL}")
    try:
        bench = benchmark(name, asked["root"] or None, asked["partial"])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {FULL}") from None
    if getattr(bench, "root", "") is None:
        raise ParameterError("root is empty: expected the folder that holds the data sets, -p root /data. "
                             + FULL)
    check_parameters(namespace, **common, **{
        key: kind(bench) if isinstance(kind, types.FunctionType) else kind for key, kind in declared.items()})
    bench.own_clip = bench.clip(**clip_settings(name, asked["model"], asked["weights"], asked["precision"],
                                                asked["device"]))
    return bench, bench.own_clip


def data_set(bench: Benchmark, name: str, split: str = "test") -> Dataset:
    """The data set `name`; FileNotFoundError that says where to read on if it is not there."""
    try:
        return bench.dataset(name, split)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {FULL}") from None


def ready(bench: Benchmark, clip: Clip, name: str, data: Dataset, prompts: str | Path = "",
          source: str | Path = "", seed: int | None = None, **settings: Any) -> Method | None:
    """`bench.build`; where prompts or what is known of the source are missing, a line that says how to get
    them, and None.

    prompts, source: folders to look in before the package. seed: of the prompts.

    Of an incomplete copy (partial=True) no numbers are wanted, but that all works: there prompts that are
    missing are learned from a picture of each class, once over, and kept in `prompts`.
    """
    made = {"clip": clip, "prompt_seed": seed, "prompts": prompts or "auto", "source": source or None,
            **settings}
    try:
        return bench.build(name, data, **made)
    except FileNotFoundError as error:
        missing = str(error).split("; ")[0]
    bare = bench.build(name, data, clip=clip, load=False, **settings)
    kind, train = (*bare.accepts, name)[0], bench.training_data("imagenet")
    if not getattr(bench, "partial", False) or isinstance(train, str):
        prepare = f", minipsync prepare {name} --benchmark {bench.name}" if bare.needs else ""
        print(f"{name} is left out: {missing}. Make them: minipsync fit {kind} --benchmark {bench.name}"
              + prepare)
        return None
    if not prompts:
        raise ParameterError("prompts is empty: expected a folder that keeps the prompts learned here")
    print(f"{name}: no prompts; {kind} learns some from a picture of each class, to show that all works")
    own = {key: value for key, value in bare.config.model_dump().items()
           if key in REGISTRY[kind].Config.model_fields and key in (bare.prompt_settings or (key,))}
    small = build(kind, clip, train.class_names, **own | ({} if seed is None else {"seed": seed}))
    learned(small, train, prompts, progress=False, **SMALL)
    return bench.build(name, data, **made)


def on_each(bench: Benchmark, clip: Clip, name: str, datasets: Iterable[str], prompts: str | Path = "",
            source: str | Path = "", seeds: Iterable[int] = (1,), limit: int = 0,
            records: str | Path | None = None, **settings: Any) -> dict[str, list[Result]]:
    """{data set: results of a method, one for each seed of its prompts}; {} where `ready` has none for it.

    limit: test images of each data set, 0 takes all. records: as in `evaluate`. A method that takes no
    prompts has one result. The rest is as in `ready`.
    """
    found: dict[str, list[Result]] = {}
    prompted = bool(REGISTRY[name].recipe or REGISTRY[name].accepts)
    for each in datasets:
        data = data_set(bench, each)
        for seed in seeds if prompted else [None]:
            if (method := ready(bench, clip, name, data, prompts, source, seed, **settings)) is None:
                return {}
            found.setdefault(each, []).append(evaluate(method, data, min(limit or len(data), len(data)),
                                                       records or None, progress=False))
    return found


def over_shifted(bench: Benchmark, live: Mapping[str, Mapping[str, Sequence[Result]]],
                 pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """{"a − b": the difference over the shifted sets of OOD together}, of pairs that were measured.

    live: {method: what `on_each` found for OOD}; where it is empty, what is stored of the mini benchmark.
    """
    if live:
        classes = {name: data_set(bench, name).class_names for name in OOD}
        return {f"{a} − {b}": pooled(live[a], live[b], classes) for a, b in pairs
                if live.get(a) and live.get(b)}
    table = stored("domain_generalisation_paired", bench.name)
    if table is None:
        return {}
    found = table[table["dataset"] == "ood_average"].set_index(["a", "b"])
    return {f"{a} − {b}": found.loc[(a, b)] for a, b in pairs if (a, b) in found.index}
