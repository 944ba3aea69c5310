"""What a prediction depends on: code that decides it counts, and nothing else does."""

import ast
import shutil
import sys
from pathlib import Path

import pytest
import torch
from rounding import logits
from test_evaluation import Colours, Guess

import minipsync as mp
from minipsync.evaluation import identity, source_code
from minipsync.evaluation.evaluate import evaluate
from minipsync.evaluation.record_format import read_facts
from minipsync.evaluation.source_code import closure, code_fingerprint
from minipsync.methods import REGISTRY, numerics
from minipsync.report.runs import load_runs


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package, to change."""
    place = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(mp.__file__).parent, place / "minipsync",
                    ignore=shutil.ignore_patterns("__pycache__", "mini", "prompts", "statistics"))
    return place / "minipsync"


def fingerprint_of(copy, method):
    """As if the files of the copy were those that are loaded."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(source_code, "ROOT", copy)
        m.setattr(source_code, "_changed", lambda name: [])
        source_code._module.cache_clear()
        try:
            return code_fingerprint([REGISTRY[method]])
        finally:
            source_code._module.cache_clear()


def changed(copy, file, change, method):
    path = copy / file
    before, text = fingerprint_of(copy, method), path.read_text(encoding="utf-8")
    new = change(text)
    assert new != text
    path.write_text(new, encoding="utf-8")
    try:
        return fingerprint_of(copy, method) != before
    finally:
        path.write_text(text, encoding="utf-8")


def without_comments(text):
    """As a formatter that keeps nothing but the code: other quotes, line breaks, no comments."""
    return ast.unparse(ast.parse(text))


@pytest.mark.parametrize("file, method", [("methods/tpt.py", "tpt"), ("methods/numerics.py", "tpt"),
                                          ("methods/tpt.py", "promptsync")])
def test_comments_docstrings_and_layout_do_not_count(file, method, copy):
    assert not changed(copy, file, lambda text: "# a remark\n\n" + text, method)
    assert not changed(copy, file, without_comments, method)
    assert not changed(copy, file, lambda text: text.replace('"""', '"""In other words: ', 1), method)


def test_a_changed_loss_counts_where_it_is_used(copy):
    def double(text):
        return text + "\n_old = marginal_entropy\ndef marginal_entropy(x):\n    return 2 * _old(x)\n"

    assert changed(copy, "methods/tpt.py", double, "tpt")
    assert not changed(copy, "methods/tpt.py", double, "coop")            # which has no such loss
    assert changed(copy, "data/pixels.py", lambda text: text.replace(">> 8", ">> 7"), "coop")
    assert changed(copy, "clip/text.py", lambda text: text + "\nX = 1\n", "zero_shot")
    assert not changed(copy, "notebook/plots.py", lambda text: text + "\nX = 1\n", "promptsync")
    assert not changed(copy, "methods/promptalign.py", lambda text: text + "\nX = 1\n", "maple")


def test_what_is_reached_is_found_by_imports():
    found = closure({"minipsync.methods.tpt"})
    assert {"minipsync.methods.numerics", "minipsync.views.crops", "minipsync.methods.coop",
            "minipsync.clip.text"} <= found
    assert not found & {"minipsync.notebook.plots", "minipsync.report.papers", "minipsync.methods.promptsync"}
    for name, kind in REGISTRY.items():
        assert kind.__module__ in closure({kind.__module__}), name


def test_a_patched_function_counts(monkeypatch):
    tpt = REGISTRY["tpt"]
    before = code_fingerprint([tpt])
    with monkeypatch.context() as m:                                  # where it is defined
        m.setattr(numerics, "bounded", lambda log_p: log_p)
        assert code_fingerprint([tpt]) != before
    with monkeypatch.context() as m:                                  # where it was imported to
        m.setattr("minipsync.methods.maple_tpt.TestTimeMethod.objective", lambda *_: {})
        assert code_fingerprint([tpt]) != before
    with monkeypatch.context() as m:                                  # a method of a class
        m.setattr(tpt, "logits", lambda self, x, params: x)
        assert code_fingerprint([tpt]) != before
    assert code_fingerprint([tpt]) == before


def test_an_edit_since_the_import_does_not_pass_for_what_runs(monkeypatch):
    """The file says something else than what is loaded: a notebook whose kernel was not restarted."""
    real = source_code._module
    before = code_fingerprint([REGISTRY["tpt"]])

    def edited(name, *file_and_stamp):
        module = real(name, *file_and_stamp)
        if name != "minipsync.methods.numerics":
            return module
        text = Path(numerics.__file__).read_text(encoding="utf-8").replace("flatten(1)", "flatten(0)")
        return module._replace(code=compile(text, numerics.__file__, "exec"), names=[])

    monkeypatch.setattr(source_code, "_module", edited)
    assert code_fingerprint([REGISTRY["tpt"]]) != before


def helper(x):
    return x + 1


class Outside:
    """A method of somebody's own."""

    def predict(self, images):
        return helper(images)


def test_classes_from_outside_count_by_their_source(monkeypatch):
    before = code_fingerprint([Outside()])
    assert before == code_fingerprint([Outside()])
    monkeypatch.setattr(sys.modules[__name__], "helper", test_classes_from_outside_count_by_their_source)
    assert code_fingerprint([Outside()]) != before                    # what it calls counts
    one = Outside()
    plain = code_fingerprint([one])
    one.predict = lambda images: images
    assert code_fingerprint([one]) != plain                           # and what was set on the object


# ---- in records -------------------------------------------------------------------------------------
def test_libraries_are_noted_and_told_apart(tmp_path, monkeypatch):
    data, method = Colours(), Guess()

    def run(version, limit, folder):
        monkeypatch.setattr("minipsync.evaluation.evaluate.versions", lambda: f"torch {version}")
        return evaluate(method, data, limit=limit, records=folder, progress=False)

    def noted(result):
        return read_facts(result.path.with_suffix(".run.json"))["libraries"]

    first = run("1", 10, tmp_path / "a")
    assert noted(first) == ["torch 1"]
    assert noted(run("2", 10, tmp_path / "a")) == ["torch 1"]         # nothing new was predicted
    assert noted(run("2", 20, tmp_path / "a")) == ["torch 1", "torch 2"]
    assert run("3", 20, tmp_path / "b").path.name == first.path.name  # the same run, by its key
    runs = load_runs(tmp_path)
    assert sorted(len(run.records) for run in runs) == [20, 20]       # not pooled
    assert {"; ".join(run.facts["libraries"]) for run in runs} == {"torch 1; torch 2", "torch 3"}
    assert "torchvision" in identity.versions() and torch.__version__.split("+")[0] in identity.versions()


def test_rows_of_a_data_set_that_has_grown_are_taken_over(tmp_path):
    small, large = Colours((4, 3, 2, 2, 2, 2, 2), name="small"), Colours((4, 3, 2, 2, 2, 2, 3), name="large")
    first = evaluate(Guess(), small, records=tmp_path, progress=False)
    method = Guess()
    second = evaluate(method, large, records=tmp_path, progress=False)
    assert (first.n, second.n, second.resumed) == (17, 18, 17) and second.path != first.path
    other = Guess(noise=2.0)                                          # other settings: nothing is taken over
    assert evaluate(other, large, records=tmp_path, progress=False).resumed == 0


def test_a_picture_that_changed_is_predicted_anew(tmp_path):
    class Turning(Colours):
        turned = False

        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            if i % 5 == 3 and self.turned:             # red decides what `Guess` says; green is the label
                image = image.point([*(x ^ 64 for x in range(256)), *range(256), *range(256)])
            return image, label

    data = Turning()
    evaluate(Guess(), data, records=tmp_path, progress=False)
    data.turned = True
    alone = evaluate(Guess(), data, progress=False)
    second = evaluate(Guess(), data, records=tmp_path, progress=False)
    assert (second.resumed, second.accuracy) == (36, alone.accuracy)      # 3, 8, … 43 are others


def test_a_picture_that_can_no_longer_be_read_is_skipped(tmp_path):
    data = Colours()
    whole = evaluate(Guess(), data, records=tmp_path, progress=False)
    data.corrupt = {3}
    with pytest.warns(UserWarning, match="1 of 45 images"):
        found = evaluate(Guess(), data, records=tmp_path, progress=False)
    assert (found.n, found.resumed, whole.n) == (44, 44, 45)


@pytest.mark.parametrize("name", ["zero_shot", "maple", "maple_tpt"])
def test_records_agree_across_batches_and_threads(name):
    """The same answers; probabilities are apart by what float32 does to a logit, as docs/full.md says."""
    bench = mp.benchmark("mini")
    data, clip, rows = bench.dataset("sketch"), bench.clip(device="cpu"), []
    threads = torch.get_num_threads()
    try:
        for count, batch in ((1, 8), (1, 3), (4, 8)):
            torch.set_num_threads(count)
            method = bench.build(name, data, clip=clip)
            result = evaluate(method, data, limit=8, batch_size=batch, progress=False)
            rows.append(result.records.set_index("image").sort_index())
    finally:
        torch.set_num_threads(threads)
    for other in rows[1:]:
        assert (other["prediction"] == rows[0]["prediction"]).all()
        assert (other["confidence"] - rows[0]["confidence"]).abs().max() < logits(clip)


def test_predictions_are_the_same_in_every_run():
    """With several threads a gradient through prompts[index] would be summed in no fixed order."""
    bench = mp.benchmark("mini")
    data = bench.dataset("sketch")
    method = bench.build("promptsync", data, clip=bench.clip(device="cpu"), n_views=15)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        first, *others = [method.predict([data[i][0] for i in range(3)]) for _ in range(4)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, other) for other in others)
