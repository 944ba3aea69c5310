"""The command line: `minipsync`, `python -m minipsync`, and under torchrun `torchrun … -m minipsync`.

    minipsync fit maple --benchmark full --root /data            learn prompts on ImageNet
    minipsync prepare promptalign --benchmark full --root /data  what a method keeps of its source
    minipsync run promptalign --dataset sketch --benchmark full --root /data
    minipsync table domain_generalisation                        what was measured, beside what was published
    minipsync info                                               versions, device, what is where
"""

import ast
import importlib.metadata
import os
import platform
import sys
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
from .source_pass import forget
from .statistics import SHIPPED
from .tables import to_csv, to_latex, to_markdown, to_text
from .zero_shot_gate import check_zero_shot

app = typer.Typer(help="Prompt learning for CLIP: learn prompts, run methods, build the papers' tables.",
                  no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)
WRITERS = {"text": to_text, "csv": to_csv, "markdown": to_markdown, "latex": to_latex}

Names = Annotated[list[str], typer.Argument(help=f"one or several of: {', '.join(REGISTRY)}")]
Bench = Annotated[str, typer.Option("--benchmark", help=f"one of: {', '.join(BENCHMARKS)}")]
Root = Annotated[str, typer.Option(help=f"where the full benchmark lies; default: ${ROOT}")]
Partial = Annotated[bool, typer.Option("--partial", help="accept an incomplete copy of a data set")]
Model = Annotated[str, typer.Option(help="an open_clip model for the full benchmark")]
Weights = Annotated[str, typer.Option(help="a tag of open_clip, or a file; default: OpenAI's")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1; default: a GPU if there is one")]
Prompts = Annotated[str, typer.Option(help="a file, a folder to look in, or auto: those of the package")]
Source = Annotated[Path, typer.Option(help="folder of source statistics and prototypes")]
Settings = Annotated[list[str], typer.Option("--set", help="a setting of the method, name=value; repeatable")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress bars")]
PROMPTS, SOURCE, RECORDS = "results/prompts", Path("results/source"), "results/records"


# ---- commands ---------------------------------------------------------------------------------------
@app.command()
def run(methods: Names, dataset: Annotated[str, typer.Option(help="names with commas between")] = "sketch",
        benchmark: Bench = "mini", root: Root = "", partial: Partial = False, model: Model = "ViT-B-16",
        weights: Weights = "", precision: Precision = "fp32", device: Device = "", prompts: Prompts = PROMPTS,
        source: Source = SOURCE, settings: Settings = (),
        views: Annotated[int, typer.Option(help="views per image; 0: the method's own")] = 0,
        steps: Annotated[int, typer.Option(help="steps per image; -1: the method's own")] = -1,
        limit: Annotated[int, typer.Option(help="images per data set, class-balanced; 0: all")] = 0,
        seed: Annotated[int, typer.Option(help="of the choice of images")] = 0,
        batch: Annotated[int, typer.Option(help="images per call of predict")] = 16,
        records: Annotated[str, typer.Option(help="folder of one row per image")] = RECORDS,
        gate: Annotated[bool, typer.Option(help="full: first see that zero-shot is above chance")] = True,
        quiet: Quiet = False):
    """Predict data sets and keep one record per image; a run that was stopped goes on where it was."""
    own_device = distributed.start()
    bench, clip = _bench(benchmark, root, partial, model, weights, precision, device or own_device)
    given = _parse(settings) | ({"n_views": views} if views else {})
    given |= {"steps": steps} if steps >= 0 else {}
    known = set().union(*map(_fields, methods))    # what no method knows is an error, which `build` raises
    for name in dataset.split(","):
        data = bench.dataset(name.strip())
        if gate and benchmark == "full" and ":" not in name:
            check_zero_shot(clip, data)
        for method in methods:
            own = {k: v for k, v in given.items() if k in _fields(method) or k not in known}
            built = build(method, clip, data.class_names, **{**bench.settings(method, data.name), **own})
            _load(built, prompts, source, bench)
            _say(evaluate(built, data, limit or None, records, batch, seed, not quiet))
    _say(f"records: {records}")
    distributed.stop()


@app.command()
def fit(method: Annotated[str, typer.Argument(help="coop, cocoop, maple or ivlp")],
        dataset: Annotated[str, typer.Option(help="data set to learn from")] = "imagenet",
        benchmark: Bench = "mini", root: Root = "", partial: Partial = False, model: Model = "ViT-B-16",
        weights: Weights = "", precision: Precision = "fp32", device: Device = "", settings: Settings = (),
        base: Annotated[bool, typer.Option("--base", help="only the base half of the classes")] = False,
        seed: Annotated[int, typer.Option(help="of start, few shots and order")] = 1,
        recipe: Annotated[list[str], typer.Option(help="a setting of training, name=value; repeatable")] = (),
        out: Annotated[Path, typer.Option(help="folder of prompts")] = Path(PROMPTS), quiet: Quiet = False):
    """Learn prompts; what was learned before is kept, and a run that was stopped goes on where it was."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("fit runs in one process, without torchrun: the papers' batches are too small to "
                         "share")
    bench, clip = _bench(benchmark, root, partial, model, weights, precision, device)
    train = bench.dataset(dataset, "train")
    if base:
        train, _ = train.halves()
        train.name = f"{dataset}_base"
    if method in REGISTRY and REGISTRY[method].recipe is None:
        raise TypeError(f"{method} is not trained; expected one of "
                        + ", ".join(name for name, each in REGISTRY.items() if each.recipe is not None))
    built = build(method, clip, train.class_names, **{**_parse(settings), "seed": seed})
    own = bench.settings(f"{method}.fit", dataset) | _parse(recipe)
    learned(built, train, out, progress=not quiet, **own)
    kept = out / prompt_file(built, train, **own)
    print(f"prompts: {kept if kept.is_file() else files.SHIPPED.name + ' of the package'}")


@app.command()
def prepare(method: Annotated[str, typer.Argument(help="promptalign or promptsync")],
            dataset: Annotated[str, typer.Option(help="the source data set")] = "imagenet",
            benchmark: Bench = "mini", root: Root = "", partial: Partial = False, model: Model = "ViT-B-16",
            weights: Weights = "", precision: Precision = "fp32", device: Device = "",
            prompts: Prompts = PROMPTS, settings: Settings = (), out: Source = SOURCE, quiet: Quiet = False):
    """Compute what a method keeps of its source: token statistics or class prototypes."""
    own_device = distributed.start()
    bench, clip = _bench(benchmark, root, partial, model, weights, precision, device or own_device)
    train = bench.dataset(dataset, "train")
    built = build(method, clip, train.class_names, **{**bench.settings(method), **_parse(settings)})
    if not hasattr(built, "prepare"):
        raise ValueError(f"{method} keeps nothing of its source; expected promptalign or promptsync")
    _load(built, prompts, out, bench, find_source=False)
    kind = "statistics" if hasattr(built, "statistics") else "prototypes"
    checkpoint = out / f"{kind}_{train.name}.part"
    built.prepare(train, progress=not quiet, checkpoint=checkpoint)
    if distributed.rank() == 0:
        made = getattr(built, kind)
        print(f"{kind}: {made.save(out / f'{kind}_{train.name}_{made.prompts[:8]}.safetensors')}")
        forget(checkpoint)
    distributed.stop()


@app.command()
def table(name: Annotated[str, typer.Argument(help=f"one of: {', '.join(TABLES)}")],
          benchmark: Bench = "mini",
          records: Annotated[Path, typer.Option(help="folder of records")] = Path(RECORDS),
          form: Annotated[str, typer.Option(help=f"one of: {', '.join(WRITERS)}")] = "text",
          out: Annotated[Path | None, typer.Option(help="a file, instead of the terminal")] = None):
    """A table of the papers from the records, beside the published numbers."""
    if form not in WRITERS:
        raise ValueError(f"--form {form}: expected one of {', '.join(WRITERS)}")
    made = report(name, load_runs(records), benchmark)
    text = WRITERS[form](made)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
    print(f"written: {out}" if out else text)
    if made.attrs.get("left_out"):
        print(f"left out: {made.attrs['left_out']}", file=sys.stderr)


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
    print(f"full data sets: {place or f'no --root and no ${ROOT}'}")
    if place:
        for name in BENCHMARKS["full"].names:
            try:
                print(f"  {name}: {len(benchmark('full', place).dataset(name))} pictures")
            except (OSError, ValueError) as error:
                print(f"  {name}: {str(error).split('; ')[0].split(', expected')[0]}")
    print(f"shipped: {len(list(files.SHIPPED.glob('*.safetensors')))} prompt files, "
          f"{len(list(SHIPPED.glob('*.safetensors')))} of source statistics")


# ---- parts ------------------------------------------------------------------------------------------
def _bench(name, root, partial, model, weights, precision, device):
    bench = benchmark(name, root or None, partial)
    settings = {"precision": precision, "device": device or None}
    if name == "full":
        settings |= {"name": model, "weights": weights or None}
    return bench, bench.clip(**settings)


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


def _load(method, prompts, source, bench, find_source=True):
    """Give `method` its prompts and, where it has any, what belongs to its source."""
    if method.learner is None or method.recipe is None and not method.accepts:
        return
    path = prompts
    if prompts == PROMPTS:                         # the default: what `fit` left there, else the package's
        try:
            path = files.find(method, Path(prompts))
        except FileNotFoundError:
            path = "auto"
    files.load(method, path)
    if not (find_source and hasattr(method, "prepare")):
        return
    # statistics of the real ImageNet take hours: only `prepare` computes them; L_D draws from it all the same
    needs_images = hasattr(method, "prototypes") or bench.name == "mini"
    train = bench.dataset(method.trained_on, "train") if needs_images else None
    method.load(path, folder=source, source=train)


def _say(text):
    if distributed.rank() == 0:
        print(text, flush=True)


def main():
    """Entry point: an error in what was asked for is one line, not a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise SystemExit(f"minipsync: {type(error).__name__}: {error}") from None


if __name__ == "__main__":
    main()
