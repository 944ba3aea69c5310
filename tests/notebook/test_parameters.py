"""check_parameters, alone and inside a notebook that papermill runs."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from minipsync.notebook.parameters import ParameterError, check_parameters

SETS = ["imagenet", "v2", "sketch", "r"]


def one(value, spec, name="x"):
    """What `value` becomes under `spec`."""
    return check_parameters({name: value}, **{name: spec})[name]


@pytest.mark.parametrize("value, spec, expected", [
    ("sketch", SETS, "sketch"), (" sketch ", tuple(SETS), "sketch"), ("r", dict.fromkeys(SETS).keys(), "r"),
    (3, int, 3), ("3", int, 3), (3.0, int, 3), ("-3", int, -3), ("0.5", float, 0.5), (1, float, 1.0),
    ("1e-3", float, 0.001), (True, bool, True), ("false", bool, False), (0, bool, False), ("Yes", bool, True),
    (None, int | None, None), ("none", int | None, None), ("7", int | None, 7), ("a b", str, "a b"),
    (5, (1, 9), 5), ("5", (1, None), 5), (0.5, (0.0, 1.0), 0.5), ("1", (0.0, 1.0), 1.0),
    ("[1,2]", list[int], [1, 2]), ("1,2", list[int], [1, 2]), (2, list[int], [2]),
    ((1, 2), list[int], [1, 2]), ("[sketch, r]", list[str], ["sketch", "r"]),
    ("['sketch','r']", {"choices": SETS, "many": True}, ["sketch", "r"]),
    ("sketch", {"choices": SETS, "many": True}, ["sketch"]),
    ("null", {"choices": SETS, "optional": True}, None),
    ("50", {"type": int, "low": 1, "optional": True}, 50), (8, {"choices": [4, 8, 16]}, 8), ("8", [4, 8], 8),
    (None, ["a", None], None), ("0.5", [0.1, 0.5], 0.5),
    ("none", {"type": list[int], "optional": True}, None),
    ("[3]", {"type": int, "low": 2, "many": True}, [3]), (1.0, bool, True), ("", str | None, None),
    ("['a, b', 'c']", list[str], ["a, b", "c"]), (" 8 ", {"type": int, "high": 9}, 8), ("a", list, ["a"])])
def test_good_values_are_converted(value, spec, expected):
    found = one(value, spec)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("value, spec, message", [
    ("sketsch", SETS, r"it is none of the choices. Did you mean sketch\?"),
    ("Sketch", SETS, r"Did you mean sketch\?"), ("zzz", SETS, "x  one of imagenet, v2, sketch, r"),
    (["sketch"], SETS, "expected one of imagenet"), ("three", int, "x = 'three': expected a whole number"),
    (2.5, int, "a whole number"), (True, int, "a whole number"), ("3.5", int, "a whole number"),
    (float("nan"), float, "a number"), ("inf", float, "a number"), (None, int, "x = None"),
    ("maybe", bool, "True or"),
    (2, bool, "True or False"), (0, (1, None), "a whole number, 1 or more"), (10, (1, 9), "from 1 to 9"),
    (1.5, (0.0, 1.0), "a number from 0.0 to 1.0"), ("[1,'a']", list[int], "a list, each a whole number"),
    ("[]", list[int], "and at least one"), ("sketch,r2", {"choices": SETS, "many": True}, "Did you mean r"),
    (5, {"choices": [4, 8]}, "none of the choices"), (3, str, "a text"),
    ("1", {"type": int, "low": 2, "many": True}, "expected a whole number, 2 or more"),
    ("x", int | None, "expected a whole number or None"), (True, {"choices": [8, 9]}, "expected one of 8, 9"),
    (-1, {"type": float, "low": 0.5}, "a number, 0.5 or more"),
    ([1, None], list[int], "expected a whole number")])
def test_bad_values_stop_with_the_good_ones(value, spec, message):
    with pytest.raises(ParameterError, match=message) as error:
        one(value, spec)
    assert "The parameters are:" in str(error.value) and issubclass(ParameterError, ValueError)


def test_unknown_and_missing_names_and_all_problems_at_once():
    namespace = {"datset": "sketch", "dataset": "r", "limit": "many", "_private": 1, "np": os, "f": len}
    with pytest.raises(ParameterError) as error:
        check_parameters(namespace, dataset=SETS, limit=(1, None), seed=int)
    text = str(error.value)
    assert "datset: there is no such parameter. Did you mean dataset?" in text
    assert "limit = 'many': expected a whole number, 1 or more" in text and "seed: not set" in text
    assert "np" not in text and "_private" not in text
    assert namespace["dataset"] == "r" and namespace["limit"] == "many"    # nothing is set unless all is well


def test_values_are_set_in_the_namespace():
    namespace = {"seeds": "[1,2]", "limit": "none"}
    assert check_parameters(namespace, seeds=list[int], limit=int | None) == {"seeds": [1, 2], "limit": None}
    assert namespace["seeds"] == [1, 2] and namespace["limit"] is None


def test_cells_say_what_was_set():
    cells = ["", "versions = {}\nimport os", "dataset = 'r'  # which\nlimit: int = 5", "check()"]
    names = {"versions": {}, "dataset": "r", "limit": 5, "later": 3, "In": cells}
    specs = {"dataset": SETS, "limit": int}
    assert check_parameters(names, **specs)["limit"] == 5              # other cells' variables are their own
    cells[2] += "\nlimt = 6"
    with pytest.raises(ParameterError, match=r"limt: there is no such parameter. Did you mean limit\?"):
        check_parameters(names, **specs)
    cells[2:] = ["dataset = 'r'", "# Parameters\ndatset = 'v2'\n", "check()"]
    with pytest.raises(ParameterError, match=r"datset: .*Did you mean dataset\?"):
        check_parameters(names, **specs)
    cells[2:] = ["dataset = 'r'", "check()", "other = 3", "check()"]    # cell 3 run again after later cells
    check_parameters(names, **specs)


@pytest.mark.parametrize("spec, message", [
    ({"kind": int}, "a dict may have type"), (3, "does not declare"), ("sketch", "does not declare"),
    ([], "no choice")])
def test_bad_declarations(spec, message):
    with pytest.raises(TypeError, match=message):
        one(1, spec)


# ---- in a real notebook -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    cells = [f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})",
             "dataset: str = 'sketch'\nseeds: list = [1]\nlimit: int = 5",
             "from minipsync.notebook.parameters import check_parameters\n"
             "check_parameters(globals(), dataset=['sketch', 'r'], seeds=list[int], limit=(1, None))",
             "print(dataset, seeds, limit * 2)"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.cells[1].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path_factory.mktemp("notebook") / "book.ipynb"
    nbformat.write(book, path)
    return path


def papermill(notebook, *arguments):
    """(exit code, last output or error) of a run in another folder."""
    out = notebook.parent / "out.ipynb"
    elsewhere = notebook.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    run = subprocess.run([sys.executable, "-m", "papermill", str(notebook), str(out), "-k", "python3",
                          "--no-progress-bar", *arguments], cwd=elsewhere, capture_output=True, text=True)
    outputs = [output for cell in nbformat.read(out, 4).cells for output in cell.get("outputs", [])]
    errors = [output.evalue for output in outputs if output.output_type == "error"]
    return run.returncode, (errors or [outputs[-1].text])[-1]


def test_papermill_converts_and_stops(notebook):
    assert papermill(notebook, "-p", "dataset", "r", "-p", "seeds", "[1,2]") == (0, "r [1, 2] 10\n")
    code, text = papermill(notebook, "-p", "datset", "r", "-p", "dataset", "skech")
    assert code == 1 and "datset: there is no such parameter. Did you mean dataset?" in text
    assert "dataset = 'skech': it is none of the choices. Did you mean sketch?" in text
    assert "dataset  one of sketch, r" in text and "limit    a whole number, 1 or more" in text
