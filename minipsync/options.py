"""Options of the command line that are the settings of methods and of training, with their own descriptions.

A command that has them is decorated twice, and its parameter `settings` gets what was typed:

    @app.command(cls=SettingsCommand, epilog=EPILOG)
    @with_settings(lambda name: [REGISTRY[name].Config()], REGISTRY)
    def run(methods, ..., settings: dict[str, Any]): ...

Every option is there for every method, so that what does not go together is told in one way, by
`check_settings`. The help shows those of the methods that the command line names.
"""

import functools
import inspect
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .settings import Settings, alternatives, describe, did_you_mean, from_text

EPILOG = ("The settings of a method are options, too; name it to see them: minipsync {} {} --help. Their "
          "defaults are the paper's; a benchmark may have others, and what is typed comes before both.")


class SettingsCommand(TyperCommand):
    """A command whose help shows the settings of the methods that are named on the command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Typer's, which uses the words up; they are kept for the help."""
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, _without_old_forms(inspect.unwrap(self.callback or len), args))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Typer's options, then a section for the settings of each method that was named."""
        super().format_options(ctx, formatter)
        callback: Any = self.callback
        command: Any = inspect.unwrap(callback)
        for name in dict.fromkeys(word for word in ctx.meta["words"] if word in command.names):
            for config in command.configs(name):
                with formatter.section(f"Settings of {type(config).model_config.get('title', name)}"):
                    formatter.write_dl([_help(command, config, setting) for setting in own_settings(config)])


def with_settings(configs: Callable[[str], Iterable[Settings]], names: Iterable[str]) -> Callable:
    """Decorator that gives a command an option for each setting of `configs(name)`, for all these methods.

    The values that were typed reach its parameter `settings`, a dict from names to texts, True or False."""
    def decorate(command: Any) -> Any:
        command.configs, command.names = configs, tuple(names)
        signature = inspect.signature(command)
        kinds = {setting: field.annotation for name in command.names for config in configs(name)
                 for setting, field in own_settings(config).items()}
        options = {f"setting_{name}": inspect.Parameter(
            f"setting_{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[
                (bool if bool in alternatives(kind) else str) | None,
                typer.Option(_flags(command, name, kind), hidden=True)]) for name, kind in kinds.items()}

        def wrapped(**given: Any) -> Any:
            typed = {name: given.pop(name) for name in options}
            return command(**given, settings={
                name.removeprefix("setting_"): value for name, value in typed.items() if value is not None})

        own = [each for name, each in signature.parameters.items() if name != "settings"]
        result: Any = functools.update_wrapper(wrapped, command)
        result.__signature__ = signature.replace(parameters=[*own, *options.values()])
        result.__annotations__ = {each.name: each.annotation for each in (*own, *options.values())}
        return result
    return decorate


def own_settings(config: Settings) -> dict[str, Any]:
    """The settings that have an option of their own: all but the seed, which commands have themselves."""
    return {name: field for name, field in type(config).model_fields.items() if name != "seed"}


def values_for(config: type[Settings], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the typed settings that `config` has, as values of its types."""
    fields = config.model_fields
    kinds: dict[str, Any] = {name: field.annotation for name, field in fields.items()}
    return {name: from_text(text, kinds[name] | None if fields[name].default_factory else kinds[name])
            if isinstance(text, str) else text for name, text in typed.items() if name in fields}


def check_settings(command: Any, names: Iterable[str], typed: Mapping[str, Any]) -> None:
    """Raise ValueError for a typed setting that none of the methods `names` has."""
    names, command = list(names), inspect.unwrap(command)
    good = list(dict.fromkeys(setting for name in names for config in command.configs(name)
                              for setting in own_settings(config)))
    for name in typed:
        if name not in good:
            flags = [flag(command, each) for each in good]
            raise ValueError(f"{flag(command, name)}: {' and '.join(names)} {'have' if names[1:] else 'has'} "
                             f"no such setting.{did_you_mean(flag(command, name), flags)} Good settings: "
                             f"{', '.join(flags) or 'none'}")


def flag(command: Callable, name: str) -> str:
    """The option for a setting; "--method-weights" where `command` has "--weights" for something else."""
    clash = name in inspect.signature(inspect.unwrap(command)).parameters
    return f"--{'method-' if clash else ''}{name.replace('_', '-')}"


def typed_again(command: Callable, typed: Mapping[str, Any], *others: tuple[str, Any]) -> str:
    """Options as one types them: `others`, pairs of option and value, and settings; those without a value are
    left out."""
    words = [f"{name} {shlex.quote(str(value))}" for name, value in others if value not in ("", None)]
    for name, value in typed.items():
        option = flag(command, name)
        words.append(f"{option} {shlex.quote(value)}" if isinstance(value, str) else
                     option if value else option.replace("--", "--no-", 1))
    return " ".join(words)


def _without_old_forms(command: Any, args: list[str]) -> list[str]:
    """Take --set name=value and --recipe name=value of earlier versions for --name value, with a warning."""
    new, left = [], iter(args)
    for word in left:
        option, equals, pair = word.partition("=")
        if option not in ("--set", "--recipe"):
            new.append(word)
            continue
        pair = pair if equals else next(left, "")
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{option} {pair}: expected name=value; better say --name value")
        own = "--seed" if name.strip() == "seed" else flag(command, name.strip())
        switch = {"true": [own], "false": [own.replace("--", "--no-", 1)]}.get(value.lower())
        words = switch or [own, value]
        warnings.warn(f"{option} {pair} is the form of an earlier version; say {shlex.join(words)}",
                      stacklevel=2)
        new += words
    return new


def _flags(command: Callable, name: str, kind: Any) -> str:
    option = flag(command, name)
    return f"{option}/{option.replace('--', '--no-', 1)}" if bool in alternatives(kind) else option


def _help(command: Callable, config: Settings, name: str) -> tuple[str, str]:
    """A row of the help: option; description, type, default."""
    field = type(config).model_fields[name]
    default = getattr(config, name)
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    kind = "" if field.annotation is bool else f"{describe(field, str)}; "
    return (_flags(command, name, field.annotation),
            f"{' '.join((field.description or '').split())}  [{kind}default: {shown}]")
