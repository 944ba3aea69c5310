"""PromptAlign against the numbers of the official code."""
import pytest
from conftest import relative

from minipsync.methods.promptalign import PromptAlign
from minipsync.statistics import SourceStatistics


@pytest.fixture(scope="module")
def setting(golden):
    """(views [32, 3, 32, 32], statistics) that the golden numbers were made with."""
    want = golden["promptalign"]
    v = golden.draw(2, 32, 3, 32, 32)
    scale = float(want["stats_scale"])
    statistics = SourceStatistics(golden.draw(60, 4, 19, 192, scale=scale),
                                  golden.draw(61, 4, 19, 192, scale=scale).abs())
    return v[:1] + 0.35 * v, statistics


def make(golden, setting, **settings):
    method = PromptAlign(golden.clip, golden.class_names, selection=0.25, **settings)
    golden.fill(method.learner, "promptalign")
    method.statistics = setting[1]
    return method


@pytest.mark.parametrize("lr", [0.04, 0.0005])
@pytest.mark.parametrize("steps", [1, 2])
def test_golden(golden, setting, lr, steps):
    want, method = golden["promptalign"], make(golden, setting, lr=lr, steps=steps)
    key = f"steps{steps}_lr{lr}"
    adapted = method.adapt(setting[0][None])
    for name in ("entropy", "align"):
        assert relative(adapted.history[name][:, 0], want[f"{key}_{name}"]) < 1e-4
    assert relative(method.predict_views(setting[0][None]), want[f"{key}_logits"]) < 1e-4
    compared = [k for k in want if k.startswith(f"{key}_param_")]
    assert len(compared) == 3
    for name in compared:
        ours = adapted.params[name.removeprefix(f"{key}_param_prompt_learner.")]
        assert relative(ours[0], want[name]) < 1e-4, name
