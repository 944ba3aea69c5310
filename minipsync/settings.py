"""Checked settings: a frozen dataclass from keywords, with an error that names the good ones."""

import dataclasses
import difflib
import functools
import math
import numbers
import types
import typing


class Settings:
    """Base of configs in which a value follows from others where it is not given.

    A config says in `__post_init__` what a field that is None becomes, `self.follow(lr=…)`. What follows is
    read, compared and written like any value, but a copy with other settings (`replace_settings`, `build`
    with a config and keywords) lets it follow from those, and keeps what was given. `dataclasses.replace`
    does the same for numbers; True and False it hands over as if they were given.
    """

    __slots__ = ("_following",)                   # beside the fields, so that vars(config) are the fields

    def follow(self, **values):
        """Set the fields that are not given to `values`. For `__post_init__`."""
        following = set(getattr(self, "_following", ()))
        for name, value in values.items():
            given = getattr(self, name)
            if given is None or getattr(given, "follows", None) == (type(self), name):
                if type(value) in FOLLOWING:
                    value = FOLLOWING[type(value)](value)
                    value.follows = type(self), name
                object.__setattr__(self, name, value)
                following.add(name)
        object.__setattr__(self, "_following", frozenset(following))

    def __reduce__(self):                         # pickled and copied by what was given
        return functools.partial(type(self), **given_settings(self)), ()


class FollowingInt(int):
    """A number that says of which field of which config it follows: dataclasses.replace, which hands over all
    values alike, gives it to the copy, and that lets it follow anew. Copied, as by asdict, it is plain."""

    def __reduce__(self):
        return int, (int(self),)


class FollowingFloat(float):
    """As `FollowingInt`."""

    def __reduce__(self):
        return float, (float(self),)


FOLLOWING = {int: FollowingInt, float: FollowingFloat}


def given_settings(config):
    """The fields of the dataclass instance `config`, without those that follow from others."""
    following = getattr(config, "_following", ())
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)
            if f.init and f.name not in following}


def make_settings(cls, given, owner=""):
    """Build the frozen dataclass `cls` from the dict `given`.

    Raises ValueError for an unknown name (listing the good ones) and for a value of the wrong type or
    outside its `typing.Literal` choices. An int is good where a float is wanted.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    owner = owner or cls.__name__
    for name in given:
        if name not in fields:
            raise ValueError(f"{owner}: unknown setting {name!r}.{did_you_mean(name, fields)} Good settings: "
                             f"{', '.join(fields)}")
    kinds = typing.get_type_hints(cls)
    values = {}
    for name, value in given.items():
        values[name] = _convert(value, kinds[name])
        if values[name] is _BAD:
            raise ValueError(f"{owner}: {name}={value!r} ({type(value).__name__}) does not fit; "
                             f"expected {_describe(kinds[name])}, for example {_example(cls, fields[name])}")
    return cls(**values)


def replace_settings(config, given, owner=""):
    """A copy of the dataclass instance `config` with the keywords in `given` changed, checked alike. What
    followed from other settings follows from those of the copy (see `Settings`)."""
    return make_settings(type(config), given_settings(config) | dict(given), owner or type(config).__name__)


def did_you_mean(name, good):
    """The hint " Did you mean 'x'?" where one of the names `good` is like `name`, else nothing."""
    close = difflib.get_close_matches(str(name), good, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def require(good, owner, name, value, expected):
    """Raise ValueError that names the setting, its value and what was expected, unless `good`."""
    if not good:
        raise ValueError(f"{owner}: {name}={value!r} does not fit; expected {expected}")


_BAD = object()


def _convert(value, kind):
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return value
    if origin in (typing.Union, types.UnionType):
        tried = [_convert(value, a) for a in args]
        return next((t for t in tried if t is not _BAD), _BAD)
    if origin is typing.Literal:
        return value if any(value == a and type(value) is type(a) for a in args) else _BAD
    if origin is tuple:
        return _tuple(value, args)
    if kind is float:
        good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if good else _BAD
    if kind is int:
        return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else _BAD
    if kind in (str, bool, type(None)):
        return value if type(value) is kind else _BAD
    return value if isinstance(value, origin or kind) else _BAD


def _tuple(value, args):
    if not isinstance(value, (tuple, list)):
        return _BAD
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if args and len(args) != len(value):
        return _BAD
    items = [_convert(v, a) for v, a in zip(value, args, strict=True)] if args else list(value)
    return _BAD if any(i is _BAD for i in items) else tuple(items)


def _describe(kind):
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in typing.get_args(kind))
    if kind is type(None):
        return "None"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _example(cls, field):
    if field.default is None:                            # shows what follows where nothing is given
        return repr(getattr(cls(), field.name)) if issubclass(cls, Settings) else repr(None)
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return repr(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "…"
