"""The coursework as teachers and students run it: solutions pass, stubs and tricks fail."""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.plugins import CsvExportPlugin
from traitlets.config import PyFileConfigLoader

from minipsync.notebook import exercises
from minipsync.notebook.exercises import check
from minipsync.notebook.judge import judge

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks/exercises"
ASSIGNMENTS = sorted(path.name for path in (FOLDER / "source").iterdir())
SOLUTION = re.compile(r"    ### BEGIN SOLUTION\n.*?### END SOLUTION", re.S)
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n", re.S)


def cells(name):
    return nbformat.read(FOLDER / "source" / name / f"{name}.ipynb", as_version=4).cells


def grading(cell):
    return cell.metadata.get("nbgrader", {})


def code(name, answer=None, first=""):
    """(grade_id, source) of an assignment's code cells.

    answer: what stands in place of each solution; None leaves it. first: a cell after the imports."""
    found = []
    for cell in cells(name):
        if cell.cell_type == "code":
            own = cell.source if answer is None else SOLUTION.sub(lambda _: answer, cell.source)
            found.append((grading(cell).get("grade_id"), own))
    return [found[0], (None, first), *found[1:]]


def checks(name):
    return {key: source for key, source in code(name) if key and key.startswith("test_")}


def judged(name, handed_in, limit=60):
    return judge(handed_in, checks(name), dict(code(name))["imports"], limit=limit)


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_judge_lets_the_solution_pass_and_not_the_stub(name):
    assert set(judged(name, code(name)).values()) == {""}
    said = judged(name, code(name, "    raise NotImplementedError()"))
    assert len(said) >= 4 and all("NotImplementedError" in text for text in said.values()), said


TRICKS = {
    "another check": ("pass", "def check(*args, **kwargs): pass"),
    "the module's check": ("pass", "from minipsync.notebook import exercises as e\n"
                           "e.check = lambda *a, **k: None"),
    "the module's comparison": ("pass", "from minipsync.notebook import exercises as e\n"
                                "e._close = lambda *a: True"),
    "torch.allclose": ("return torch.zeros(())", "import torch\ntorch.allclose = lambda *a, **k: True\n"
                       "torch.Tensor.__eq__ = lambda *a: True"),
    "builtins": ("pass", "import builtins\nbuiltins.exec = builtins.isinstance = lambda *a: True\n"
                 "builtins.AssertionError = type('Fine', (BaseException,), {})"),
    "SystemExit": ("raise SystemExit(0)", ""),
    "SystemExit in a cell": ("pass", "raise SystemExit(0)"),
    "the end of the process": ("import os; os._exit(0)", ""),
    "the end of the process in a cell": ("pass", "import os\nos._exit(0)"),
    "cells that do not run": ("pass", "get_ipython().input_transformers_cleanup.append(lambda lines: [])\n"
                              "get_ipython().showtraceback = lambda *a, **k: None"),
    "equal to everything": ("return type('Same', (), {'__eq__': lambda *a: True, '__len__': lambda s: 2})()",
                            ""),
    "another reply": ("pass", "from minipsync.notebook.bridge import Bridge\nBridge._called = lambda *a: "
                      "{'kind': 'result', 'value': {'value': True}, 'call': 0, "
                      "'after': [], 'gradients': []}"),
    "code in a reply": ("pass", "import os, pickle, torch\nclass Run:\n    def __reduce__(self):\n"
                        "        return os.system, ('touch MARK',)\n"
                        "def save(x, file): pickle.dump(Run(), file)\ntorch.save = save"),
}


@pytest.mark.slow
@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_earns_a_point(trick, tmp_path):
    answer, first = TRICKS[trick]
    mark = tmp_path / "mark"
    said = judged("02_coop", code("02_coop", f"    {answer}", first.replace("MARK", str(mark))))
    assert len(said) == 4 and all(said.values()), said
    assert not mark.exists()


@pytest.mark.slow
def test_the_judge_does_not_wait_for_ever_and_a_missing_cell_earns_nothing():
    said = judged("02_coop", code("02_coop", "    while True: pass"), limit=3)
    assert set(said.values()) == {"no answer within 3 s"}
    handed_in = [cell for cell in code("02_coop") if cell[0] != "test_rate"]
    assert judged("02_coop", handed_in) == dict.fromkeys(checks("02_coop"), "") | {
        "test_rate": "its cell is not in the notebook"}


@pytest.mark.slow
def test_the_judge_sees_what_a_function_does_to_its_arguments():
    handed_in = [(None, "def f(x):\n    x += 1\n    return x\n"
                  "def g(v, h):\n    h(v).backward()\n    return v.grad\n"
                  "def k(x): return x.square()"), ("test_f", ""), ("test_g", ""), ("test_k", "")]
    said = judge(handed_in, {
        "test_f": "x = torch.zeros(2)\nassert f(x).tolist() == [1, 1] and x.tolist() == [1, 1]",
        "test_g": "v = torch.ones(2, requires_grad=True)\n"
                  "assert g(v, lambda v: (3 * v).sum()).tolist() == [3, 3]\n"
                  "assert v.grad.tolist() == [3, 3]",
        "test_k": "v = torch.ones(2, requires_grad=True)\n(5 * k(2 * v)).sum().backward()\n"
                  "assert v.grad.tolist() == [40, 40]"}, "import torch")
    assert said == {"test_f": "", "test_g": "", "test_k": ""}
    with pytest.raises(ValueError, match="test_f never calls f"):
        judge(handed_in, {"test_f": "assert True"})


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The API of the course, with its settings, in another folder. nbgrader calls a program beside Python."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(FOLDER / "source", folder / "source")
    config = PyFileConfigLoader("nbgrader_config.py", path=str(FOLDER)).load_config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.db_url = f"sqlite:///{folder / 'gradebook.db'}"
    before = dict(os.environ)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    yield NbGraderAPI(CourseDirectory(config=config), config=config)
    os.environ.clear()
    os.environ.update(before)


def released(course, name):
    """The notebook that students get."""
    made = course.generate_assignment(name, force=True, create=True)
    assert made["success"], made["log"] + made["error"]
    return nbformat.read(Path(course.coursedir.root) / "release" / name / f"{name}.ipynb", as_version=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_release_has_neither_solutions_nor_hidden_tests(course, name):
    book = released(course, name)
    text = "\n".join(cell.source for cell in book.cells)
    assert "SOLUTION" not in text and "HIDDEN" not in text
    hidden = [line for source in checks(name).values() for line in HIDDEN.search(source).group().split("\n")
              if len(line) > 30]
    # an import or a message may stand in both parts
    assert len(hidden) > 10 and sum(line in text for line in hidden) <= len(hidden) // 5
    assert text.count("raise NotImplementedError()") == len(checks(name))
    locked = {grading(cell)["grade_id"] for cell in book.cells if cell.metadata.get("editable") is False}
    assert locked == {"imports", "together", *checks(name)}


@pytest.mark.slow
def test_nbgrader_gives_all_points_to_the_solution_and_none_to_stub_and_forgery(course):
    name = "02_coop"
    books = {student: released(course, name) for student in ("stub", "forged")}
    root = Path(course.coursedir.root)
    books["solution"] = nbformat.read(root / "source" / name / f"{name}.ipynb", as_version=4)
    for cell in books["forged"].cells:                                     # locked cells, too
        if cell.cell_type == "code":
            cell.source = "def check(*a, **k): pass\nprint('right')"
            cell.metadata.pop("editable", None)
    swallow = "get_ipython().input_transformers_cleanup.append(lambda lines: [])"
    books["forged"].cells.insert(2, nbformat.v4.new_code_cell(swallow))
    for book in books.values():                                            # no points, and it takes a while
        book.cells = [cell for cell in book.cells if grading(cell).get("grade_id") != "together"]
    scores = {}
    for student, book in books.items():
        folder = root / "submitted" / student / name
        folder.mkdir(parents=True)
        nbformat.write(book, folder / f"{name}.ipynb")
        graded = course.autograde(name, student)
        assert graded["success"], graded["log"] + graded["error"]
        with Gradebook(course.coursedir.db_url) as gradebook:
            grades = gradebook.find_submission_notebook(name, name, student).grades
            scores[student] = {grade.name: (grade.auto_score, grade.max_score) for grade in grades
                               if grade.cell.cell_type == "code"}
    with Gradebook(course.coursedir.db_url) as gradebook:                   # as `nbgrader export`
        CsvExportPlugin(to=str(root / "grades.csv")).export(gradebook)
    table = pd.read_csv(root / "grades.csv").set_index("student_id")
    table = table[table["assignment"] == name]
    assert table["raw_score"].to_dict() == {"solution": 8.0, "stub": 0.0, "forged": 0.0}
    assert set(table["max_score"]) == {10.0}                                # with the question, yet unread
    assert len(scores["solution"]) == 4
    assert all(score == most > 0 for score, most in scores["solution"].values()), scores["solution"]
    for student in ("stub", "forged"):
        assert [score for score, _ in scores[student].values()] == [0] * 4, (student, scores[student])


def run_test_cell(name, grade_id, answer, *, hidden=True):
    """Execute an assignment's imports, `answer` in place of the solution, and the cell that checks it."""
    sources, space = dict(code(name)), {}
    for source in (sources["imports"], *(s for key, s in sources.items() if key and f"test_{key}" in sources),
                   answer):
        exec(source, space)
    test = sources[f"test_{grade_id}"]
    exec(test if hidden else HIDDEN.sub("", test), space)


@pytest.mark.parametrize(("name", "task", "answer", "message"), [
    ("01_clip", "cosine_logits", "def cosine_logits(i, t, s): return s * i @ t.T", "dot product of features"),
    ("01_clip", "ensemble", "def ensemble(f): return F.normalize(f, dim=-1).mean(1)", "is shorter than 1"),
    ("01_clip", "wilson", "def wilson(k, n): return 0.5", "expected 2 values, got float 0.5"),
    ("01_clip", "wilson", "good = wilson\n"
     "def wilson(k, n): return tuple(x * (1 + 3.8415 / n) for x in good(k, n))",
     "denominator 1 \\+ z²/n is missing"),
    ("01_clip", "calibration_error", "def calibration_error(f, c, bins=15):\n    b = (f * bins).ceil()\n"
     "    return sum((c[b == i].float().mean() - f[b == i].mean()).abs() for i in b.unique()) / "
     "len(b.unique())", "every bin counts the same"),
    ("01_clip", "calibration_error", "def calibration_error(f, c, bins=15):\n    b = (f * bins).ceil()\n"
     "    return sum((c[b == i].float().mean() - f[b == i].mean()).abs() for i in b.unique())",
     "without their weights"),
    ("01_clip", "read_interval", "def read_interval(a, b, m): return 'first' if a > 0 else 'second' if b < 0 "
     "else 'level'", "holds 5 points, too"),
    ("02_coop", "insert_context", "def insert_context(t, c): return torch.cat([t, c.expand(2, -1, -1)], 1)",
     r"shape is \[2, 8, 2\], expected \[2, 6, 2\]"),
    ("02_coop", "rate", "def rate(e, n, lr): return lr * (1 + math.cos(math.pi * e / n)) / 2 if e else 1e-5",
     "in epoch t, and not at t / T"),
    ("02_coop", "nearest_words", "def nearest_words(c, t): return (c @ t.T).argmax(1)", "prefers long"),
    ("03_cocoop", "meta_net", "def meta_net(x, w1, b1, w2, b2): return F.linear(F.linear(x, w1, b1).relu(), "
     "w2, b2)", "has to be of unit length"),
    ("03_cocoop", "harmonic_mean", "def harmonic_mean(b, n): return (b + n) / 2", "arithmetic mean"),
    ("04_maple", "couple", "def couple(p, w, b): return p @ w.mT", "the bias is missing"),
    ("04_maple", "replace", "def replace(h, p, side): return torch.cat([h[:, :1], p.expand(len(h), -1, -1), "
     "h[:, 1 + len(p):]], 1)", "image prompts are the last tokens"),
    ("04_maple", "text_gradient", "def text_gradient(t, i, w): return t + i @ w.T", "weight is transposed"),
    ("05_tpt", "entropy", "def entropy(z): p = z.softmax(-1); return -(p * p.log()).sum(-1)", "nan or inf"),
    ("05_tpt", "entropy", "def entropy(z): return -(z.softmax(0) * z.log_softmax(0)).sum(-1)", "wrong axis"),
    ("05_tpt", "marginal_entropy", "def marginal_entropy(z): return entropy(z).mean()", "views that"),
    ("05_tpt", "marginal_entropy", "def marginal_entropy(z): p = z.softmax(0).mean(0); return "
     "-(p * p.log()).sum()", "wrong axis"),
    ("05_tpt", "first_step", "def first_step(v, g, lr, weight_decay=0, eps=0): pass", "is there a `return`"),
    ("05_tpt", "break_tpt", "def break_tpt(eta): return 4 * torch.eye(3)[[0] * 8], 0.1", "no harm of more"),
    ("06_promptalign", "moments", "def moments(x): return x.mean(0), x.var(0)", "divided by V - 1"),
    ("06_promptalign", "one_pass", "def one_pass(b): x = torch.cat(list(b)); m = x.mean(0); "
     "return m, (x**2).mean(0) - m**2", "lost all digits"),
    ("07_promptsync", "distances", "def distances(h, p): return ((h[:, None] - p)**2).sum(-1).log1p()",
     "the angular part is missing"),
    ("07_promptsync", "alignment", "def alignment(d, z): return (z.softmax(1).mean(1) * d).sum(1)",
     "wrong axis"),
    ("07_promptsync", "discrimination", "def discrimination(h, p, tau): return F.cross_entropy(F.normalize("
     "h, dim=-1) @ F.normalize(p, dim=-1).T / tau, torch.arange(len(h)))", "this is InfoNCE"),
    ("07_promptsync", "meta_step", "good = meta_step\ndef meta_step(t, d, a, alpha, eta, lambda_d=1.0):\n"
     "    return good(t, d, a, alpha, eta, lambda_d)[0], good(t, d, a, 0.0, eta, lambda_d)[1]",
     "not at theta_0"),
    ("07_promptsync", "meta_step", "good = meta_step\ndef meta_step(t, d, a, alpha, eta, lambda_d=1.0):\n"
     "    return good(t, d, a, alpha, eta, 1.0)", "lambda_d is missing"),
])
def test_a_usual_mistake_is_named_by_what_students_see(name, task, answer, message):
    with pytest.raises(AssertionError, match=message):
        run_test_cell(name, task, answer, hidden=False)


def test_numbers_copied_from_the_visible_test_do_not_pass_the_hidden_one():
    known = "def rate(e, n, lr): return [1e-5, 0.1, 0.1 * (2 + 2**0.5) / 4, 0.05][e % 4]"
    run_test_cell("02_coop", "rate", known, hidden=False)
    with pytest.raises(AssertionError, match="rate in 50 epochs"):
        run_test_cell("02_coop", "rate", known)


def points(name):
    """{task: (points, minutes)} of an assignment, from its cells."""
    return {grading(cell)["grade_id"].removeprefix("test_"):
            (grading(cell)["points"], cell.metadata.minipsync.minutes)
            for cell in cells(name) if grading(cell).get("grade")}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_form(name):
    """No outputs, short lines, locked tests and imports, headings and lists that tell the points."""
    book = cells(name)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in book)
    text = "\n".join(cell.source for cell in book if cell.cell_type == "code")
    assert max(map(len, text.splitlines())) <= 115
    ids = [grading(cell)["grade_id"] for cell in book if grading(cell)]
    assert len(ids) == len(set(ids))
    for cell in book:
        if cell.cell_type == "code":
            about = grading(cell)
            assert about["locked"] != about["solution"], about
            assert about["grade"] == bool(HIDDEN.search(cell.source)), about
    told = [int(x) for cell in book
            for x in re.findall(r"^## (?:Task|Question) \d+ \((\d+) points?", cell.source)]
    assert told == [most for most, _ in points(name).values()]
    assert "(1 points" not in "".join(cell.source for cell in book)
    row = next(line for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
               if line.startswith(f"| {name} "))
    assert re.search(r"\| (\d+) \|$", row).group(1) == str(sum(told))


def test_the_teachers_table_is_that_of_the_notebooks():
    text = (ROOT / "docs/teaching.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d_\w+) \| `(\w+)` \| [^|]+ \| (\d+) \| (\d+) \|$", text, re.M)
    assert [(name, task, int(most), int(minutes)) for name, task, most, minutes in rows] == [
        (name, task, *numbers) for name in ASSIGNMENTS for task, numbers in points(name).items()]
    total = re.search(r"\*\*(\d+) points and (\d+) minutes\*\*", text).groups()
    numbers = [pair for name in ASSIGNMENTS for pair in points(name).values()]
    assert tuple(map(int, total)) == tuple(map(sum, zip(*numbers, strict=True)))


def test_check():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    check("f", x + 1e-6, x)
    check("f", 3, 3.0)
    check("f", x, [[1, 2], [3, 4]])
    check("f", "level", "level")
    for answer, message in ((x + torch.tensor([0.0, 3.0]), r"f: 5 at \[0, 1\], expected 2; 2 of 4 values"),
                            (None, "is there a `return`"), ("one", "a number or a tensor, got str one"),
                            (x[0], r"is \[2\], exp"),
                            (x / 0, "nan or infinite"), (2 * x, "f: you doubled it")):
        with pytest.raises(AssertionError, match=message):
            check("f", answer, x, mistakes={"you doubled it": 2 * x, "this one is right": x})
    for answer, message in ((None, "is there a `return`"), ("open", "f: that is shy"), (x, "got|tensor"),
                            ("first", "str first, expected 'level'")):
        with pytest.raises(AssertionError, match=message):
            check("f", answer, "level", mistakes={"that is shy": "open"})
    with pytest.raises(AssertionError, match="the last two axes are swapped"):
        check("f", torch.zeros(2, 3), torch.zeros(3, 2))


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_no_listed_mistake_is_the_right_answer_everywhere(name, monkeypatch):
    """Every mistake that a test looks for differs from what is expected in one of its checks at least."""
    found = {}

    def spy(title, answer, expected, *, tolerance=1e-4, mistakes=None):
        check(title, answer, expected, tolerance=tolerance)
        for text, value in (mistakes or {}).items():
            pairs = zip(expected, value, strict=True) if isinstance(expected, tuple) else [(expected, value)]
            differs = expected != value if isinstance(expected, str) else any(
                not exercises._close(exercises._tensor("", e), exercises._tensor("", v), tolerance)
                for e, v in pairs)
            found[text] = found.get(text, False) or differs
    monkeypatch.setattr(exercises, "check", spy)
    space = {}
    for key, source in code(name):
        if key != "together":
            exec(source, space)
    assert found and not [text for text, differs in found.items() if not differs]
