"""click's options, made of the fields that `ser_batch.config.options` declares."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ser_batch.cli.app import complete_models
from ser_batch.cli.console import Output
from ser_batch.config.fields import Field, Options, fields_of
from ser_batch.storage.paths import local_path, to_path

# what a command does with its arguments; gives its JSON object
Run = Callable[..., Any]  # returns a summary
# by the options that a stage of a job has
RUN_OF: dict[type[Options], Run] = {}


class _Path(click.Path):
    """A path, whose ~ is the home folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(str(super().convert(str(local_path(value)), param, ctx)))


class _Place(click.Path):
    """Such a path, or the address of an object store, such as s3://bucket/calls."""

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Any:
        return to_path(value)


PATH, FILE, PLACE = _Path(), _Path(exists=True, dir_okay=False), _Place()


class _Value(click.ParamType[Any]):
    """The value of an option, converted and checked as its field says."""

    name = "value"

    def __init__(self, field: Field) -> None:
        self.field = field

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Any:
        return self.field.checked(value, is_text=True) if isinstance(value, str) else value

    def shell_complete(self, _ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self.field.is_path:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(choice) for choice in self.field.choices if choice.startswith(incomplete)]


class GroupedOption(click.Option):
    """An option that help lists in a group."""

    def __init__(self, *names: Any, group: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


def _add_option(field: Field, command: Callable[..., None]) -> Callable[..., None]:
    settings: dict[str, Any] = {"is_flag": True} if field.is_flag else {"type": _Value(field), "metavar": field.metavar}
    if field.extra["completes"] == "models":
        settings["shell_complete"] = complete_models
    short = [f"-{field.extra['short']}"] if field.extra["short"] else []
    return click.option(
        *short,
        field.flag,
        field.name,
        cls=GroupedOption,
        group=field.extra["group"],
        default=field.default,
        help=field.help_text,
        **settings,
    )(command)


def with_options(options: type[Options]) -> Callable[[Run], Callable[..., None]]:
    """Add options to a command, which gets them as one argument, and what it prints with as another."""

    def add(run: Run) -> Callable[..., None]:
        fields = fields_of(options)

        def command(**given: Any) -> None:
            own = options(**{field.name: given.pop(field.name) for field in fields})
            output = Output.current()
            summary = run(**given, options=own, output=output)
            output.result(summary, failed=is_failed(own, summary))

        RUN_OF[options] = run
        made: Callable[..., None] = functools.update_wrapper(command, run)
        for field in reversed(fields):
            made = _add_option(field, made)
        return made

    return add


def is_failed(options: Options, summary: Any) -> bool:
    """Whether ``--strict`` makes a failure of what was rejected."""
    return bool(getattr(options, "strict", False) and summary.n_rejected)
