"""What pyproject.toml says of versions is what the code imports, environment.yml installs and was tested."""
import ast
import functools
import importlib.metadata
import json
import re
import sys

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version
from versions import PROJECT, ROOT, declared, read_floor

import minipsync

FLOORS = {name: Version(floor) for group in declared().values() for name, floor in group.items()}
EXTRAS = list(PROJECT["optional-dependencies"])
LATER = "book"                            # nothing needs it but `make book`, which installs it
# folder: the extras that its reader has installed, beside what the package itself needs
FOLDERS = {"minipsync": [], "notebooks": ["notebooks"], "benchmarks": ["notebooks"], "data_scripts": ["data"],
           "docs": ["notebooks", "dev", "book"], "tests": EXTRAS}
# no distributions: the folders, and the files that lie beside those which import them
SCRIPTS = ("tests", "benchmarks", "docs")
OWN = {*FOLDERS, *(file.stem for folder in SCRIPTS for file in (ROOT / folder).rglob("*.py"))}
brought_by = functools.cache(importlib.metadata.packages_distributions)     # {"PIL": ["pillow"], …}


def code_of(folder):
    """(file, its Python) of all scripts and notebooks; what students hand in is not ours."""
    for file in sorted((ROOT / folder).rglob("*")):
        if file.suffix == ".py":
            yield file, file.read_text(encoding="utf-8")
        elif file.suffix == ".ipynb" and ("source" in file.parts or "exercises" not in file.parts):
            for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
                if cell["cell_type"] == "code":
                    yield file, "".join(cell["source"])


def imports(code):
    """(name, whether a function asks for it) of every import in `code` that is not Python's or our own."""
    tree = ast.parse(re.sub(r"^\s*[%!].*", "", code, flags=re.M))      # without Jupyter's own lines
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    late = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        for name in (name.split(".")[0] for name in names):
            if name not in sys.stdlib_module_names and name not in OWN:
                yield name, node in late


def undeclared(folder, code):
    """The imports in `code` of a folder that no requirement of this folder's reader brings. What a function
    of the package imports may come with any extra: it is asked for when it is needed."""
    found = []
    for name, late in imports(code):
        extras = EXTRAS if late and folder == "minipsync" else FOLDERS[folder]
        good = {canonicalize_name(n) for extra in ("", *extras) for n in declared()[extra]}
        # a module that is not installed is taken for the distribution of its name
        if not good & set(map(canonicalize_name, brought_by().get(name, [name]))):
            found.append(name)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_import_is_declared(folder):
    found = [(file.name, undeclared(folder, code)) for file, code in code_of(folder)]
    assert found and not [(name, missing) for name, missing in found if missing]


@pytest.mark.parametrize(("folder", "code", "found"), [
    ("minipsync", "from PIL import Image\nfrom . import clip\nimport os.path, torch.nn", []),
    ("minipsync", "import nltk", ["nltk"]),
    ("minipsync", "def f():\n    from nltk.corpus import wordnet", []),
    ("minipsync", "def f():\n    import jinja2", ["jinja2"]),
    ("minipsync", "import surely.not_installed", ["surely"]),
    ("notebooks", "%timeit 1\nfrom IPython.display import display\nimport pytest", ["pytest"]),
    ("benchmarks", "def f():\n    import nbgrader, tests.reference", ["nbgrader"]),
    ("data_scripts", "from fontTools.ttLib import TTFont\nimport minipsync, papermill", ["papermill"]),
    ("tests", "import reference, requests\nimport jinja2", ["jinja2"]),
])
def test_an_undeclared_import_is_found(folder, code, found):
    assert undeclared(folder, code) == found


@pytest.mark.parametrize("requirement", ["torch", "torch==2.10", "torch>2", "torch>=2.10,<3",
                                         "torch[opt]>=2.10", "torch>=2.10; os_name == 'posix'"])
def test_a_requirement_that_is_not_just_a_floor_is_refused(requirement):
    with pytest.raises(ValueError, match=re.escape(repr(requirement))):
        read_floor(requirement)


def test_all_floors_are_read():
    assert read_floor("open_clip_torch>=3.0") == ("open_clip_torch", "3.0")
    assert {"torch", "papermill", "pooch", "pytest"} <= set(FLOORS)    # one of the package and of every extra


def test_installed_versions_are_allowed():
    """What only the book needs may be missing."""
    missing = {name for name in declared()[LATER] if not list(importlib.metadata.distributions(name=name))}
    installed = {name: Version(importlib.metadata.version(name)) for name in FLOORS if name not in missing}
    assert not {name: (found, FLOORS[name]) for name, found in installed.items() if found < FLOORS[name]}


def test_tested_versions_are_allowed():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", "==".join(pair)) for pair in pairs)    # no hosts, no builds
    tested = {canonicalize_name(name): Version(text) for name, text in pairs}
    assert len(tested) == len(pairs) and "minipsync" not in tested
    found = {name: tested.get(canonicalize_name(name)) for name in FLOORS}
    assert not {name: found[name] for name, floor in FLOORS.items() if not found[name] or found[name] < floor}


@pytest.mark.parametrize(("file", "pattern"), [
    ("environment.yml", r"- python>=([\d.]+)$"), ("Makefile", r"^\tpython([\d.]+) -m venv"),
    ("README.md", r"You need Python ([\d.]+) or newer"), ("pyproject.toml", r'^target-version = "py(\d+)"')])
def test_the_oldest_python_is_the_same_everywhere(file, pattern):
    floor = PROJECT["requires-python"].removeprefix(">=")
    found = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.M)
    assert found in ([floor], [floor.replace(".", "")])                # ruff writes py311


@pytest.mark.parametrize(("file", "pattern"), [
    ("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## \[(\S+)\] - ")])
def test_own_version_is_the_same_everywhere(file, pattern):
    """pyproject.toml has none of its own: it takes the package's."""
    assert "version" not in PROJECT and "version" in PROJECT["dynamic"]
    assert re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.M)[0] == minipsync.__version__


@pytest.mark.parametrize(("file", "by_itself"), [("environment.yml", []), ("Makefile", [[LATER]])])
def test_all_extras_are_installed(file, by_itself):
    found = re.findall(r"-e \"?\.\[([\w,]+)\]", (ROOT / file).read_text(encoding="utf-8"))
    assert [sorted(extras.split(",")) for extras in found] == [sorted({*EXTRAS} - {LATER}), *by_itself]
