"""The method that CONTRIBUTING.md adds works as it is printed there."""
import contextlib
import importlib
import io
import re
import sys

import numpy as np
import pytest
from versions import ROOT

import minipsync as mp
from minipsync.methods import REGISTRY
from minipsync.views.crops import content_seed, make_views

METHOD, USE = re.findall(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
                         re.M | re.S)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """The mini benchmark, with the method saved and imported as the text says; both go afterwards."""
    (tmp_path / "view_mean.py").write_text(METHOD, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("view_mean")
    yield mp.benchmark("mini")
    del REGISTRY["view_mean"], sys.modules["view_mean"]


def test_it_has_forty_lines():
    assert len(METHOD.splitlines()) <= 40


def test_it_is_used_as_written(bench):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(USE, "CONTRIBUTING.md", "exec"), {})
    assert "view_mean" in said.getvalue() and "n = 20" in said.getvalue()


def test_it_computes_the_mean_of_the_most_confident_views(bench):
    data = bench.dataset("sketch")
    method = bench.build("view_mean", data, n_views=8, selection=0.25, view_seed=3)
    plain = bench.build("zero_shot", data, clip=method.clip)
    image, _ = data[0]
    views = make_views(image, 8, method.clip, seed=content_seed(image, 3))
    logits = plain.predict(views).logits.double().numpy()                           # [8, C]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    surest = np.argsort(-(p * np.log(p)).sum(1))[:2]
    prediction = method.predict([image, data[1][0]])
    assert prediction.shape == (2, len(data.class_names))
    # logits of at most 100 in float32: each is off by 100 U = 6e-6 and a little, so is its log-probability
    np.testing.assert_allclose(prediction.logits[0].double().exp().numpy(), p[surest].mean(0), rtol=1e-4)
    np.testing.assert_allclose(prediction.untuned[0].double().numpy(), logits[0], atol=5e-5)


def test_one_view_is_zero_shot(bench):
    data = bench.dataset("sketch")
    method = bench.build("view_mean", data, n_views=1)
    images = [data[i][0] for i in range(4)]
    plain = bench.build("zero_shot", data, clip=method.clip).predict(images)
    assert method.predict(images).argmax(1).tolist() == plain.argmax(1).tolist()


def test_its_settings_are_checked_and_its_records_are_its_own(bench, tmp_path):
    data = bench.dataset("sketch")
    with pytest.raises(ValueError, match="view_mean.*selection"):
        bench.build("view_mean", data, selection=2.0)
    methods = [bench.build("view_mean", data, n_views=4, view_seed=seed) for seed in (0, 0, 1)]
    first, again, other = (mp.evaluate(method, data, limit=4, records=tmp_path, progress=False)
                           for method in methods)
    assert (first.resumed, again.resumed, other.resumed) == (0, 4, 0)
