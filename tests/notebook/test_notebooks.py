"""The notebooks as their readers run them: papermill from another folder, a typo, a run that is killed.

`make test` also runs every notebook with its default parameters (nbval).
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks/solutions").glob("*.ipynb"))
PROMPTSYNC = ROOT / "notebooks/07_promptsync.ipynb"
sys.path.insert(0, str(ROOT / "benchmarks"))

from show_cell import text_of  # noqa: E402


def papermill(folder, *parameters, notebook=PROMPTSYNC):
    """Start `papermill notebook out.ipynb -p …` in `folder`."""
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-k", "python3",
               "--no-progress-bar"]
    for name, value in zip(parameters[::2], parameters[1::2], strict=True):
        command += ["-p", name, str(value)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def accuracies(folder) -> str:
    """The table of accuracies that out.ipynb shows, without the times."""
    text = text_of(nbformat.read(folder / "out.ipynb", as_version=4), "accuracy")
    return re.sub(r" +\d+$", "", text.replace("ms per image", ""), flags=re.M)


def count_rows(folder) -> int:
    return sum(len(file.read_bytes().splitlines()) - 1 for file in folder.rglob("records/*.csv"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder in which notebook 07 ran on 5 line drawings."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = papermill(folder, "dataset", "sketch", "limit", 5)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    return folder


def test_the_table_comes_from_the_records_of_the_run(undisturbed):
    rows = {file.name.split("-")[0]: pd.read_csv(file) for file in undisturbed.rglob("records/*.csv")}
    assert set(rows) == {"zero_shot", "maple", "maple_tpt", "promptalign", "promptsync_star", "promptsync"}
    table = accuracies(undisturbed)
    shown = {"CLIP zero-shot": "zero_shot", "MaPLe + TPT": "maple_tpt", "PromptSync ": "promptsync"}
    for name, method in shown.items():
        line = next(line for line in table.splitlines() if line.startswith(name))
        assert len(rows[method]) == 5 and rows[method].image.str.startswith("sketch/").all()
        assert line.removeprefix(name).split()[0] == f"{100 * rows[method].correct.mean():.1f}"


def test_a_killed_run_goes_on_to_the_same_table(undisturbed, tmp_path):
    process = papermill(tmp_path, "dataset", "sketch", "limit", 5, "records", tmp_path / "records")
    while count_rows(tmp_path) < 20 and process.poll() is None:          # 30 rows are the whole run
        time.sleep(0.1)
    assert process.poll() is None, process.stdout.read()[-3000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)                                       # the kernel notices within a second, and ends itself
    assert 20 <= count_rows(tmp_path) < 30
    again = papermill(tmp_path, "dataset", "sketch", "limit", 5, "records", tmp_path / "records")
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said[-3000:]
    assert count_rows(tmp_path) == 30
    assert accuracies(tmp_path) == accuracies(undisturbed)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("datasett", "sketch", "datasett: there is no such parameter. Did you mean dataset?"),
    ("dataset", "sketchh", "Did you mean sketch?"),
    ("limit", "many", "limit = 'many': expected a whole number, 0 or more")])
def test_a_wrong_parameter_stops_with_the_good_ones(tmp_path, name, value, message):
    process = papermill(tmp_path, name, value)
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert message in said
    assert "The parameters are:" in said and "imagenet, v2, sketch" in said
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_form(path):
    """Executed, in order, small, and about no machine in particular."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "parameters" in code[1].metadata.get("tags", [])
    assert re.search("check_parameters|open_benchmark", code[2].source)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert path.stat().st_size <= (200_000 if path in SOLUTIONS else 500_000)
    assert all(cell.source.count("\n") < 25 for cell in code)
    assert not re.search(r"\]\(#", path.read_text(encoding="utf-8"))    # JupyterLab's are not the site's
    assert not re.search(r"(/home/|/root/|/tmp/|/Users/|[A-Z]:\\\\)", path.read_text(encoding="utf-8"))


def exercises(notebook) -> list[int]:
    """The numbers of the list below the heading "Exercises"."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    section = re.search(r"^## Exercises\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return [int(number) for number in re.findall(r"^(\d+)\. ", section.group(1), re.M)]


def test_every_notebook_has_its_solutions():
    assert [path.name for path in SOLUTIONS] == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_exercise_has_a_solution(path):
    """Of the same number: the task, code that says what comes out, and a text; a figure says its text."""
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0].source
    assert f"](../{path.name})" in first and "**Try first**" in first and "**Run time.**" in first
    found: dict[int, list] = {}
    for cell in notebook.cells:
        if number := re.match(r"## Exercise (\d+)\. .+\n\n\*\*Task\.\*\* ", cell.source):
            found[int(number.group(1))] = []
        elif found:
            found[max(found)].append(cell)
    assert list(found) == exercises(nbformat.read(ROOT / "notebooks" / path.name, as_version=4))
    for number, cells in found.items():
        said = [cell for cell in cells if cell.cell_type == "code" and cell.outputs]
        assert said and cells[-1].cell_type == "markdown", f"exercise {number}"
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        assert not any("widget" in kind for kind in output.get("data", {}))     # a page would load its script
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            assert [about["alt"] for about in output.metadata.values()]


@pytest.mark.slow
def test_solutions_run(tmp_path):
    """Those that take least, on fewer images."""
    process = papermill(tmp_path, "limit", 10, notebook=ROOT / "notebooks/solutions/00_welcome.ipynb")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert "n = 10 images of" in "".join(str(output) for cell in cells for output in cell.get("outputs", []))


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_the_full_benchmark(name, tmp_path, look):
    """On look-alikes of the papers' folders, with small prompts and statistics that are made on the way."""
    process = papermill(tmp_path, "benchmark", "full", "root", look, "model", "mini", "partial", "True",
                        "limit", 4, notebook=ROOT / f"notebooks/{name}.ipynb")
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    shown = "".join(str(output) for cell in cells for output in cell.get("outputs", []))
    halves = ("03_cocoop", "04_maple")                        # the novel half of oxford_pets has two pictures
    pets, v2 = ("02_coop", *halves), ("09_inside_promptsync",)
    dataset = "oxford_pets" if name in pets else "v2" if name in v2 else "sketch"
    assert f"full, partial copy, {dataset}" in shown and f"mini, {dataset}" not in shown
    tables = [pd.read_csv(file) for file in tmp_path.glob("results/records/*.csv")]
    assert {len(table) for table in tables} == ({4, 2} if name in halves else {4})
    if name not in ("00_welcome", "09_inside_promptsync"):            # nothing of theirs was published
        assert "published, ViT-B/16" in shown


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """The full benchmark's folders, a few pictures a class."""
    folder = tmp_path_factory.mktemp("look")
    subprocess.run([sys.executable, str(ROOT / "tests/lookalikes.py"), str(folder)], check=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder


def test_the_full_benchmark_says_what_it_lacks(tmp_path):
    process = papermill(tmp_path, "benchmark", "full")
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and "root is empty" in said and "docs/full.md" in said


@pytest.mark.parametrize(("name", "parameters"), [
    ("07_promptsync", ("dataset", "r", "limit", 3, "sample_seed", 3)), ("05_tpt", ("limit", 3))])
def test_other_parameters(tmp_path, name, parameters):
    process = papermill(tmp_path, *parameters, notebook=ROOT / f"notebooks/{name}.ipynb")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    rows = {file.name.split("-")[0]: pd.read_csv(file) for file in tmp_path.rglob("records/*.csv")}
    assert {len(table) for table in rows.values()} == {3} and "tpt" in " ".join(rows)
    assert set(pd.concat(rows.values()).seed) == {dict(zip(parameters[::2], parameters[1::2], strict=True))
                                                  .get("sample_seed", 0)}
