"""The command line: `minipsync`, `python -m minipsync`, and under torchrun `torchrun … -m minipsync`.

    minipsync fit maple --benchmark full --root /data            learn prompts on ImageNet
    minipsync prepare promptalign --benchmark full --root /data  what a method keeps of its source
    minipsync run promptalign --dataset sketch --benchmark full --root /data
    minipsync table domain_generalisation                        what was measured, beside what was published
    minipsync info                                               versions, device, what is where
"""

import ast
import functools
import importlib.metadata
import itertools
import os
import platform
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError

from . import __version__, distributed
from .data.full import ROOT
from .evaluation.benchmark import BENCHMARKS, benchmark
from .evaluation.evaluate import evaluate
from .evaluation.gate import check_zero_shot
from .evaluation.prompts import learned, prompt_file
from .files.paths import expand, write_whole
from .methods import REGISTRY, build, prompt_files
from .methods.with_source import find_source
from .report.papers import TABLES, load_runs, report
from .report.writers import to_csv, to_latex, to_markdown, to_text
from .settings import did_you_mean
from .source.domain import SHIPPED, prompts_fingerprint
from .source.one_pass import forget

app = typer.Typer(help="Prompt learning for CLIP: learn prompts, run methods, build the papers' tables.",
                  no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)
WRITERS = {"text": to_text, "csv": to_csv, "markdown": to_markdown, "latex": to_latex}
# told in one line
ASKED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, MemoryError, SafetensorError)

Names = Annotated[list[str], typer.Argument(help=f"one or several of: {', '.join(REGISTRY)}")]
Bench = Annotated[str, typer.Option("--benchmark", help=f"one of: {', '.join(BENCHMARKS)}")]
Root = Annotated[str, typer.Option(help=f"where the full benchmark lies; default: ${ROOT}")]
Partial = Annotated[bool, typer.Option("--partial", help="accept an incomplete copy of a data set")]
Model = Annotated[str, typer.Option(help="full: a model of open_clip; default: ViT-B-16")]
Weights = Annotated[str, typer.Option(help="full: a tag of open_clip, or a file; default: OpenAI's")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1; default: a GPU if there is one")]
Prompts = Annotated[str, typer.Option(help="a file, or a folder to look in before the package's own")]
TrainedOn = Annotated[str, typer.Option(help="the data set that the prompts were learned on")]
Source = Annotated[Path, typer.Option(help="folder of source statistics and prototypes")]
Settings = Annotated[list[str], typer.Option("--set", help="a setting of the method, name=value; repeatable")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress bars")]
PROMPTS, SOURCE, RECORDS = "results/prompts", Path("results/source"), "results/records"


# ---- commands ---------------------------------------------------------------------------------------
@app.command()
def run(methods: Names, dataset: Annotated[str, typer.Option(help="names with commas between")] = "sketch",
        benchmark: Bench = "mini", root: Root = "", partial: Partial = False, model: Model = "",
        weights: Weights = "", precision: Precision = "fp32", device: Device = "", prompts: Prompts = PROMPTS,
        trained_on: TrainedOn = "imagenet", source: Source = SOURCE, settings: Settings = (),
        views: Annotated[int, typer.Option(min=0, help="views per image; 0: the method's own")] = 0,
        steps: Annotated[int, typer.Option(min=-1, help="steps per image; -1: the method's own")] = -1,
        seed: Annotated[str, typer.Option(help="of prompts and views: 2, or 1,2,3; default: own")] = "",
        limit: Annotated[int, typer.Option(min=0, help="images per data set, class-balanced; 0: all")] = 0,
        sample_seed: Annotated[int, typer.Option(help="of the choice of images")] = 0,
        batch: Annotated[int, typer.Option(min=1, help="images per call of predict")] = 16,
        records: Annotated[str, typer.Option(help="folder of one row per image")] = RECORDS,
        gate: Annotated[bool, typer.Option(help="full: first see that zero-shot is above chance")] = True,
        quiet: Quiet = False):
    """Predict data sets and keep one record per image; a run that was stopped goes on where it was."""
    own_device = distributed.start()
    bench = _bench(benchmark, root, partial, model, weights)
    given = _parse(settings) | ({"n_views": views} if views else {})
    given |= {"steps": steps} if steps >= 0 else {}
    known = set().union(*map(_fields, methods))    # what no method knows is an error, which `build` raises
    names, seeds = [name.strip() for name in dataset.split(",")], _seeds(seed)
    # everything that can be wrong is looked at before the first image: a data set can take hours
    good = ", ".join(REGISTRY)
    problems = [f"unknown method {name!r}.{did_you_mean(name, REGISTRY)} The methods are {good}"
                for name in methods if name not in REGISTRY]
    sets = [data for name in names if (data := _try(problems, bench.dataset, name)) is not None]
    _stop_at(problems)
    clip = bench.clip(**_clip_settings(benchmark, model, weights, precision, device or own_device))
    train_set = functools.cache(lambda: bench.dataset(trained_on, "train"))  # L_D of PromptSync draws from it

    def ready(method, data, seed, images=True):
        fields = _fields(method)
        own = {k: v for k, v in given.items() if k in fields or k not in known}
        own |= {"seed": seed} if seed is not None and "seed" in fields else {}
        built = build(method, clip, data.class_names, **{**bench.settings(method, data.name), **own})
        own_name = train_set().name if ":" in trained_on else trained_on        # of folder:/path, its name
        _load(built, prompts, own_name, seed, bench, train_set)
        command = _options(("--benchmark", benchmark), ("--model", model), ("--weights", weights),
                           ("--dataset", trained_on * (trained_on != "imagenet")),
                           ("--prompts", prompts * (prompts != PROMPTS)), *(("--set", s) for s in settings),
                           ("--seed", seed))
        return _take_source(built, source, train_set, trained_on, images, command)

    plan = [(data, method, s) for data in sets for method in methods
            for s in (seeds if "seed" in _fields(method) else [None])]
    for data, method, s in plan:
        _try(problems, ready, method, data, s, images=False)
    _stop_at(problems)
    told = set()
    for data, method, s in plan:
        if data not in told:
            told.add(data)
            if data.origin == "own":
                _say(f"{data}: {', '.join(data.class_names[:5])}{', …' * (len(data.class_names) > 5)}")
            elif gate and benchmark == "full":
                check_zero_shot(clip, data)
        built = ready(method, data, s)
        if built.prompts_from and (method, s) not in told:
            told.add((method, s))
            by_name = "" if _at_hand(train_set, trained_on) else " (by name: its pictures are not here)"
            _say(f"{method}: prompts {built.prompts_from}, trained on {built.trained_on}{by_name}")
        _say(evaluate(built, data, limit or None, records, batch, sample_seed, not quiet))
    _say(f"records: {records}")
    distributed.stop()


@app.command()
def fit(method: Annotated[str, typer.Argument(help="coop, cocoop, maple or ivlp")],
        dataset: Annotated[str, typer.Option(help="to learn from; NAME_base: its base half")] = "imagenet",
        benchmark: Bench = "mini", root: Root = "", partial: Partial = False, model: Model = "",
        weights: Weights = "", precision: Precision = "fp32", device: Device = "", settings: Settings = (),
        seed: Annotated[int, typer.Option(help="of start, few shots and order")] = 1,
        recipe: Annotated[list[str], typer.Option(help="a setting of training, name=value; repeatable")] = (),
        out: Annotated[Path, typer.Option(help="folder of prompts")] = Path(PROMPTS), quiet: Quiet = False):
    """Learn prompts; what was learned before is kept, and a run that was stopped goes on where it was."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("fit runs in one process, without torchrun: the papers' batches are too small to "
                         "share")
    good = [name for name, each in REGISTRY.items() if each.recipe is not None and not each.needs]
    if method in REGISTRY and method not in good:
        more = ", it tunes those of maple" if REGISTRY[method].needs else ""
        raise TypeError(f"{method} is not trained{more}; expected one of {', '.join(good)}")
    bench = _bench(benchmark, root, partial, model, weights)
    train = bench.dataset(dataset, "train")
    clip = bench.clip(**_clip_settings(benchmark, model, weights, precision, device))
    given = _parse(settings)
    if "seed" in given:
        raise ValueError(f"--set seed={given['seed']}: for the seed say --seed {given['seed']}")
    built = build(method, clip, train.class_names,
                  **{**bench.settings(method, train.name), **given, "seed": seed})
    own = bench.settings(f"{method}.fit", dataset) | _parse(recipe)
    learned(built, train, out, progress=not quiet, **own)
    kept = expand(out) / prompt_file(built, train, **own)
    print(f"prompts: {kept if kept.is_file() else prompt_files.SHIPPED.name + ' of the package'}")
    more = _options(("--seed", seed), ("--trained-on", dataset), *(("--set", s) for s in settings),
                    ("--benchmark", benchmark), ("--model", model), ("--weights", weights), ("--root", root),
                    ("--prompts", "" if out == Path(PROMPTS) else out))
    print(f"use them: minipsync run {method} {more} --dataset …")


@app.command()
def prepare(methods: Annotated[list[str], typer.Argument(help="promptalign, promptsync or both")],
            dataset: Annotated[str, typer.Option(help="the source: what the prompts were learned on")]
            = "imagenet", benchmark: Bench = "mini", root: Root = "", partial: Partial = False,
            model: Model = "", weights: Weights = "", precision: Precision = "fp32", device: Device = "",
            prompts: Prompts = PROMPTS, settings: Settings = (),
            seed: Annotated[str, typer.Option(help="of the prompts: 2, or 1,2,3; default: the lowest")] = "",
            again: Annotated[bool, typer.Option("--again", help="compute what is there, too")] = False,
            out: Source = SOURCE, quiet: Quiet = False):
    """Compute what a method keeps of its source: token statistics or class prototypes."""
    if wrong := [name for name in methods if name in REGISTRY and not REGISTRY[name].needs]:
        raise ValueError(f"{wrong[0]} keeps nothing of its source; expected promptalign or promptsync")
    own_device = distributed.start()
    bench = _bench(benchmark, root, partial, model, weights)
    train = bench.dataset(dataset, "train")
    clip = bench.clip(**_clip_settings(benchmark, model, weights, precision, device or own_device))
    given = _parse(settings)
    known = set().union(*map(_fields, methods))
    for method, s in itertools.product(methods, _seeds(seed)):
        own = {k: v for k, v in given.items() if k in _fields(method) or k not in known}
        own |= {"seed": s} if s is not None else {}        # as `run` builds it: the recipe may depend on it
        built = build(method, clip, train.class_names, **{**bench.settings(method), **own})
        _load(built, prompts, train.name, s, bench, lambda: train)
        there = find_source(built, out, train) is not None
        there = distributed.from_first(there)                  # all processes do the same
        if there and not again:
            _say(f"{method}: {built.needs} for {built.prompts_from} are there (--again computes them anew)")
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
          out: Annotated[Path | None, typer.Option(help="a file, instead of the terminal")] = None):
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
def info(root: Root = ""):
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
    there = bool(place) and Path(os.path.expanduser(place)).is_dir()
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
def _bench(name, root, partial, model, weights):
    if name == "mini" and (model or weights):
        raise ValueError(f"{'--model' if model else '--weights'} {model or weights}: the mini benchmark has "
                         "a CLIP of its own; for another say --benchmark full")
    return benchmark(name, root or None, partial)


def _clip_settings(name, model, weights, precision, device) -> dict:
    """What `bench.clip` is to be given."""
    settings = {"precision": precision, "device": device or None}
    return settings | ({"name": model or "ViT-B-16", "weights": weights or None} if name == "full" else {})


def _seeds(text) -> list:
    """"1,2,3" -> [1, 2, 3]; "" -> [None]."""
    try:
        return [int(part) for part in text.split(",")] if text else [None]
    except ValueError:
        raise ValueError(f"--seed {text}: expected a whole number, or several with commas between") from None


def _try(problems, what, *args, **kwargs):
    """The value of a call; None, and the error among `problems`, if it raises one."""
    try:
        return what(*args, **kwargs)
    except ASKED as error:
        if (text := str(error)) not in problems:
            problems.append(text)


def _stop_at(problems):
    if problems:
        many = f"{len(problems)} things are to be mended first; nothing was predicted yet:\n- "
        raise ValueError((many if len(problems) > 1 else "") + "\n- ".join(problems))


def _options(*pairs) -> str:
    """Options as one types them, without those that have no value."""
    return " ".join(f"{name} {shlex.quote(str(value))}" for name, value in pairs if value not in ("", None))


def _parse(pairs) -> dict:
    """["lr=0.1", "init=a photo of a"] -> {"lr": 0.1, "init": "a photo of a"}."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r}: expected name=value, as in lr=0.01")
        try:
            found[name.strip()] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name.strip()] = value
    return found


def _fields(method) -> set[str]:
    """Names of the settings of `method`; none for an unknown one, which `build` refuses."""
    return set(REGISTRY[method].Config.model_fields) if method in REGISTRY else set()


def _load(method, prompts, trained_on, seed, bench, train_set):
    """Give `method`, if it takes any, the prompts of a file, or those of a folder, else of the package, that
    fit; where several do, those that `fit` makes with the benchmark's recipe."""
    if method.learner is None or method.recipe is None and not method.accepts:
        return
    place = expand(prompts)
    if place.is_file():
        return prompt_files.load(method, place)
    if prompts != PROMPTS and not place.is_dir():
        raise FileNotFoundError(f"--prompts {prompts}: there is no such file or folder")
    bench.load_prompts(method, place, trained_on, seed)


def _at_hand(train_set, trained_on):
    """The training set, or None where it is not here, or not whole, so that prompts go by its name alone."""
    try:
        train = train_set()
    except (FileNotFoundError, ValueError):
        if ":" in trained_on:                              # one's own, asked for by its path
            raise
        return None
    return None if train.origin == "partial" else train


def _take_source(method, folder, train_set, trained_on, images, command):
    """`method` with what it keeps of its source; images=False only looks whether all is there. Raises
    FileNotFoundError with the command for what is missing, ValueError for prompts of another source."""
    if not method.needs:
        return method
    train = train_set() if method.needs == "prototypes" else None    # PromptAlign needs its numbers alone
    if train is not None and method.trained_on not in ("", train.name):
        raise ValueError(f"{method.name}: the prompts {method.prompts_from} were learned on "
                         f"{method.trained_on}; say --trained-on {method.trained_on}")
    found = find_source(method, folder, _at_hand(train_set, trained_on))
    if found is None:
        raise FileNotFoundError(f"{method.name} has no source {method.needs} in {str(folder)!r} for the "
                                f"prompts {method.prompts_from}; compute them once: minipsync prepare "
                                f"{method.name} {command}")
    return method.prepare(train, found=found) if images else method


def _say(text):
    if distributed.rank() == 0:
        print(text, flush=True)


def _warn(message, *_, **__):
    """A warning as one line, of the first process."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"minipsync: {message}", file=sys.stderr)


def _is_interrupt(error) -> bool:
    """Does this exit come from Ctrl-C? (typer makes an exit of its own of it.)"""
    return error is not None and (isinstance(error, KeyboardInterrupt)
                                  or _is_interrupt(error.__cause__ or error.__context__))


def main():
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


if __name__ == "__main__":
    main()
