"""Imports point downwards only: the line of layers in CONTRIBUTING.md is true, and there is no circle."""
import ast
import graphlib
import re
from pathlib import Path

import pytest
from versions import ROOT


def read_layers(text):
    """["settings", "files", …] from the one line with arrows in CONTRIBUTING.md, the lowest first."""
    line, = re.findall(r"^ {4}(\w+(?: → \w+)+)$", text, re.M)
    return line.split(" → ")


LAYERS = read_layers((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def read_modules(root):
    """{dotted name: syntax tree} of the package at `root`; a package's own name is that of its __init__."""
    return {".".join((root.name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"):
            ast.parse(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))}


def imports(name, tree, modules):
    """Modules of the package that module `name` imports, within functions too. The version is no module's."""
    is_package = any(other.startswith(f"{name}.") for other in modules)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = name.split(".")[:len(name.split(".")) + is_package - node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            found = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base
                     for alias in node.names if alias.name != "__version__"]
        else:
            continue
        yield from (module for module in found if module in modules)


def back_up(modules, layers):
    """["a.b imports a.c", …] for each import that leads to a later layer, or out of the package's doors.

    The package itself and __main__ stand above all layers."""
    def height(module):
        part = module.split(".")[1] if "." in module else "__main__"
        return len(layers) if part == "__main__" else layers.index(part)

    return [f"{name} imports {other}" for name, tree in modules.items()
            for other in imports(name, tree, modules) if height(other) > height(name)]


def circle(modules):
    """The modules that import each other in a circle, or []."""
    graph = {name: {other for other in imports(name, tree, modules) if other != name}
             for name, tree in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


MODULES = read_modules(ROOT / "minipsync")


def test_every_part_has_its_layer():
    parts = {name.split(".")[1] for name in MODULES if "." in name}
    assert sorted(LAYERS) == sorted(parts - {"__main__"})


def test_imports_point_downwards():
    assert sum(len(list(imports(name, tree, MODULES))) for name, tree in MODULES.items()) > 100
    assert not back_up(MODULES, LAYERS)


def test_there_is_no_circle():
    assert not circle(MODULES)


def package(folder, files):
    """The modules of a package "own" with these files: {"a/b": its code}."""
    for name, code in files.items():
        path = Path(folder, "own", f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    return read_modules(Path(folder, "own"))


@pytest.mark.parametrize("code", [
    "from ..high import x", "from ..high.x import y", "from .. import high", "import own.high.x",
    "from own.high import x as z", "def f():\n    from ..high.x import y", "from .. import build"])
def test_an_import_that_leads_back_up_is_found(code, tmp_path):
    good = {"low/b": "from . import a\nfrom .. import __version__",
            "high/x": "from ..low.a import f\nimport os, numpy"}
    empty = dict.fromkeys(["__init__", "low/__init__", "high/__init__"], "")
    modules = package(tmp_path, empty | good | {"low/a": code})
    found = back_up(modules, ["low", "high"])
    assert len(found) == 1 and found[0].startswith("own.low.a imports own")


@pytest.mark.parametrize(("a", "b", "found"), [
    ("from .b import f", "from . import a", ["own.p.a", "own.p.b"]),
    ("from .b import f", "def f():\n    from .a import f", ["own.p.a", "own.p.b"]),
    ("from .b import f", "import os", []), ("import os", "from .a import f", [])])
def test_a_circle_is_found(a, b, found, tmp_path):
    modules = package(tmp_path, {"__init__": "", "p/__init__": "", "p/a": a, "p/b": b})
    assert sorted(set(circle(modules))) == found
