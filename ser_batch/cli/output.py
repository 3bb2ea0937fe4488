"""The one place that prints: results to stdout, all else to stderr, as much of it as was asked for."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from ser_batch.errors import printable

if TYPE_CHECKING:
    from ser_batch.parallel import Progress

_META = "ser_batch.output."


@dataclasses.dataclass(frozen=True)
class Output:
    """How a command speaks.

    Parameters
    ----------
    as_json
        Its summary is one JSON object, instead of lines.
    quiet
        No progress and no lines of a summary; errors, warnings and JSON stay.
    verbose
        More on stderr: versions, settings, each shard, each rejected recording.
    """

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    @classmethod
    def current(cls) -> "Output":
        """Return that of the command that is running."""
        meta = click.get_current_context().meta
        return cls(**{field.name: meta.get(_META + field.name, False) for field in dataclasses.fields(cls)})

    def line(self, text: str = "") -> None:
        """Print a line of the summary to stdout."""
        if not (self.as_json or self.quiet):
            click.echo(text)

    def table(self, plain: str, headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
        """Print a table: `plain` as it is, or on a terminal its headers and cells drawn.

        A row of empty cells is a rule; the first `left` columns hold words, the others numbers.
        """
        if self.as_json or self.quiet:
            return
        if not sys.stdout.isatty():
            click.echo(plain)
            return
        import rich.box
        import rich.console
        import rich.table
        import rich.text

        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, header_style="bold")
        rows = list(rows)
        # on a narrow terminal other columns are cut first
        least = [max(len(printable(row[0])) for row in [headers, *rows]), *[None] * (len(headers) - 1)]
        for number, header in enumerate(headers):
            justify: Literal["left", "right"] = "left" if number < left else "right"
            drawn.add_column(rich.text.Text(header), no_wrap=True, justify=justify, min_width=least[number])
        for row in rows:
            if any(row):
                drawn.add_row(*(rich.text.Text(printable(cell)) for cell in row))
            else:
                drawn.add_section()
        rich.console.Console(file=sys.stdout).print(drawn)

    def result(self, values: Mapping[str, Any], *, failed: bool = False) -> None:
        """Print the summary as JSON where that was asked for, in one line; exit with status 3 where it `failed`."""
        if self.as_json:
            import json

            # ASCII: no character of a name reaches a terminal as it is
            click.echo(json.dumps(_plain(values), allow_nan=False))
        if failed:
            click.get_current_context().exit(3)

    def warning(self, text: object, kind: str = "warning") -> None:
        """Print a warning to stderr, whatever was asked for."""
        click.echo(f"{coloured(kind, 'yellow')}: {printable(text)}", err=True)

    def remark(self, text: str) -> None:
        """Print what need not be acted upon to stderr."""
        if not self.quiet:
            click.echo(text, err=True)

    def detail(self, text: object) -> None:
        """Print to stderr what only those want to know who asked for it."""
        if self.verbose:
            click.echo(printable(text), err=True)

    def progress(self) -> "Progress | None":
        """Return what shows the progress of featurize and score."""
        from ser_batch.parallel import each_shard, no_progress

        return no_progress if self.quiet else each_shard if self.verbose else None

    @contextlib.contextmanager
    def epochs(self) -> Iterator[Callable[[str], None]]:
        """Give what shows the progress of train: a line that is written over on a terminal, lines elsewhere."""
        if self.quiet:
            yield _nothing
        elif self.verbose or not sys.stderr.isatty():
            yield lambda line: click.echo(printable(line), err=True)
        else:
            import rich.console
            import rich.text

            with rich.console.Console(stderr=True).status(rich.text.Text("train: reading features")) as status:
                yield lambda line: status.update(rich.text.Text(printable(line)))

    @contextlib.contextmanager
    def transfers(self) -> Iterator[Callable[[str, int, int], None]]:
        """Give what shows a download: a bar an archive on a terminal, a line every tenth of it elsewhere."""
        if self.quiet:
            yield _nothing
        elif not sys.stderr.isatty():
            yield _transfer_lines()
        else:
            import rich.console
            import rich.progress as bars

            columns = (
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.DownloadColumn(),
                bars.TransferSpeedColumn(),
                bars.TimeRemainingColumn(),
            )
            with bars.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
                tasks: dict[str, bars.TaskID] = {}

                def advance(name: str, done: int, total: int) -> None:
                    if name not in tasks:
                        tasks[name] = bar.add_task(printable(name), total=None)
                    bar.update(tasks[name], completed=done, total=total or None)

                yield advance


def output_options() -> list[click.Option]:
    """Return the options that every command has; what they say comes by `Output.current`."""

    def keep(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        ctx.meta[f"{_META}{option.name}"] = value

    return [
        click.Option([*names], is_flag=True, expose_value=False, callback=keep, help=text)
        for names, text in (
            (
                ("--json", "as_json"),
                "Print the summary as one JSON object on stdout; progress and warnings stay on stderr.",
            ),
            (("-q", "--quiet"), "No progress, no summary; errors, warnings and what --json prints stay."),
            (
                ("-v", "--verbose"),
                "More on stderr: versions, settings, each shard, every rejected recording (else ten), where a fault "
                "of the program comes from.",
            ),
        )
    ]


def coloured(text: str, colour: str) -> str:
    """Return a word in a colour, for `click.echo`, which takes it out again where it prints to no terminal."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=colour)


def _nothing(*_progress: object) -> None:
    return


def _transfer_lines() -> Callable[[str, int, int], None]:
    said: dict[str, int] = {}

    def advance(name: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else done // 50_000_000
        if said.get(name) != tenth:
            said[name] = tenth
            of = f" of {total / 1e6:.0f}" if total else ""
            click.echo(f"{name}: {done / 1e6:.0f}{of} MB", err=True)

    return advance


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: paths as text, no number that is none."""
    if isinstance(value, Mapping):
        return {_text(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, (bool, int)) else _text(value)


def _text(value: object) -> str:
    r"""Return text without undecodable bytes, which are written ``\xNN`` as in the tables."""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
