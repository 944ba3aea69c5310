"""Notebook parameters that are what they should be: the third cell of every notebook.

papermill injects whatever `-p name value` says. It only logs a name that the notebook does not know, and it
hands lists over as strings. So the notebook states what it takes, and `check_parameters` stops the run with
the list of good ones, or converts.

    dataset: str = "sketch"        # cell 2, tagged `parameters`
    limit: int = 200
    methods: list = ["zero_shot", "promptsync"]

    # cell 3
    check_parameters(globals(), dataset=bench.names, limit=(1, None),
                     methods={"choices": names, "many": True})
"""

import ast
import numbers
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ..settings import alternatives, describe, did_you_mean, from_text

PLAIN = (str, bool, numbers.Number, list, tuple, dict, set, type(None))


class ParameterError(ValueError):
    """A parameter has no such name, or a value that does not fit. The message lists every good one."""


def check_parameters(namespace: dict[str, Any], **declared: Any) -> dict[str, Any]:
    """Check and convert the parameters of a notebook; return them and set them in `namespace`.

    namespace: `globals()` of the notebook, or any dict of names and values
    declared:  for each parameter one of
        int, float, str, bool          a value of that type; `int | None` also takes None
        list[int]                      a list of such values; one value alone becomes a list of one
        ["sketch", "r"]                one of these values (any iterable of names: `bench.names`)
        (low, high)                    a number from low to high, both included; None leaves that end open;
                                       a whole number unless one end is a float
        {"type": int, "choices": …, "low": 1, "high": 9, "optional": True, "many": True}   any of them

    "3" becomes 3, "0.5" 0.5, "false" False, "[1,2]" and "1,2" [1, 2], "none" None, where that is declared.
    Raises ParameterError for a value that does not fit, for a declared name that is not set, and for a name
    that is not declared but was injected by papermill or written in the parameters cell.
    """
    kinds = {name: _kind(name, given) for name, given in declared.items()}
    problems, clean = [], {}
    for name in _unknown(namespace, kinds):
        problems.append(f"{name}: there is no such parameter.{did_you_mean(name, kinds, str)}")
    for name, kind in kinds.items():
        if name not in namespace:
            problems.append(f"{name}: not set; the parameters cell must give it a value")
            continue
        try:
            clean[name] = _convert(namespace[name], kind)
        except ValueError as error:
            problems.append(f"{name} = {namespace[name]!r}: {error}")
    if problems:
        width = max(map(len, kinds), default=0)
        good = [f"  {name:{width}}  {describe(kind, str)}" for name, kind in kinds.items()]
        bad = [f"  {problem}" for problem in problems]
        raise ParameterError("\n".join(["", *bad, "The parameters are:", *good]))
    namespace.update(clean)
    return clean


# ---- what was declared -------------------------------------------------------------------------------
def _kind(name: str, given: Any) -> Any:
    """The type that a declaration stands for: `Annotated[int, Field(ge=1)]`, `list[str] | None`, …"""
    origin, args = typing.get_origin(given), typing.get_args(given)
    if isinstance(given, dict):
        return _kind_of_dict(name, given)
    if origin in (typing.Union, types.UnionType) and len(set(args) - {type(None)}) == 1:
        return _kind(name, *(set(args) - {type(None)})) | None
    if origin is list:
        return types.GenericAlias(list, (_kind(name, args[0]),))
    if given is list:
        return list[str]
    if origin is Literal or isinstance(given, type) and given in (int, float, str, bool):
        return given
    if isinstance(given, tuple) and len(given) == 2 and all(_is_number(end) or end is None for end in given):
        return Annotated[float if float in map(type, given) else int, Field(ge=given[0], le=given[1])]
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        return _kind_of_dict(name, {"choices": given})
    raise TypeError(f"check_parameters: {name}={given!r} does not declare a parameter; give a type, a list "
                    "of choices, (low, high), or a dict with type, choices, low, high, optional, many")


def _kind_of_dict(name: str, given: dict[str, Any]) -> Any:
    if unknown := set(given) - {"type", "choices", "low", "high", "optional", "many"}:
        raise TypeError(f"check_parameters: {name} declares {', '.join(sorted(unknown))}; a dict may have "
                        "type, choices, low, high, optional and many")
    kind: Any
    ends, optional, many = (given.get("low"), given.get("high")), given.get("optional"), given.get("many")
    if "choices" in given:
        every = list(given["choices"])
        choices = tuple(choice for choice in every if choice is not None)
        optional = len(choices) < len(every) if optional is None else optional
        if not choices:
            raise TypeError(f"check_parameters: {name} declares no choice at all")
        kind = typing.cast(Any, Literal)[choices]
    else:
        kind = _kind(name, given.get("type", ends if ends != (None, None) else str))
    if "type" in given and ends != (None, None):
        kind = Annotated[kind, Field(ge=ends[0], le=ends[1])]
    kind = types.GenericAlias(list, (kind,)) if many else kind
    return kind | None if optional else kind


def _is_number(x: Any) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, bool)


# ---- what was given ----------------------------------------------------------------------------------
def _convert(value: Any, kind: Any) -> Any:
    """`value` as `kind` wants it, or ValueError that says what was expected."""
    value, kinds = from_text(value, kind) if isinstance(value, str) else value, alternatives(kind)
    inner = next((typing.get_args(each)[0] for each in kinds if typing.get_origin(each) is list), None)
    if inner is not None and value is not None:
        items = list(value) if isinstance(value, (list, tuple, set)) else [value]
        if not items:
            raise ValueError(f"expected {describe(kind, str)}, and at least one")
        return [_convert(item, inner) for item in items]
    try:
        if isinstance(value, bool) and bool not in kinds:                  # to pydantic True is 1
            raise TypeError
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except (ValidationError, TypeError):
        choices = [c for each in kinds if typing.get_origin(each) is Literal for c in typing.get_args(each)]
        if choices and type(value) in map(type, choices):
            hint = did_you_mean(value, choices, str)
            raise ValueError(f"it is none of the choices.{hint}") from None
        raise ValueError(f"expected {describe(kind, str)}") from None


# ---- names that were not declared --------------------------------------------------------------------
def _unknown(namespace: dict[str, Any], known: Iterable[str]) -> list[str]:
    """Names set as parameters that are none.

    In a notebook the cells say which names those are: papermill's cell of injected ones begins with
    `# Parameters`, and the parameters cell is the one just before. A plain dict has no cells: there every
    plain value counts."""
    cells = namespace.get("In")
    if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
        return [name for name, value in namespace.items()
                if name not in known and not name.startswith("_") and isinstance(value, PLAIN)]
    before = cells[:-1]
    injected = [cell for cell in before if cell.lstrip().startswith("# Parameters\n")][-1:]
    neighbour = [cell for cell in before[-1:] if set(_assigned(cell)) & set(known)]
    names = [name for cell in injected + neighbour for name in _assigned(cell)]
    return [name for name in dict.fromkeys(names) if name not in known and not name.startswith("_")]


def _assigned(cell: str) -> list[str]:
    """Names that a cell assigns a value to at its top level."""
    try:
        body = ast.parse(cell).body
    except SyntaxError:                                   # a cell with magics
        return []
    simple = [node.target for node in body if isinstance(node, ast.AnnAssign) and node.value is not None]
    targets = simple + [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
