"""Predictions of a few pictures, as they were: a change of code that moves one of any method is seen here.

Records are valid as long as the code of a prediction is the same (source_code.py). This guards the other
side: what that code gives. Where a prediction is meant to move, write them anew, in the project's folder:

    PYTHONPATH=tests python tests/methods/test_stored_predictions.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import GradientDescent, largest, moves

from minipsync.data.dataset import Dataset
from minipsync.methods import REGISTRY, build
from minipsync.methods.feature_cache import FewShotMethod

FILE = Path(__file__).parents[1] / "golden/predictions.json"
NAMES = ["cat", "sea horse", "kite", "old lighthouse", "fern"]
VIEWS = {"n_views": 8, "selection": 0.25}
SMALL = {"n_views": 7, "selection": 0.25, "source_views": 2, "text_variants": 2, "prototype_views": 2,
         "classes_per_step": 3, "optimizer": "sgd", "lr": 0.1}
SETTINGS = {"zero_shot": {}, "coop": {"n_ctx": 4}, "cocoop": {}, "maple": {}, "ivlp": {}, "tpt": VIEWS,
            "maple_tpt": VIEWS | {"lr": 5e-3}, "promptalign": VIEWS | {"lr": 5e-3}, "promptsync": SMALL,
            "promptsync_star": SMALL, "confident_views": VIEWS, "nearest_mean": {"shots": 2},
            "tip_adapter": {"shots": 2}}


def picture(i):
    """Blocks of colour, larger than a view is apt to cut away."""
    small = np.random.RandomState(100 + i).randint(0, 256, (5, 5, 3)).astype("uint8")
    return Image.fromarray(small).resize((40, 36), Image.Resampling.NEAREST)


def predict(name, clip):
    """Logits [3, 5] of three pictures, with prompts as they start and a source of ten pictures."""
    method = build(name, clip, NAMES, **SETTINGS[name])
    source = Dataset("toys", NAMES, [0, 1, 2, 3, 4] * 2, list("abcdefghij"), picture)
    if method.needs:
        method.prepare(source, progress=False)
    if isinstance(method, FewShotMethod):
        method.fit(source, epochs=2, progress=False)
    return method.predict([picture(i) for i in range(10, 13)])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.filterwarnings("ignore:.*never trained", "ignore:WordNet")
def test_a_prediction_is_what_it_was(name, tiny_clip, monkeypatch):
    """Up to rounding, of this machine and of the one that wrote them. AdamW's first step takes the signs of
    a gradient, which rounding can turn; in its place descends what is smooth."""
    monkeypatch.setattr(torch.optim, "AdamW", GradientDescent)
    stored = torch.tensor(json.loads(FILE.read_text(encoding="utf-8"))[name])
    ours = predict(name, tiny_clip)
    bound = 2 * moves(lambda clip: predict(name, clip), tiny_clip) + 1e-6 * float(stored.abs().max())
    assert largest(ours, stored) < bound, "a prediction has moved"
    assert bound < 0.02 * float(stored.std())              # far below what tells classes apart


def test_every_method_is_stored():
    assert set(SETTINGS) == set(REGISTRY) == set(json.loads(FILE.read_text(encoding="utf-8")))


def main():
    sys.path.insert(0, str(FILE.parent))
    import tiny_clip as tiny

    from minipsync.clip.weights import load_clip
    torch.optim.AdamW = GradientDescent
    clip = load_clip(state_dict=tiny.tiny_state_dict(0), device="cpu")
    found = {name: [[float(f"{x:.7g}") for x in row] for row in predict(name, clip).tolist()]
             for name in SETTINGS}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
