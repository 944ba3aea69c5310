"""Which code a prediction goes through, in 12 hex digits.

A prediction goes through the modules of the objects that make it, and through all that these import from
this package, at their top or inside a function. Of each module the syntax tree counts, without comments,
docstrings and layout: those may change, and records stay valid.

What is loaded is then compared with what the file says. A function that was replaced in a running program, or
a file that was edited since it was loaded, counts as what it now does. Classes from outside this package, as
of a notebook's cell, count by their own source.
"""

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).resolve().parent.parent

Definition = type | types.FunctionType


def code_fingerprint(objects: Iterable[Any]) -> str:
    """12 hex digits for the code that these objects, classes and functions go through."""
    modules: set[str] = set()
    outside: dict[str, str] = {}
    todo = [kind for thing in objects for kind in _kinds(thing)]
    while todo:
        kind = todo.pop()
        if kind.__module__.partition(".")[0] == PACKAGE:
            modules.add(kind.__module__)
        elif not _installed(kind) and (name := f"{kind.__module__}.{kind.__qualname__}") not in outside:
            outside[name], used = _from_outside(kind)
            todo += used
    parts = []
    for name in sorted(closure(modules)):
        parts += [name, _read(name).tree, *_changed(name)]
    parts += [f"{name} {source}" for name, source in sorted(outside.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def closure(modules: Iterable[str]) -> set[str]:
    """The modules of this package that `modules` reach by their imports, and these themselves."""
    found, todo = set(), list(modules)
    while todo:
        name = todo.pop()
        if name not in found and _file(name) is not None:
            found.add(name)
            todo += _read(name).imports
    return found


# ---- objects ----------------------------------------------------------------------------------------
def _kinds(thing: Any) -> Iterator[Definition]:
    """The classes and functions that an object is made of."""
    if isinstance(thing, functools.partial):
        yield from _kinds(thing.func)
    elif isinstance(thing, types.MethodType):
        yield from _kinds(thing.__self__)
    elif isinstance(thing, types.FunctionType):
        yield thing
    else:
        kind = thing if isinstance(thing, type) else type(thing)
        yield from (base for base in kind.__mro__ if base is not object)
        # what was set on the object itself in place of a method
        yield from (v for v in getattr(thing, "__dict__", {}).values() if isinstance(v, types.FunctionType))


def _installed(kind: Definition) -> bool:
    """Is it Python's or another installed package's? Those are recorded as versions."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return (kind.__module__.partition(".")[0] in {*sys.stdlib_module_names} - {"__main__"}
            or "site-packages" in file or "dist-packages" in file)


def _from_outside(kind: Definition) -> tuple[str, list[Definition]]:
    """The source of a class or function from outside, in words, and the classes and functions that it names:
    those of a notebook's other cells."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):              # typed into a plain interpreter, or built in
        code = getattr(kind, "__code__", None)
        return repr(_essence(code)) if code else kind.__qualname__, []
    around = vars(sys.modules.get(kind.__module__, types.SimpleNamespace()))
    names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    return _in_words(tree), [around[name] for name in names if around.get(name) is not kind
                             and isinstance(around.get(name), (type, types.FunctionType))]


# ---- modules ----------------------------------------------------------------------------------------
class Module(NamedTuple):
    """What the file of a module of this package says."""

    tree: str                                              # its syntax tree in words
    imports: set[str]                                      # the modules of this package that it imports
    code: types.CodeType
    names: list[tuple[str, str, str]]                      # what it imports: (its own name, module, theirs)


def _file(name: str) -> Path | None:
    """The file of a module of this package; None if there is none."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def _read(name: str) -> Module:
    file = _file(name)
    assert file is not None, name
    stat = file.stat()
    return _module(name, file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1000)
def _module(name: str, file: Path, *_stamp: int) -> Module:
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    names = [(alias.asname or alias.name, _absolute(node, package), alias.name)
             for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return Module(_in_words(tree), _imported(tree, package), compile(text, str(file), "exec"), names)


def _imported(tree: ast.Module, package: str) -> set[str]:
    """The modules of this package that a syntax tree imports anywhere; `package`: what "." stands for."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                inside = f"{base}.{alias.name}"
                found.add(inside if inside.startswith(PACKAGE) and _file(inside) else base)
    return {name for name in found if name.partition(".")[0] == PACKAGE}


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """"..losses" in a module of "minipsync.methods" -> "minipsync.methods.losses"."""
    parts = package.split(".")
    above = parts[:len(parts) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _in_words(node: Any) -> str:
    """A syntax tree in words, without docstrings; the same for every Python that has its constructs."""
    if isinstance(node, ast.AST):
        skip = ("kind", "type_comment")
        fields = {name: value for name, value in ast.iter_fields(node) if name not in skip}
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) \
                and ast.get_docstring(node, clean=False) is not None:
            fields["body"] = node.body[1:]
        inside = " ".join(f"{name}={_in_words(value)}" for name, value in fields.items()
                          if value is not None and value != [])
        return f"{type(node).__name__}({inside})"
    if isinstance(node, list):
        return f"[{' '.join(_in_words(each) for each in node if not _is_text(each))}]"
    return repr(node)


def _is_text(node: Any) -> bool:
    """Is it a statement that is only a text, such as the description below a setting?"""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


# ---- what is loaded, where it is not what the file says ----------------------------------------------
def _changed(name: str) -> list[str]:
    """Functions of a loaded module that are not those of its file, by name, with what they do."""
    module, file = sys.modules.get(name), _read(name)
    if module is None:
        return []
    written: dict[str, list] = {}                          # a property's getter and setter share a name
    for path, code in _functions(file.code):
        written.setdefault(path, []).append(_essence(code))
    live = {path: _codes(_find(module, path)) for path in written}
    changed = [f"{path} {found!r}" for path, codes in live.items()
               for found in map(_essence, codes) if found not in written[path]]
    for local, source, original in file.names:
        mine, theirs = getattr(module, local, None), getattr(sys.modules.get(source), original, None)
        if mine is not theirs:                             # a name that was imported stands for another now
            changed += [f"{local} {_essence(code)!r}" for code in _codes(mine)]
    return changed


def _functions(code: types.CodeType, prefix: str = "") -> Iterator[tuple[str, types.CodeType]]:
    """(name, code) of the functions of a module and of its classes; a class is a code without NEWLOCALS."""
    for inner in (c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name.isidentifier()):
        path = f"{prefix}{inner.co_name}"
        if inner.co_flags & inspect.CO_NEWLOCALS:
            yield path, inner
        else:
            yield from _functions(inner, f"{path}.")


def _find(thing: Any, path: str) -> Any:
    for name in path.split("."):
        thing = vars(thing).get(name) if hasattr(thing, "__dict__") else None
    return thing


def _codes(thing: Any) -> list[types.CodeType]:
    """The code of a function, or of those below decorators, properties and class methods."""
    if isinstance(thing, types.FunctionType) and not hasattr(thing, "__wrapped__"):
        return [thing.__code__]
    inner = (getattr(thing, name, None) for name in ("__wrapped__", "__func__", "fget", "fset", "func"))
    return [code for each in inner if each is not None for code in _codes(each)]


def _essence(code: types.CodeType) -> tuple:
    """What a code object does, without where it stands and what it says of itself."""
    consts = code.co_consts[1:] if code.co_consts and isinstance(code.co_consts[0], str) else code.co_consts
    return (code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars,
            tuple(_essence(c) if isinstance(c, types.CodeType) else
                  sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c) for c in consts))
