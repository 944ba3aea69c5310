"""Choose the scenes of data set `a`: `python -m data_scripts.make_hard` (five minutes).

As ImageNet-A was built (Hendrycks et al. 2021): scenes of the test families that an independent reference
model gets wrong. The reference has nothing in common with CLIP: oriented-gradient histograms and coarse
colours, with a linear classifier trained on the training families. Of a class's scenes (CANDIDATES a style),
the KEPT ones with the lowest probability of the true class are taken, if it erred on them.
"""
from __future__ import annotations

import json

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from minipsync.data.mini import ASSETS, TRAIN, Mini

STYLES = ("fluent-flat", "fluent-3d", "fluent-contrast", "openmoji", "openmoji-black")
CANDIDATES, KEPT, VIEWS = 4, 4, 8     # candidates per style; scenes kept per class; training scenes per style


def features(pictures: torch.Tensor) -> torch.Tensor:
    """Histograms of gradient direction in 8 x 8 cells, mean colours in 4 x 4 cells, of half the resolution.

    [N, 3, 128, 128] in [0, 1] -> [N, 8*64 + 3*16].
    """
    pictures = F.avg_pool2d(pictures, 2)
    grey = pictures.mean(1, keepdim=True)
    dx, dy = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    strength, direction = (dx.square() + dy.square()).sqrt(), torch.atan2(dy, dx) % torch.pi
    bins = F.one_hot((direction / torch.pi * 8).long().clamp(max=7).squeeze(1), 8)
    bins = bins.permute(0, 3, 1, 2) * strength                                         # [N, 8, 62, 62]
    cells = F.adaptive_avg_pool2d(F.pad(bins, (1, 1, 1, 1)), 8).flatten(1)
    colours = F.adaptive_avg_pool2d(pictures, 4).flatten(1)
    return torch.cat([F.normalize(cells, dim=1), 0.3 * F.normalize(colours, dim=1)], 1)


def seen(mini: Mini, keys: list[tuple[str, str, int]]) -> torch.Tensor:
    """Features of the scenes (id, style, row)."""
    pictures = [np.array(mini.picture(style, row, mini.scene(key, style)))
                for key, style, row in tqdm(keys, desc="scenes")]
    return features(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255)


def main() -> None:
    torch.manual_seed(0)
    mini = Mini()
    rows = mini.rows("imagenet")
    code = [c["hexcode"] for c in mini.index["classes"]]
    train = [(f"reference/{code[r]}/{s}/{k}", s, r) for r in rows for s in (*TRAIN, "twemoji")
             if r not in mini.styles[s]["missing"] for k in range(VIEWS)]
    x, y = seen(mini, train), torch.tensor([rows.index(r) for *_, r in train])
    mean, std = x.mean(0), x.std(0).clamp_min(1e-4)
    linear = torch.nn.Linear(x.shape[1], len(rows))
    optimiser = torch.optim.AdamW(linear.parameters(), lr=3e-3, weight_decay=0.3)
    for _ in range(300):
        loss = F.cross_entropy(linear((x - mean) / std), y, label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    test = [(f"a/test/{code[r]}/{s}/{k}", s, r) for r in rows for s in STYLES for k in range(CANDIDATES)]
    with torch.no_grad():
        probability = linear((seen(mini, test) - mean) / std).softmax(1)
    truth = torch.tensor([rows.index(r) for *_, r in test])
    right = probability.argmax(1) == truth
    belief = probability[torch.arange(len(test)), truth] + right                # right ones go to the end
    per_class = belief.view(len(rows), -1)
    chosen = []
    for c, order in enumerate(per_class.argsort(1)[:, :KEPT].tolist()):
        chosen += [test[c * per_class.shape[1] + i][0] for i in sorted(order) if per_class[c, i] < 1]
    (ASSETS / "hard.json").write_text(json.dumps({
        "reference": "gradient histograms + linear classifier, trained on the training families "
                     "(data_scripts/make_hard.py)",
        "reference_accuracy_on_candidates": round(float(right.float().mean()), 4),
        "candidates": len(test), "images": chosen}, indent=0) + "\n", encoding="utf-8")
    learnt = float((linear((x - mean) / std).argmax(1) == y).float().mean())
    print(f"reference accuracy on its training scenes {learnt:.3f}, "
          f"on {len(test)} candidates {float(right.float().mean()):.3f}; kept {len(chosen)}")


if __name__ == "__main__":
    main()
