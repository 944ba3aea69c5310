"""Zero-shot accuracy of the mini CLIP on all of mini, by template: `python -m benchmarks.mini_zero_shot`.

Writes results/mini/zero_shot.csv (one row per data set and template, intervals over classes) and prints the
table of the model card. Images are encoded once; only the texts change.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from tqdm import tqdm

import minipsync as mp
from minipsync.clip.text import pack_texts
from minipsync.evaluation.results import accuracy_interval, calibration_error
from minipsync.report.writers import to_markdown

OUT = Path(__file__).resolve().parent.parent / "results/mini/zero_shot.csv"
TEMPLATES = {
    "photo": ["a photo of a {}."], "name": ["{}"], "sketch": ["a sketch of a {}."],
    "line drawing": ["a line drawing of a {}."], "black and white": ["a black and white drawing of a {}."],
    "flat icon": ["a flat icon of a {}."], "cartoon": ["a cartoon of a {}."],
    "3d": ["a 3d rendering of a {}."],
    "ensemble of 7": ["itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.",
                      "a {} in a video game.", "art of the {}.", "a photo of the small {}."],
    "ensemble of 80": [t("{}") for t in OPENAI_IMAGENET_TEMPLATES],
}


@torch.no_grad()
def class_features(clip, class_names, templates) -> torch.Tensor:
    """[C, D] mean of the normalised features over the templates, normalised again."""
    packed = [pack_texts([t.format(c) for c in class_names]).to(clip.device) for t in templates]
    each = [clip.encode_text(texts) for texts in packed]
    return torch.nn.functional.normalize(torch.stack(each).mean(0), dim=-1)


@torch.no_grad()
def image_features(clip, data) -> torch.Tensor:
    """[n, D] normalised features of all pictures."""
    parts = []
    for start in tqdm(range(0, len(data), 100), desc=data.name, leave=False):
        images = [data[i][0] for i in range(start, min(start + 100, len(data)))]
        parts.append(clip.encode_image(clip.preprocess(images)))
    return torch.cat(parts)


def measured(bench, clip) -> pd.DataFrame:
    """One row per data set and template."""
    rows = []
    for name in bench.names:
        data = bench.dataset(name)
        image, labels = image_features(clip, data), torch.from_numpy(data.labels)
        for title, templates in TEMPLATES.items():
            logits = clip.logit_scale * image @ class_features(clip, data.class_names, templates).T
            p, right = logits.softmax(1), (logits.argmax(1) == labels).numpy().astype(float)
            low, high = accuracy_interval(right, data.labels)
            ece, ece_low, ece_high = calibration_error(p.amax(1).numpy(), right, data.labels)
            rows.append(dict(method="zero_shot", dataset=name, origin=data.origin, template=title, seed=0,
                             n=len(data), accuracy=right.mean(), low=low, high=high, ece=ece,
                             ece_low=ece_low, ece_high=ece_high))
    return pd.DataFrame(rows)


def main() -> None:
    bench = mp.benchmark("mini")
    clip = bench.clip()
    table = measured(bench, clip)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(OUT, index=False)
    wide = 100 * table.pivot(index="dataset", columns="template", values="accuracy")
    wide = wide.loc[list(bench.names), list(TEMPLATES)].round(1)
    photo = table[table.template == "photo"].set_index("dataset")
    singles = wide.drop(columns=["ensemble of 7", "ensemble of 80"])
    wide.insert(0, "95 %", [f"{100 * photo.low[d]:.1f} – {100 * photo.high[d]:.1f}" for d in wide.index])
    wide.insert(0, "n", photo.n)
    wide["spread"] = (singles.max(axis=1) - singles.min(axis=1)).round(1)
    print(to_markdown(wide, digits=1))
    ood = wide.loc[["v2", "sketch", "r", "a"], "photo"]
    print(f"\nOOD average {np.mean(ood):.1f}; mini CLIP {clip.fingerprint}")


if __name__ == "__main__":
    main()
