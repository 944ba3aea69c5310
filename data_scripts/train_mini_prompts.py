"""Train the prompts that the package ships for the mini CLIP: `python -m data_scripts.train_mini_prompts`.

What the notebooks load: MaPLe and CoOp on `imagenet` for three seeds, CoOp and CoCoOp on the base halves of
three transfer sets, CoOp's shots, context lengths and positions on one, and, for the first seed of MaPLe, the
source statistics of PromptAlign and the class prototypes of PromptSync. About 40 minutes on one core.
Training is checkpointed below --work, so a killed run goes on where it was; what is there is kept, and
a changed setting has another file name. --only coop_animals trains what has this in its name (several
processes can share the work so).
"""
from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

import torch

import minipsync as mp
from minipsync.evaluation.prompts import learned, prompt_file
from minipsync.evaluation.protocols import SEEDS
from minipsync.methods.prompt_files import SHIPPED as PROMPTS
from minipsync.methods.with_source import find_source
from minipsync.source.domain import SHIPPED as STATISTICS

FEW_SHOT_SETS = ("animals", "vehicles", "signs")   # base to novel
CURVE_SET = "animals"                              # all its classes: shots, context, position
WORDS = {"n_ctx": 4, "init": "a photo of a"}
CONTEXTS = ({"n_ctx": 4}, {"n_ctx": 16}, {**WORDS, "position": "middle"}, {**WORDS, "position": "front"},
            {"n_ctx": 4, "class_specific": True})


def runs(bench):
    """(method, settings, training set, recipe) of every file."""
    source = bench.dataset("imagenet", "train")
    for seed in SEEDS:
        for name, settings in (("maple", {}), ("coop", WORDS)):
            yield name, {**settings, "seed": seed}, source, bench.settings(f"{name}.fit")
    for each in FEW_SHOT_SETS:
        base, _ = bench.dataset(each, "train").halves()
        base.name = f"{each}_base"
        for seed in SEEDS:
            for name, settings in (("coop", WORDS), ("cocoop", {}), ("coop", {"n_ctx": 60})):
                yield name, {**settings, "seed": seed}, base, bench.settings(f"{name}.fit", each)
    curve, recipe = bench.dataset(CURVE_SET, "train"), bench.settings("coop.fit", CURVE_SET)
    for seed in SEEDS:
        for shots in (16, 8, 4, 2, 1):
            yield "coop", {**WORDS, "seed": seed}, curve, {**recipe, "shots": shots}
        for context in CONTEXTS:
            yield "coop", {**context, "seed": seed}, curve, recipe


def remember_images(clip) -> None:
    """Let `clip` encode a picture without prompts only once. A crop is a function of seed, epoch and picture,
    so all contexts that are learned from one set and seed see the same ones: the rest is text."""
    encode, known = clip.encode_image, {}

    def remembering(images, prompts=None, **kwargs):
        if prompts is not None or kwargs or images.requires_grad or images.ndim != 4:
            return encode(images, prompts, **kwargs)
        keys = [hashlib.blake2b(image.numpy(force=True).tobytes()).digest() for image in images]
        if new := [i for i, key in enumerate(keys) if key not in known]:
            known.update(zip((keys[i] for i in new), encode(images[new]), strict=True))
        return torch.stack([known[key] for key in keys])
    clip.__dict__["encode_image"] = remembering


def source_files(bench, clip, maple_file: Path) -> None:
    """Statistics and prototypes of the source under these MaPLe prompts."""
    train = bench.dataset("imagenet", "train")
    for name, kind in (("promptalign", "statistics"), ("promptsync", "prototypes")):
        method = mp.build(name, clip, train.class_names, **bench.settings(name)).load(maple_file)
        made = STATISTICS / f"{kind}_mini_maple_seed1.safetensors"
        if find_source(method, source_set=train) is None:
            method.prepare(train).source.save(made)
        print(f"{made.name}: {made.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="", help="train what has this in its file name")
    p.add_argument("--work", type=Path, default=Path("build/mini_prompts"))
    p.add_argument("--device", default=None)
    args = p.parse_args()
    bench = mp.benchmark("mini")
    clip, maple = bench.clip(device=args.device), None
    remember_images(clip)
    for name, settings, train, recipe in runs(bench):
        method = mp.build(name, clip, train.class_names, **settings)
        file = prompt_file(method, train, **recipe)
        if args.only not in file:
            continue
        learned(method, train, args.work, **recipe)
        if not (PROMPTS / file).is_file():
            shutil.copyfile(args.work / file, PROMPTS / file)
        print(f"{file}: {(PROMPTS / file).stat().st_size / 1e3:.0f} kB", flush=True)
        maple = maple or (PROMPTS / file if name == "maple" and settings["seed"] == 1 else None)
    if maple:
        source_files(bench, clip, maple)


if __name__ == "__main__":
    main()
