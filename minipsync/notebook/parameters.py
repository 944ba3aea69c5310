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
import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass

WORDS = {"true": True, "yes": True, "on": True, "1": True,
         "false": False, "no": False, "off": False, "0": False}
NOTHING = ("", "none", "null")
PLAIN = (str, bool, numbers.Number, list, tuple, dict, set, type(None))


class ParameterError(ValueError):
    """A parameter has no such name, or a value that does not fit. The message lists every good one."""


@dataclass(frozen=True)
class Spec:
    """What one parameter takes. `many` is a list of values that each fit."""

    kind: type
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    optional: bool = False
    many: bool = False

    def __str__(self):
        names = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
        text = f"one of {', '.join(map(str, self.choices))}" if self.choices else names[self.kind]
        if self.low is not None and self.high is not None:
            text += f" from {self.low} to {self.high}"
        elif self.low is not None:
            text += f", {self.low} or more"
        elif self.high is not None:
            text += f", {self.high} or less"
        return ("a list, each " if self.many else "") + text + (", or None" if self.optional else "")


def check_parameters(namespace, **declared) -> dict:
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
    specs = {name: _spec(name, given) for name, given in declared.items()}
    problems, clean = [], {}
    for name in _unknown(namespace, specs):
        problems.append(f"{name}: there is no such parameter.{_did_you_mean(name, specs)}")
    for name, spec in specs.items():
        if name not in namespace:
            problems.append(f"{name}: not set; the parameters cell must give it a value")
            continue
        try:
            clean[name] = _convert(namespace[name], spec)
        except ValueError as error:
            problems.append(f"{name} = {namespace[name]!r}: {error}")
    if problems:
        width = max(map(len, specs), default=0)
        good = [f"  {name:{width}}  {spec}" for name, spec in specs.items()]
        bad = [f"  {problem}" for problem in problems]
        raise ParameterError("\n".join(["", *bad, "The parameters are:", *good]))
    namespace.update(clean)
    return clean


# ---- what was declared -------------------------------------------------------------------------------
def _spec(name, given) -> Spec:
    if isinstance(given, Spec):
        return given
    if isinstance(given, dict):
        return _spec_from_dict(name, given)
    if typing.get_origin(given) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(given) if arg is not type(None)]
        if len(inner) == 1:
            return _replace(_spec(name, inner[0]), optional=len(typing.get_args(given)) > 1)
    if typing.get_origin(given) is list:
        return _replace(_spec(name, typing.get_args(given)[0]), many=True)
    if typing.get_origin(given) is typing.Literal:
        return _spec(name, list(typing.get_args(given)))
    if given is list:
        return Spec(str, many=True)
    if isinstance(given, type) and given in (int, float, str, bool):
        return Spec(given)
    if isinstance(given, tuple) and len(given) == 2 and all(_is_number(end) or end is None for end in given):
        return Spec(float if float in map(type, given) else int, low=given[0], high=given[1])
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        return _spec_from_dict(name, {"choices": given})
    raise TypeError(f"check_parameters: {name}={given!r} does not declare a parameter; give a type, a list "
                    "of choices, (low, high), or a dict with type, choices, low, high, optional, many")


def _spec_from_dict(name, given) -> Spec:
    unknown = set(given) - {"type", "choices", "low", "high", "optional", "many"}
    if unknown:
        raise TypeError(f"check_parameters: {name} declares {', '.join(sorted(unknown))}; a dict may have "
                        "type, choices, low, high, optional and many")
    rest = {key: given[key] for key in ("low", "high", "optional", "many") if key in given}
    if "choices" in given:
        everything = list(given["choices"])
        choices = tuple(choice for choice in everything if choice is not None)
        rest.setdefault("optional", len(choices) < len(everything))
        if not choices:
            raise TypeError(f"check_parameters: {name} declares no choice at all")
        return Spec(type(choices[0]), choices, **rest)
    if "type" in given:
        spec = _spec(name, given["type"])
        return _replace(spec, **rest)
    ends = (given.get("low"), given.get("high"))
    return Spec(float if float in map(type, ends) else int if ends != (None, None) else str, **rest)


def _replace(spec, **changes) -> Spec:
    return Spec(**(spec.__dict__ | changes))


def _is_number(x):
    return isinstance(x, numbers.Real) and not isinstance(x, bool)


# ---- what was given ----------------------------------------------------------------------------------
def _convert(value, spec):
    """`value` as `spec` wants it, or ValueError that says what was expected."""
    if spec.optional and (value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)):
        return None
    if not spec.many:
        return _convert_one(value, spec)
    items = _as_list(value)
    if not items:
        raise ValueError(f"expected {spec}, and at least one")
    return [_convert_one(item, spec) for item in items]


def _as_list(value):
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in "[(" and text[-1:] in "])" and text:
            try:
                return list(ast.literal_eval(text))
            except (ValueError, SyntaxError, TypeError):
                text = text[1:-1]                         # [sketch, r] without quotes, as a shell leaves it
        return [part.strip().strip("'\"") for part in text.split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


def _convert_one(value, spec):
    converted = _as_kind(value, spec.kind)
    if converted is None:
        raise ValueError(f"expected {spec}")
    if spec.choices and converted not in spec.choices:
        raise ValueError(f"it is none of the choices.{_did_you_mean(str(converted), map(str, spec.choices))}")
    if (spec.low is not None and converted < spec.low) or (spec.high is not None and converted > spec.high):
        raise ValueError(f"expected {spec}")
    return converted


def _as_kind(value, kind):
    """`value` as a `kind`, None where it cannot be one."""
    if kind is bool:
        key = str(int(value)) if isinstance(value, numbers.Real) and value in (0, 1) else value
        return WORDS.get(key.strip().lower()) if isinstance(key, str) else None
    if kind is str:
        return value.strip() if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = int(value) if kind is int else float(value)
        except ValueError:
            return None
    if kind in (int, float) and isinstance(value, numbers.Real) and math.isfinite(value):
        return kind(value) if kind is float or value == int(value) else None
    return value if isinstance(value, kind) and kind not in (int, float) else None


def _did_you_mean(name, known):
    close = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


# ---- names that were not declared --------------------------------------------------------------------
def _unknown(namespace, specs):
    """Names set as parameters that are none.

    In a notebook the cells say which names those are: papermill's cell of injected ones begins with
    `# Parameters`, and the parameters cell is the one just before. A plain dict has no cells: there every
    plain value counts."""
    cells = namespace.get("In")
    if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
        return [name for name, value in namespace.items()
                if name not in specs and not name.startswith("_") and isinstance(value, PLAIN)]
    before = cells[:-1]
    injected = [cell for cell in before if cell.lstrip().startswith("# Parameters\n")][-1:]
    neighbour = [cell for cell in before[-1:] if set(_assigned(cell)) & set(specs)]
    names = [name for cell in injected + neighbour for name in _assigned(cell)]
    return [name for name in dict.fromkeys(names) if name not in specs and not name.startswith("_")]


def _assigned(cell):
    """Names that a cell assigns a value to at its top level."""
    try:
        body = ast.parse(cell).body
    except SyntaxError:                                   # a cell with magics
        return []
    simple = [node.target for node in body if isinstance(node, ast.AnnAssign) and node.value is not None]
    targets = simple + [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
