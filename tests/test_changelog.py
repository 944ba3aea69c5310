"""The changelog's table of imports is true: what it calls old is gone, and what it calls new is there."""
import importlib
import importlib.util
import re

import pytest
from versions import ROOT

ROWS = re.findall(r"^\| (`minipsync.*?) \| (`minipsync.*?) \|$",
                  (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def read_cell(text):
    """"`a.b`: `x`, `y`; `a.c`" -> [("a.b", ["x", "y"]), ("a.c", [])]."""
    parts = (re.findall(r"`([\w.]+)`", part) for part in text.split(";"))
    return [(module, names) for module, *names in parts]


def is_there(module, names=()):
    """Can this module be imported, and does it offer all these names?"""
    try:
        if importlib.util.find_spec(module) is None:
            return False
    except ModuleNotFoundError:                                 # of the package that it would lie in
        return False
    imported = importlib.import_module(module)
    return all(hasattr(imported, name) for name in names)


def test_the_table_is_read():
    assert len(ROWS) > 30 and read_cell("`a.b`: `x`, `y`; `a.c`") == [("a.b", ["x", "y"]), ("a.c", [])]


@pytest.mark.parametrize(("old", "new"), ROWS)
def test_imports(old, new):
    (old_module, old_names), = read_cell(old)
    for module, names in read_cell(new):
        named = names or ([name for name in old_names if module != old_module])
        assert is_there(module, named), f"{module}: {named}"
    moved = [module for module, _ in read_cell(new)]
    if not old_names and not any(module.startswith(f"{old_module}.") for module in moved):
        assert not is_there(old_module)
