"""Settings that are checked when they are made, say what they mean, and follow from each other.

    class MyConfig(Settings, title="mine"):
        '''What this method can be told.'''

        n_views: PositiveInt = 64
        '''views per image, the image itself among them'''
        lr: PositiveFloat = Field(default_factory=lambda given: 0.1 if given["n_views"] > 1 else 0.2)
        '''rate of the step'''

The text below a field is its description: errors and `--help` show it. A field with a `default_factory`
follows from the fields above it; `config.replace(n_views=1)` lets it follow anew, unless it was given itself.
"""

import ast
import difflib
import functools
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Settings(pydantic.BaseModel):
    """Base of all configs: pydantic's model, unchangeable, with errors of one line.

    No text becomes a number here, no bool an int, no NaN a float; an int is good where a float is wanted, a
    list where a tuple is, and None where a value follows from others. The class keyword `title` is the name
    that errors begin with. Raises ValueError for an unknown name and for a value that does not fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False,
                              use_attribute_docstrings=True, validate_default=False)

    def __init__(self, /, **given: Any):
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ValueError(_one_line(type(self), given, error)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed; config.replace({name}={value!r}) "
                             "makes another")

    def replace(self, **changes: Any) -> Self:
        """A copy with other settings. What followed from others follows from those of the copy."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As `replace`, under pydantic's name; this is also what `copy.replace` calls."""
        return self.replace(**(update or {}))

    def check(self) -> None:
        """For subclasses: raise ValueError (see `require`) where settings do not go together."""

    def require(self, good: Any, name: str, expected: str) -> None:
        """Raise ValueError that names a setting, its value and what was expected, unless `good`."""
        if not good:
            raise ValueError(f"{name}={getattr(self, name)!r} does not fit; expected {expected}")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _plain(cls, given: dict[str, Any]) -> dict[str, Any]:
        follows = {name for name, field in cls.model_fields.items() if field.default_factory}
        return {name: _plain(value) for name, value in given.items()
                if not (value is None and name in follows)}

    @pydantic.model_validator(mode="after")
    def _checked(self) -> Self:
        self.check()
        return self


def in_order(high: float = math.inf) -> AfterValidator:
    """For a field of two numbers: 0 < first <= second <= high."""
    def check(pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 < pair[0] <= pair[1] <= high:
            raise ValueError(f"two numbers, 0 < low <= high{f' <= {high:g}' if high < math.inf else ''}")
        return pair
    return AfterValidator(check)


def some_of(names: Iterable[str]) -> AfterValidator:
    """For a field of several names: at least one, each of `names`."""
    names = tuple(names)

    def check(chosen: tuple[str, ...]) -> tuple[str, ...]:
        if not chosen or not set(chosen) <= set(names):
            raise ValueError(f"some of {', '.join(names)}")
        return chosen
    return AfterValidator(check)


# ---- errors -----------------------------------------------------------------------------------------
def did_you_mean(name: str, good: Iterable[Any], show: Callable[[str], str] = repr) -> str:
    """The hint " Did you mean 'x'?" where one of the names `good` is like `name`, else nothing."""
    like = {str(each).lower(): str(each) for each in good}
    close = difflib.get_close_matches(str(name).lower(), like, 1)
    return f" Did you mean {show(like[close[0]])}?" if close else ""


def require(good: Any, owner: str, name: str, value: Any, expected: str) -> None:
    """Raise ValueError that names the argument `name` of `owner` and what was expected, unless `good`."""
    if not good:
        raise ValueError(f"{owner}: {name}={value!r} does not fit; expected {expected}")


def _one_line(cls: type[Settings], given: Mapping[str, Any], error: ValidationError) -> str:
    """What is wrong with `given`, the first of pydantic's errors: unknown names before values."""
    problems = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
    unknown = [str(e["loc"][0]) for e in problems if e["type"] == "extra_forbidden"]
    if unknown:
        return (f"{error.title}: unknown setting {unknown[0]!r}.{did_you_mean(unknown[0], cls.model_fields)} "
                f"Good settings: {', '.join(cls.model_fields)}")
    problem = problems[0]
    own = problem["ctx"]["error"] if problem["type"] == "value_error" else None    # raised by a check of ours
    if not problem["loc"]:
        return f"{error.title}: {own}"
    name = str(problem["loc"][0])
    field, value = cls.model_fields[name], given[name]
    kind = "" if own or {"ge", "gt", "le", "lt"} & {*problem.get("ctx", ())} else f" ({type(value).__name__})"
    about = f" ({name}: {field.description})" if field.description else ""
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is Literal else ()
    return (f"{error.title}: {name}={value!r}{kind} does not fit; expected {own or describe(field)}, "
            f"for example {example(cls, name)!r}.{did_you_mean(value, choices)}{about}")


def describe(kind: Any, show: Callable[[Any], str] = repr) -> str:
    """A type as words: "a whole number, 1 or more", "one of 'A', 'B'", "a number or None"."""
    if isinstance(kind, FieldInfo):
        words = _with_limits(describe(kind.annotation, show), kind.annotation, kind.metadata)
        return _either(words, "None") if kind.default_factory else words
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        limits = [m for each in args[1:] for m in getattr(each, "metadata", [each])]
        return _with_limits(describe(args[0], show), args[0], limits)
    if origin in (typing.Union, types.UnionType):
        return _either(*(describe(each, show) for each in args))
    if origin is Literal:
        return f"one of {', '.join(map(show, args))}"
    if origin in (tuple, list):
        return f"a list, each {describe(args[0], show)}" if origin is list or ... in args else (
            f"{len(args)} values, each {describe(args[0], show)}")
    names = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
    return "None" if kind is type(None) else names.get(kind, getattr(kind, "__name__", str(kind)))


def _either(*words: str) -> str:
    return (", or " if any(", " in each for each in words) else " or ").join(words)


def _with_limits(words: str, kind: Any, limits: Iterable[Any]) -> str:
    """`words` with pydantic's limits of a number: "a whole number, 1 or more"."""
    found = {name: getattr(each, name) for each in limits for name in ("ge", "gt", "le", "lt")
             if getattr(each, name, None) is not None}
    if kind is int and "gt" in found:
        found["ge"] = found.pop("gt") + 1
    if {"ge", "le"} == set(found):
        return f"{words} from {found['ge']} to {found['le']}"
    texts = {"ge": "{} or more", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
    return ", ".join([words, *(texts[name].format(limit) for name, limit in found.items())])


def example(cls: type[Settings], name: str) -> Any:
    """The default of a field; of one that follows from others, what it is where nothing is given."""
    field = cls.model_fields[name]
    return getattr(cls(), name) if field.default_factory else field.default


# ---- values -----------------------------------------------------------------------------------------
NOTHING = ("", "none", "null")


def from_text(text: str, kind: Any) -> Any:
    """What a text, typed after an option or injected by papermill, means where `kind` is wanted: "3" a
    number, "0.08,1" or "[a, b]" several values, "none" None. The text itself where it means none of these."""
    kinds, word = alternatives(kind), text.strip()
    if type(None) in kinds and word.lower() in NOTHING:
        return None
    if str in kinds:
        return word
    for each in kinds:
        if typing.get_origin(each) in (tuple, list):
            return [from_text(item, typing.get_args(each)[0]) for item in items_of(word)]
        if typing.get_origin(each) is Literal:
            return next((choice for choice in typing.get_args(each) if str(choice) == word), text)
    union: Any = functools.reduce(operator.or_, kinds)
    try:
        return TypeAdapter(union).validate_python(word)
    except ValidationError:
        return text


def items_of(text: str) -> list[str]:
    """"[1,2]", "1,2" or "['1', '2']" -> ["1", "2"]; quotes may be missing, as after a shell."""
    if text[:1] in ("[", "(") and text[-1:] in ("]", ")"):
        try:
            return list(map(str, ast.literal_eval(text)))
        except (ValueError, SyntaxError, TypeError):
            text = text[1:-1]
    return [part.strip().strip("'\"") for part in text.split(",") if part.strip()]


def alternatives(kind: Any) -> list[Any]:
    """The types of a union, without what they are annotated with."""
    if typing.get_origin(kind) is Annotated:
        return alternatives(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [each for part in typing.get_args(kind) for each in alternatives(part)]
    return [kind]


def _plain(value: Any) -> Any:
    """Numbers of other libraries as Python's, lists as tuples; the rest as it is."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, (bool, int)) else value
