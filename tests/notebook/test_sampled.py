"""Encoded once and judged from probabilities: the same result as `evaluate`."""
import numpy as np
import pandas as pd
import pytest
import torch

import minipsync as mp
from minipsync.clip.text import pack_texts
from minipsync.evaluation.results import summarise
from minipsync.notebook.sampled import encoded, judged, over_seeds


@pytest.fixture(scope="module")
def photo():
    """(sample of 12 line drawings, class features of one template, what evaluate finds with it)."""
    bench = mp.benchmark("mini")
    clip, data = bench.clip(device="cpu"), bench.dataset("sketch")
    sample = encoded(clip, data, limit=12, seed=3, batch=5)
    t = clip.encode_text(pack_texts([f"a photo of a {name}." for name in data.class_names]))
    found = mp.evaluate(mp.build("zero_shot", clip, data.class_names), data, limit=12, sample_seed=3,
                        progress=False)
    return sample, (clip.logit_scale * sample.features @ t.T).softmax(dim=-1), found


def test_it_is_what_evaluate_finds(photo):
    sample, p, found = photo
    own = judged("zero_shot", sample, p)
    assert (own.method, own.dataset, own.n, own.seed) == (found.method, "sketch", 12, 3)
    assert own.accuracy == found.accuracy and own.interval == found.interval
    columns = ["image", "label", "prediction", "correct", "top5"]
    both = own.records.merge(found.records, on=columns)
    assert len(both) == 12
    np.testing.assert_allclose(both["confidence_x"], both["confidence_y"], rtol=1e-4)
    np.testing.assert_allclose(both["entropy_x"], both["entropy_y"], rtol=1e-3, atol=1e-5)


def test_a_probability_of_zero_is_no_error(photo):
    sample, p, _ = photo
    sure = torch.nn.functional.one_hot(sample.labels, p.shape[1]).float()
    own = judged("sure", sample, sure)
    assert own.accuracy == 1 and set(own.records["confidence"]) == {1.0}
    with pytest.raises(ValueError, match="sure gave logits that are not finite"):
        judged("sure", sample, sure * torch.nan)


def result(method, *right):
    images = [f"i{k}" for k in range(len(right))]
    return summarise(method, "d", 0, pd.DataFrame({
        "image": images, "label": np.arange(len(right)) // 2, "correct": right, "confidence": 0.5,
        "seconds": 0.0}))


def test_seeds_are_averaged_for_each_image():
    a = [result("a", 1, 1, 0, 1, 1, 0), result("a", 1, 0, 0, 1, 0, 0)]
    mean = over_seeds(a)
    assert mean.n == 6 and mean.values == (4 / 6, 2 / 6)
    assert mean.mean == pytest.approx(0.5) and mean.std == pytest.approx(1 / 6)
    assert mean.low < 0.5 < mean.high
    assert over_seeds(a * 3).low == mean.low                                      # more seeds, no more images


def test_no_result():
    with pytest.raises(ValueError, match="at least one seed"):
        over_seeds([])
