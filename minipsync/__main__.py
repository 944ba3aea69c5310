"""The command line: `minipsync`, `python -m minipsync`, and under torchrun `torchrun … -m minipsync`.

    minipsync fit maple --benchmark full --root /data            learn prompts on ImageNet
    minipsync prepare promptalign --benchmark full --root /data  what a method keeps of its source
    minipsync run promptalign --dataset sketch --benchmark full --root /data
    minipsync table domain_generalisation                        what was measured, beside what was published
    minipsync info                                               versions, device, what is where
"""

import ast
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

from . import __version__, distributed
from .data import BENCHMARKS, benchmark
from .data.full import ROOT
from .evaluation import evaluate
from .methods import REGISTRY, build, files
from .protocols import learned, prompt_file
from .report import TABLES, load_runs, report
from .settings import did_you_mean
from .source_pass import forget
from .statistics import SHIPPED, prompts_fingerprint
from .tables import to_csv, to_latex, to_markdown, to_text
from .zero_shot_gate import check_zero_shot

app = typer.Typer(help="Prompt learning for CLIP: learn prompts, run methods, build the papers' tables.",
                  no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)
WRITERS = {"text": to_text, "csv": to_csv, "markdown": to_markdown, "latex": to_latex}
ASKED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, MemoryError)   # told in one line

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
    problems = [str(ValueError(f"unknown method {name!r}.{did_you_mean(name, REGISTRY)} The methods are "
                               f"{', '.join(REGISTRY)}")) for name in methods if name not in REGISTRY]
    sets = [data for name in names if (data := _try(problems, bench.dataset, name)) is not None]
    _stop_at(problems)
    clip = bench.clip(**_clip_settings(benchmark, model, weights, precision, device or own_device))

    def ready(method, data, seed, images=True):
        fields = _fields(method)
        own = {k: v for k, v in given.items() if k in fields or k not in known}
        own |= {"seed": seed} if seed is not None and "seed" in fields else {}
        built = build(method, clip, data.class_names, **{**bench.settings(method, data.name), **own})
        return _load(built, bench, prompts, source, trained_on, seed, images)

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
            _say(f"{method}: prompts {built.prompts_from}, trained on {built.trained_on}")
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
    if method in REGISTRY and REGISTRY[method].recipe is None:
        raise TypeError(f"{method} is not trained; expected one of "
                        + ", ".join(name for name, each in REGISTRY.items() if each.recipe is not None))
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
    kept = out / prompt_file(built, train, **own)
    print(f"prompts: {kept if kept.is_file() else files.SHIPPED.name + ' of the package'}")
    given = "".join(f" --set {shlex.quote(pair)}" for pair in settings)
    elsewhere = "" if str(out) == PROMPTS else f" --prompts {shlex.quote(str(out))}"
    print(f"use them: minipsync run {method} --seed {seed} --trained-on {train.name}{given}{elsewhere} "
          f"--benchmark {benchmark} --dataset …")


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
    if wrong := [name for name in methods if name in REGISTRY and not REGISTRY[name].keeps]:
        raise ValueError(f"{wrong[0]} keeps nothing of its source; expected promptalign or promptsync")
    own_device = distributed.start()
    bench = _bench(benchmark, root, partial, model, weights)
    train = bench.dataset(dataset, "train")
    clip = bench.clip(**_clip_settings(benchmark, model, weights, precision, device or own_device))
    given = _parse(settings)
    known = set().union(*map(_fields, methods))
    for method, s in itertools.product(methods, _seeds(seed)):
        own = {k: v for k, v in given.items() if k in _fields(method) or k not in known}
        built = build(method, clip, train.class_names, **{**bench.settings(method), **own})
        _find_prompts(built, prompts, train.name, s)
        if built.find_source(out) is not None and not again:
            _say(f"{method}: {built.keeps} for {built.prompts_from} are there (--again computes them anew)")
            continue
        checkpoint = out / f"{method}_{train.name}_{prompts_fingerprint(built.learner)[:8]}.part"
        built.prepare(train, progress=not quiet, checkpoint=checkpoint)
        if distributed.rank() == 0:
            print(f"{built.keeps}: {getattr(built, built.keeps).keep(out)}")
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
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
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
    there = bool(place) and Path(place).expanduser().is_dir()
    print(f"full data sets, for testing: {place or f'no --root and no ${ROOT}'}"
          + ", no such folder" * bool(place and not there))
    for name in BENCHMARKS["full"].names if there else ():
        try:
            print(f"  {name}: {len(benchmark('full', place).dataset(name))} pictures")
        except (OSError, ValueError) as error:
            print(f"  {name}: {str(error).split('; ')[0].split(', expected')[0]}")
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    found = sorted(p.name.split("--")[-1] for p in Path(hub).expanduser().glob("models--*lip*"))
    print(f"CLIP weights in the hub's cache: {', '.join(found) or 'none'}")
    print(f"shipped: {len(list(files.SHIPPED.glob('*.safetensors')))} prompt files, "
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
    return set(REGISTRY[method].Config.__dataclass_fields__) if method in REGISTRY else set()


def _find_prompts(method, prompts, trained_on, seed):
    """Give `method` the prompts of a file, or those of a folder, else of the package, that fit."""
    if Path(prompts).expanduser().is_file():
        return files.load(method, prompts)
    choice = {"trained_on": trained_on, "seed": seed}
    try:
        path = files.find(method, Path(prompts).expanduser(), **choice)
    except FileNotFoundError as missing:
        try:
            path = files.find(method, **choice)
        except FileNotFoundError as error:             # of the two lists the one that is not empty
            raise (error if str(missing).endswith("none") else missing) from None
    files.load(method, path)


def _load(method, bench, prompts, source, trained_on, seed, images):
    """`method` with its prompts and, where it has any, what belongs to its source; images=False only looks
    whether all is there. Raises FileNotFoundError that names the command for what is missing."""
    if method.learner is None or method.recipe is None and not method.accepts:
        return method
    _find_prompts(method, prompts, trained_on, seed)
    if not method.keeps:
        return method
    if method.find_source(source) is None:
        given = f" --dataset {method.trained_on}" * (method.trained_on != "imagenet")
        given += f" --prompts {shlex.quote(prompts)}" * (prompts != PROMPTS)
        given += f" --seed {seed}" * (seed is not None)
        raise FileNotFoundError(f"{method.name} has no source {method.keeps} in {str(source)!r} for the "
                                f"prompts {method.prompts_from}; compute them once: minipsync prepare "
                                f"{method.name} --benchmark {bench.name}{given}")
    # L_D of PromptSync draws from the source; PromptAlign needs its numbers alone
    train = bench.dataset(method.trained_on, "train") if images and method.keeps == "prototypes" else None
    return method.use_source(source, train) if images else method


def _say(text):
    if distributed.rank() == 0:
        print(text, flush=True)


def _warn(message, *_, **__):
    """A warning as one line, of the first process."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"minipsync: {message}", file=sys.stderr)


def main():
    """Entry point: an error in what was asked for is one line, not a traceback."""
    warnings.showwarning = _warn
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")       # a terminal that knows no dash gets a question mark
    try:
        app()
    except ASKED as error:
        raise SystemExit(f"minipsync: {type(error).__name__}: {error}") from None


if __name__ == "__main__":
    main()
