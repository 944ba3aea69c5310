"""The command line: `minipsync`, `python -m minipsync`, and under torchrun `torchrun … -m minipsync`.

    minipsync fit maple --benchmark full --root /data            learn prompts on ImageNet
    minipsync prepare promptalign --benchmark full --root /data  what a method keeps of its source
    minipsync run promptalign --dataset sketch --benchmark full --root /data
    minipsync run promptalign --help                             its settings, each of them an option
    minipsync headroom maple_tpt --dataset folder:/path --benchmark full    can tuning help there?
    minipsync table domain_generalisation                        what was measured, beside what was published
    minipsync info                                               versions, device, what is where
"""

import importlib.metadata
import itertools
import os
import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors import SafetensorError

from . import __version__, distributed
from .data import Dataset
from .data.full import ROOT
from .evaluation.benchmark import BENCHMARKS, Benchmark, benchmark, clip_settings
from .evaluation.evaluate import evaluate
from .evaluation.gate import check_zero_shot
from .evaluation.headroom import headroom as look_for_headroom
from .evaluation.prompts import learned, prompt_file
from .files.paths import expand, write_whole
from .methods import REGISTRY, build, prompt_files
from .methods.probe import ProbeConfig
from .methods.test_time import TestTimeBase
from .methods.with_source import find_source
from .options import EPILOG, SettingsCommand, check_settings, typed_again, values_for, with_settings
from .ready import PROMPTS, SOURCE, Place, say
from .report.papers import TABLES, load_runs, report
from .report.writers import to_csv, to_latex, to_markdown, to_text
from .settings import Settings, did_you_mean
from .source.domain import SHIPPED, prompts_fingerprint
from .source.one_pass import forget
from .training import TrainConfig

app = typer.Typer(help="Prompt learning for CLIP: learn prompts, run methods, build the papers' tables.",
                  no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)
WRITERS = {"text": to_text, "csv": to_csv, "markdown": to_markdown, "latex": to_latex}
# told in one line
ASKED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, MemoryError, SafetensorError)
TRAINED = [name for name, method in REGISTRY.items() if method.recipe is not None and not method.needs]
KEEPING = [name for name, method in REGISTRY.items() if method.needs]

Names = Annotated[list[str], typer.Argument(help=f"one or several of: {', '.join(REGISTRY)}")]
Bench = Annotated[str, typer.Option("--benchmark", help=f"one of: {', '.join(BENCHMARKS)}")]
Root = Annotated[str, typer.Option(help=f"where the full benchmark lies; default: ${ROOT}")]
Partial = Annotated[bool, typer.Option("--partial", help="accept an incomplete copy of a data set")]
Model = Annotated[str, typer.Option(help="full: a model of open_clip; default: ViT-B-16")]
Weights = Annotated[str, typer.Option(help="full: CLIP's, a tag of open_clip or a file; default: OpenAI's")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1; default: a GPU if there is one")]
Prompts = Annotated[str, typer.Option(help="a file, or a folder to look in before the package's own")]
TrainedOn = Annotated[str, typer.Option(help="the data set that the prompts were learned on")]
Source = Annotated[Path, typer.Option(help="folder of source statistics and prototypes")]
Sample = Annotated[str, typer.Option(help="balanced, or longtail: classes as frequent as 1/rank")]
SampleSeed = Annotated[int, typer.Option(help="of the choice of images")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress bars")]
Seeds = Annotated[str, typer.Option(help="of prompts and views: 2, or 1,2,3; default: the method's own")]
SAMPLES = ("balanced", "longtail")
RECORDS = "results/records"


def method_settings(name: str) -> list[Settings]:
    """What `run` and `prepare` have options for: the settings of a method."""
    return [REGISTRY[name].Config()]


def tried_settings(name: str) -> list[Settings]:
    """What `headroom` has options for: the settings of a method and, if it tunes nothing, of TPT's step."""
    return [REGISTRY[name].Config(), *([] if issubclass(REGISTRY[name], TestTimeBase) else [ProbeConfig()])]


def training_settings(name: str) -> list[Settings]:
    """What `fit` has options for: the settings of a method and of its training."""
    return [REGISTRY[name].Config(), REGISTRY[name].recipe or TrainConfig()]


# ---- commands ---------------------------------------------------------------------------------------
@app.command(cls=SettingsCommand, epilog=EPILOG.format("run", "promptalign"))
@with_settings(method_settings, REGISTRY)
def run(methods: Names, dataset: Annotated[str, typer.Option(help="names with commas between")] = "sketch",
        benchmark: Bench = "mini", root: Root = "", partial: Partial = False, model: Model = "",
        weights: Weights = "", precision: Precision = "fp32", device: Device = "", prompts: Prompts = PROMPTS,
        trained_on: TrainedOn = "imagenet", source: Source = SOURCE, seed: Seeds = "",
        limit: Annotated[int, typer.Option(min=0, help="images per data set; 0: all")] = 0,
        sample: Sample = "balanced", sample_seed: SampleSeed = 0,
        batch_size: Annotated[int, typer.Option(min=0, help="images per call of predict; 0: 4 on the CPU, "
                                                            "else 16")] = 0,
        records: Annotated[str, typer.Option(help="folder of one row per image")] = RECORDS,
        gate: Annotated[bool, typer.Option(help="full: first see that zero-shot is above chance")] = True,
        quiet: Quiet = False, settings: dict[str, Any] | None = None) -> None:
    """Predict data sets and keep one record per image; a run that was stopped goes on where it was."""
    own_device = distributed.start()
    bench, typed, seeds = _bench(benchmark, root, partial, model, weights), settings or {}, _seeds(seed)
    # everything that can be wrong is looked at before the first image: a data set can take hours
    problems = _unknown_methods(methods)
    how = sample, limit, sample_seed
    sets = [data for name in dataset.split(",")
            if (data := _try(problems, _sampled, bench, name.strip(), *how)) is not None]
    known = [name for name in methods if name in REGISTRY]
    _try(problems, check_settings, run, known, typed if known else {})
    _stop_at(problems)
    clip = bench.clip(**clip_settings(benchmark, model, weights, precision, device or own_device))
    place = Place(bench, clip, typed, prompts, source, trained_on, _prepare_again,
                  _typed_here(benchmark, model, weights, trained_on, prompts))
    plan = [(data, method, s) for data in sets for method in methods
            for s in (seeds if "seed" in REGISTRY[method].Config.model_fields else [None])]
    for step in plan:
        _try(problems, place.ready, *step, images=False)
    _stop_at(problems)
    for step in plan:
        built = place.announce(*step, check_zero_shot if gate and benchmark == "full" else None)
        say(evaluate(built, step[0], limit or None, records, batch_size or None, sample_seed, not quiet))
    say(f"records: {records}")
    distributed.stop()


@app.command(cls=SettingsCommand, epilog=EPILOG.format("headroom", "maple_tpt"))
@with_settings(tried_settings, REGISTRY)
def headroom(method: Annotated[str, typer.Argument(help=f"one of: {', '.join(REGISTRY)}")],
             dataset: Annotated[str, typer.Option(help="to look at")] = "sketch", benchmark: Bench = "mini",
             root: Root = "", partial: Partial = False, model: Model = "", weights: Weights = "",
             precision: Precision = "fp32", device: Device = "", prompts: Prompts = PROMPTS,
             trained_on: TrainedOn = "imagenet", source: Source = SOURCE,
             seed: Annotated[int | None, typer.Option(help="of prompts and views; default: the method's own")]
             = None, limit: Annotated[int, typer.Option(min=0, help="images, class-balanced; 0: all")] = 200,
             sample: Sample = "balanced", sample_seed: SampleSeed = 0,
             out: Annotated[Path | None, typer.Option(help="a CSV file for the table, too")] = None,
             quiet: Quiet = False, settings: dict[str, Any] | None = None) -> None:
    """Look at a few images before hours of work: can test-time tuning help there, and if not, what lacks?"""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("headroom runs in one process, without torchrun: it looks at a few images only")
    typed = settings or {}
    _stop_at(_unknown_methods([method]))
    check_settings(headroom, [method], typed)
    bench = _bench(benchmark, root, partial, model, weights)
    data = _sampled(bench, dataset, sample, limit, sample_seed)
    clip = bench.clip(**clip_settings(benchmark, model, weights, precision, device))
    place = Place(bench, clip, typed, prompts, source, trained_on, _prepare_again,
                  _typed_here(benchmark, model, weights, trained_on, prompts))
    tried: dict[str, Any] = {}
    if not issubclass(REGISTRY[method], TestTimeBase):     # TPT's step is tried
        tried = values_for(ProbeConfig, typed) | ({} if seed is None else {"seed": seed})
    report = look_for_headroom(place.announce(data, method, seed, None), data, limit or None, sample_seed,
                               not quiet, **tried)
    print(report)
    if out is not None:
        report.to_csv(out)
        print(f"written: {out}")


@app.command(cls=SettingsCommand, epilog=EPILOG.format("fit", "maple"))
@with_settings(training_settings, TRAINED)
def fit(method: Annotated[str, typer.Argument(help=f"one of: {', '.join(TRAINED)}")],
        dataset: Annotated[str, typer.Option(help="to learn from; NAME_base: its base half")] = "imagenet",
        benchmark: Bench = "mini", root: Root = "", partial: Partial = False, model: Model = "",
        weights: Weights = "", precision: Precision = "fp32", device: Device = "",
        seed: Annotated[int, typer.Option(help="of start, few shots and order")] = 1,
        out: Annotated[Path, typer.Option(help="folder of prompts")] = Path(PROMPTS), quiet: Quiet = False,
        settings: dict[str, Any] | None = None) -> None:
    """Learn prompts; what was learned before is kept, and a run that was stopped goes on where it was."""
    _check_trainable(method)
    check_settings(fit, [method], settings or {})
    bench, typed = _bench(benchmark, root, partial, model, weights), settings or {}
    train = bench.dataset(dataset, "train")
    clip = bench.clip(**clip_settings(benchmark, model, weights, precision, device))
    own = values_for(REGISTRY[method].Config, typed)
    built = build(method, clip, train.class_names,
                  **{**bench.settings(method, train.name), **own, "seed": seed})
    recipe = bench.settings(f"{method}.fit", dataset) | values_for(TrainConfig, typed)
    learned(built, train, out, progress=not quiet, **recipe)
    kept = expand(out) / prompt_file(built, train, **recipe)
    print(f"prompts: {kept if kept.is_file() else prompt_files.SHIPPED.name + ' of the package'}")
    more = typed_again(run, {name: typed[name] for name in own}, ("--seed", seed), ("--trained-on", dataset),
                       ("--benchmark", benchmark), ("--model", model), ("--weights", weights),
                       ("--root", root), ("--prompts", "" if out == Path(PROMPTS) else out))
    print(f"use them: minipsync run {method} {more} --dataset …")


@app.command(cls=SettingsCommand, epilog=EPILOG.format("prepare", "promptsync"))
@with_settings(method_settings, KEEPING)
def prepare(methods: Annotated[list[str], typer.Argument(help=f"one or several of: {', '.join(KEEPING)}")],
            dataset: Annotated[str, typer.Option(help="the source: what the prompts were learned on")]
            = "imagenet", benchmark: Bench = "mini", root: Root = "", partial: Partial = False,
            model: Model = "", weights: Weights = "", precision: Precision = "fp32", device: Device = "",
            prompts: Prompts = PROMPTS,
            seed: Annotated[str, typer.Option(help="of the prompts: 2, or 1,2,3; default: the lowest")] = "",
            again: Annotated[bool, typer.Option("--again", help="compute what is there, too")] = False,
            out: Source = SOURCE, quiet: Quiet = False, settings: dict[str, Any] | None = None) -> None:
    """Compute what a method keeps of its source: token statistics or class prototypes."""
    _stop_at(_unknown_methods(methods))
    if wrong := [name for name in methods if name not in KEEPING]:
        raise ValueError(f"{wrong[0]} keeps nothing of its source; expected one of {', '.join(KEEPING)}")
    check_settings(prepare, methods, settings or {})
    own_device = distributed.start()
    bench = _bench(benchmark, root, partial, model, weights)
    train = bench.dataset(dataset, "train")
    clip = bench.clip(**clip_settings(benchmark, model, weights, precision, device or own_device))
    place = Place(bench, clip, settings or {}, prompts, out, dataset, _prepare_again, listed=train)
    for method, s in itertools.product(methods, _seeds(seed)):
        built: Any = place.build(method, train.class_names, s)
        there = find_source(built, out, train) is not None
        there = distributed.from_first(there)                  # all processes do the same
        if there and not again:
            say(f"{method}: {built.needs} for {built.prompts_from} are there (--again computes them anew)")
            continue
        checkpoint = out / f"{method}_{train.name}_{prompts_fingerprint(built.learner)[:8]}.part"
        built.prepare(train, progress=not quiet, checkpoint=checkpoint)
        if distributed.rank() == 0:
            print(f"{built.needs}: {built.source.save(out)}")
            forget(checkpoint)
    distributed.stop()


@app.command()
def table(name: Annotated[str, typer.Argument(help=f"one of: {', '.join(TABLES)}")],
          benchmark: Annotated[str, typer.Option(help="mini, full, or own: data of your own")] = "mini",
          records: Annotated[Path, typer.Option(help="folder of records")] = Path(RECORDS),
          form: Annotated[str, typer.Option(help=f"one of: {', '.join(WRITERS)}")] = "text",
          out: Annotated[Path | None, typer.Option(help="a file, instead of the terminal")] = None) -> None:
    """A table of the papers from the records, beside the published numbers."""
    if form not in WRITERS:
        raise ValueError(f"--form {form}: expected one of {', '.join(WRITERS)}.{did_you_mean(form, WRITERS)}")
    made = report(name, load_runs(records), benchmark)
    text, note = WRITERS[form](made).rstrip("\n"), made.attrs.get("left_out")
    if note and form != "csv":                         # a comment would be a row of the CSV
        text += f"\n\n{'% ' * (form == 'latex')}Left out: {note}"
    elif note:
        print(f"left out: {note}", file=sys.stderr)
    if out:
        write_whole(out, (text + "\n").encode())
    print(f"written: {out}" if out else text)


@app.command()
def info(root: Root = "") -> None:
    """Versions, device, benchmarks, shipped prompts: what to put into a bug report."""
    print(f"minipsync {__version__}, Python {platform.python_version()}, {platform.system()}")
    for name in ("torch", "torchvision", "open_clip_torch", "numpy", "safetensors"):
        print(f"  {name} {importlib.metadata.version(name)}"
              + (f" (CUDA {torch.version.cuda or 'no'})" if name == "torch" else ""))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"device: {', '.join(gpus) or f'cpu, {torch.get_num_threads()} threads'}")
    print(f"methods: {', '.join(REGISTRY)}")
    print(f"mini data sets: {', '.join(BENCHMARKS['mini'].names)}")
    place = root or os.environ.get(ROOT)
    there = bool(place) and Path(os.path.expanduser(place or "")).is_dir()
    print(f"full data sets, for testing: {place or f'no --root and no ${ROOT}'}"
          + ", no such folder" * bool(place and not there))
    for name in BENCHMARKS["full"].names if there else ():
        try:
            print(f"  {name}: {len(benchmark('full', place).dataset(name))} pictures")
        except ASKED as error:
            print(f"  {name}: {str(error).split('; ')[0].split(', expected')[0]}")
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    found = sorted(p.name.split("--")[-1] for p in Path(os.path.expanduser(hub)).glob("models--*lip*"))
    print(f"CLIP weights in the hub's cache: {', '.join(found) or 'none'}")
    print(f"shipped: {len(list(prompt_files.SHIPPED.glob('*.safetensors')))} prompt files, "
          f"{len(list(SHIPPED.glob('*.safetensors')))} of source statistics")
    for folder, kind in ((PROMPTS, "*.safetensors"), (SOURCE, "*.safetensors"), (RECORDS, "*.csv")):
        print(f"{folder}: {len(list(Path(folder).glob(kind)))} files")


# ---- parts ------------------------------------------------------------------------------------------
def _bench(name: str, root: str, partial: bool, model: str, weights: str) -> Benchmark:
    if name == "mini" and (model or weights):
        raise ValueError(f"{'--model' if model else '--weights'} {model or weights}: the mini benchmark has "
                         "a CLIP of its own; for another say --benchmark full")
    return benchmark(name, root or None, partial)


def _sampled(bench: Benchmark, name: str, sample: str, limit: int, seed: int) -> Dataset:
    """The data set `name`, of which `evaluate` takes a balanced part; or a long-tailed sample of it."""
    if sample not in SAMPLES:
        raise ValueError(f"--sample {sample}: expected {' or '.join(SAMPLES)}."
                         f"{did_you_mean(sample, SAMPLES)}")
    if sample == "balanced":
        return bench.dataset(name)
    if not limit:
        raise ValueError("--sample longtail needs --limit: how many images, of which the most frequent class "
                         "gets a share of 1 / (1 + 1/2 + 1/3 + …)")
    return bench.long_tailed(name, limit, seed)


def _prepare_again(typed: Mapping[str, Any], *others: tuple[str, Any]) -> str:
    """The options of `prepare` that make a source with these settings."""
    return typed_again(prepare, typed, *others)


def _typed_here(benchmark: str, model: str, weights: str, trained_on: str, prompts: str) -> tuple:
    """What `prepare` has to be told, too: pairs of option and value, "" where it is the default."""
    return (("--benchmark", benchmark), ("--model", model), ("--weights", weights),
            ("--dataset", trained_on * (trained_on != "imagenet")),
            ("--prompts", prompts * (prompts != PROMPTS)))


def _seeds(text: str) -> list:
    """"1,2,3" -> [1, 2, 3]; "" -> [None]."""
    try:
        return [int(part) for part in text.split(",")] if text else [None]
    except ValueError:
        raise ValueError(f"--seed {text}: expected a whole number, or several with commas between") from None


def _unknown_methods(methods: list[str]) -> list[str]:
    good = ", ".join(REGISTRY)
    return [f"unknown method {name!r}.{did_you_mean(name, REGISTRY)} The methods are {good}"
            for name in methods if name not in REGISTRY]


def _check_trainable(method: str) -> None:
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("fit runs in one process, without torchrun: the papers' batches are too small to "
                         "share")
    if problems := _unknown_methods([method]):
        raise ValueError(problems[0])
    if method not in TRAINED:
        more = ", it tunes those of maple" if REGISTRY[method].needs else ""
        raise TypeError(f"{method} is not trained{more}; expected one of {', '.join(TRAINED)}")


def _try(problems: list[str], what: Callable, *args: Any, **kwargs: Any) -> Any:
    """The value of a call; None, and the error among `problems`, if it raises one."""
    try:
        return what(*args, **kwargs)
    except ASKED as error:
        if (text := str(error)) not in problems:
            problems.append(text)
        return None


def _stop_at(problems: list[str]) -> None:
    if problems:
        many = f"{len(problems)} things are to be mended first; nothing was predicted yet:\n- "
        raise ValueError((many if len(problems) > 1 else "") + "\n- ".join(problems))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, of the first process."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"minipsync: {message}", file=sys.stderr)


def _is_interrupt(error: BaseException | None) -> bool:
    """Does this exit come from Ctrl-C? (typer makes an exit of its own of it.)"""
    return error is not None and (isinstance(error, KeyboardInterrupt)
                                  or _is_interrupt(error.__cause__ or error.__context__))


def main() -> None:
    """Entry point: an error in what was asked for is one line, not a traceback."""
    warnings.showwarning = _warn
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")       # a terminal that knows no dash gets a question mark
    try:
        app()
    except ASKED as error:
        raise SystemExit(f"minipsync: {type(error).__name__}: {error}") from None
    except (KeyboardInterrupt, SystemExit) as error:
        if not _is_interrupt(error):
            raise
        print("\nminipsync: stopped. The same command goes on from what was kept so far.", file=sys.stderr)
        raise SystemExit(130) from None

