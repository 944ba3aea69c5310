"""The coursework as teachers and students run it: nbgrader releases it, solutions pass, stubs fail."""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from minipsync.notebook import exercises
from minipsync.notebook.exercises import check

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks/exercises"
ASSIGNMENTS = sorted(path.name for path in (FOLDER / "source").iterdir())


def cells(name):
    return nbformat.read(FOLDER / "source" / name / f"{name}.ipynb", as_version=4).cells


def grading(cell):
    return cell.metadata.get("nbgrader", {})


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The API of a course in a folder of its own. nbgrader calls alembic, a program beside this Python."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(FOLDER / "source", folder / "source")
    config = Config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.course_id = "test"
    config.CourseDirectory.db_url = f"sqlite:///{folder / 'gradebook.db'}"
    config.ExecutePreprocessor.timeout = 300
    before = dict(os.environ)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    yield NbGraderAPI(CourseDirectory(config=config), config=config)
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_nbgrader_gives_all_points_to_the_solution_and_none_to_the_stub(course, name):
    made = course.generate_assignment(name, force=True, create=True)
    assert made["success"], made["log"] + made["error"]
    root = Path(course.coursedir.root)
    release = (root / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    assert "SOLUTION" not in release and "raise NotImplementedError()" in release
    for student, kind in (("solution", "source"), ("stub", "release")):
        shutil.copytree(root / kind / name, root / "submitted" / student / name)
        graded = course.autograde(name, student)
        assert graded["success"], graded["log"] + graded["error"]
    with Gradebook(course.coursedir.db_url) as gradebook:
        for student in ("solution", "stub"):
            notebook = gradebook.find_submission_notebook(name, name, student)
            tests = [grade for grade in notebook.grades if grade.cell.cell_type == "code"]
            right = [grade.auto_score == grade.max_score for grade in tests]
            assert len(tests) >= 4 and (all(right) if student == "solution" else not any(right)), \
                [(grade.name, grade.auto_score, grade.max_score) for grade in tests]


def run_test_cell(name, grade_id, answer):
    """Execute an assignment's imports, `answer` in place of the solution, and the cell that checks it."""
    book, space = cells(name), {}
    code = [cell for cell in book if cell.cell_type == "code"]
    for cell in code[:1]:
        exec(cell.source, space)
    for cell in code[1:]:
        if grading(cell).get("grade_id") == f"test_{grade_id}":
            return exec(cell.source, space)
        mine = grading(cell).get("grade_id") == grade_id
        exec(answer if mine else cell.source, space)
    raise AssertionError(f"{name} has no task {grade_id}")


@pytest.mark.parametrize(("name", "task", "answer", "message"), [
    ("01_clip", "cosine_logits", "def cosine_logits(i, t, s): return s * i @ t.T", "dot product of features"),
    ("01_clip", "ensemble", "def ensemble(f): return F.normalize(f, dim=-1).mean(1)", "is shorter than 1"),
    ("01_clip", "wilson", "def wilson(k, n): return 0.5", "expected 2 values, got float 0.5"),
    ("02_coop", "insert_context", "def insert_context(t, c): return torch.cat([t, c.expand(3, -1, -1)], 1)",
     r"shape is \[3, 11, 4\], expected \[3, 9, 4\]"),
    ("02_coop", "rate", "def rate(e, n, lr): return lr * (1 + math.cos(math.pi * e / n)) / 2 if e else 1e-5",
     "in epoch t, and not at t / T"),
    ("02_coop", "nearest_words", "def nearest_words(c, t): return (c @ t.T).argmax(1)", "prefers long"),
    ("03_cocoop", "meta_net", "def meta_net(x, w1, b1, w2, b2): return F.linear(F.linear(x, w1, b1).relu(), "
     "w2, b2)", "has to be of unit length"),
    ("03_cocoop", "harmonic_mean", "def harmonic_mean(b, n): return (b + n) / 2", "arithmetic mean"),
    ("04_maple", "couple", "def couple(p, w, b): return p @ w.mT", "the bias is missing"),
    ("04_maple", "replace", "def replace(h, p, side): return torch.cat([h[:, :1], p.expand(2, -1, -1), "
     "h[:, 1 + len(p):]], 1)", "image prompts are the last tokens"),
    ("05_tpt", "entropy", "def entropy(z): p = z.softmax(-1); return -(p * p.log()).sum(-1)", "nan or inf"),
    ("05_tpt", "marginal_entropy", "def marginal_entropy(z): return entropy(z).mean()", "views that"),
    ("05_tpt", "first_step", "def first_step(v, g, lr, weight_decay=0, eps=0): pass", "is there a `return`"),
    ("06_promptalign", "moments", "def moments(x): return x.mean(0), x.var(0)", "divided by V - 1"),
    ("06_promptalign", "one_pass", "def one_pass(b): x = torch.cat(list(b)); m = x.mean(0); "
     "return m, (x**2).mean(0) - m**2", "lost all digits"),
    ("07_promptsync", "distances", "def distances(h, p): return ((h[:, None] - p)**2).sum(-1).log1p()",
     "the angular part is missing"),
    ("07_promptsync", "discrimination", "def discrimination(h, p, tau): return F.cross_entropy(F.normalize("
     "h, dim=-1) @ F.normalize(p, dim=-1).T / tau, torch.arange(5))", "this is InfoNCE"),
])
def test_a_usual_mistake_is_named(name, task, answer, message):
    with pytest.raises(AssertionError, match=message):
        run_test_cell(name, task, answer)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_form(name):
    """No outputs, short lines, every graded cell with a name of its own and listed points."""
    book = cells(name)
    assert not any(cell.get("outputs") for cell in book)
    code = "\n".join(cell.source for cell in book if cell.cell_type == "code")
    assert max(map(len, code.splitlines())) <= 115
    ids = [grading(cell)["grade_id"] for cell in book if grading(cell)]
    assert len(ids) == len(set(ids))
    points = sum(grading(cell).get("points", 0) for cell in book)
    row = next(line for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
               if line.startswith(f"| {name} "))
    assert re.search(r"\| (\d+) \|$", row).group(1) == str(points)


def test_check():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    check("f", x + 1e-6, x)
    check("f", 3, 3.0)
    for answer, message in ((x + torch.tensor([0.0, 3.0]), r"f: 5 at \[0, 1\], expected 2; 2 of 4 values"),
                            (None, "is there a `return`"), ("one", "a number or a tensor, got str one"),
                            (x[0], r"is \[2\], exp"),
                            (x / 0, "nan or infinite"), (2 * x, "f: you doubled it")):
        with pytest.raises(AssertionError, match=message):
            check("f", answer, x, mistakes={"you doubled it": 2 * x, "this one is right": x})
    with pytest.raises(AssertionError, match="the last two axes are swapped"):
        check("f", torch.zeros(2, 3), torch.zeros(3, 2))


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_no_listed_mistake_is_the_right_answer_everywhere(name, monkeypatch):
    """Every mistake that a test looks for differs from what is expected in one of its checks at least."""
    found = {}

    def spy(title, answer, expected, *, tolerance=1e-4, mistakes=None):
        for text, value in (mistakes or {}).items():
            pairs = zip(expected, value, strict=True) if isinstance(expected, tuple) else [(expected, value)]
            differs = any(not exercises._close(exercises._tensor("", e), exercises._tensor("", v), tolerance)
                          for e, v in pairs)
            found[text] = found.get(text, False) or differs
    monkeypatch.setattr(exercises, "check", spy)
    space = {}
    for cell in cells(name):
        if cell.cell_type == "code" and "bench" not in cell.source.split("\n")[0]:
            exec(cell.source, space)
    assert found and not [text for text, differs in found.items() if not differs]
