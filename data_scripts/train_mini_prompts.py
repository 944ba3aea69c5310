"""Train the prompts that the package ships for the mini CLIP: `python -m data_scripts.train_mini_prompts`.

A few minutes a seed. MaPLe on `imagenet` train of the mini benchmark (2 tokens, depth 3, 16 shots; epochs and
rate as `minipsync/assets/mini/settings.json` says), then, for the first seed, the source statistics of
PromptAlign and the class prototypes of PromptSync under these prompts. Training is checkpointed below --work,
so a killed run goes on where it was. Files that are there already and fit are kept; after a change of the
settings remove them.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import minipsync as mp
from minipsync.methods.files import SHIPPED as PROMPTS
from minipsync.prototypes import Prototypes
from minipsync.statistics import SHIPPED as STATISTICS
from minipsync.statistics import SourceStatistics


def fits(method, file: Path) -> bool:
    """Does `file` hold prompts for this method and this mini CLIP? Then they are in `method` now."""
    try:
        return bool(method.load(file))
    except (FileNotFoundError, ValueError):
        return False


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, nargs="+", default=[1])
    p.add_argument("--work", type=Path, default=Path("build/mini_prompts"))
    p.add_argument("--device", default=None)
    args = p.parse_args()
    bench = mp.benchmark("mini")
    clip, train = bench.clip(device=args.device), bench.dataset("imagenet", split="train")
    args.work.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        file = PROMPTS / f"maple_mini_imagenet_seed{seed}.safetensors"
        method = mp.build("maple", clip, train.class_names, seed=seed)
        if not fits(method, file):
            checkpoint = args.work / f"maple_{clip.fingerprint}_seed{seed}.safetensors"
            method.fit(train, checkpoint=checkpoint, **bench.settings("maple.fit")).save(file)
        print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
        if seed != args.seeds[0]:
            continue
        for name, kind, source in (("promptalign", "statistics", SourceStatistics),
                                   ("promptsync", "prototypes", Prototypes)):
            made = STATISTICS / f"{kind}_mini_maple_seed{seed}.safetensors"
            if source.shipped(clip, method.learner) is None:
                learner = mp.build(name, clip, train.class_names, **bench.settings(name))
                learner.load(file)                         # PromptSync computes its prototypes on the way
                if getattr(learner, kind) is None:
                    learner.prepare(train)
                getattr(learner, kind).save(made)
            print(f"{made.name}: {made.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
