"""Printing: results to stdout, everything else to stderr."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ser_batch.errors import printable

if TYPE_CHECKING:
    from ser_batch.runs.progress import Progress

_META = "ser_batch.output."
_ANY_WIDTH = 100_000  # of a line that is no terminal's


@dataclasses.dataclass(frozen=True)
class Output:
    """How a command speaks."""

    as_json: bool = False  # its summary is one JSON object, instead of lines
    quiet: bool = False  # no progress and no lines of a summary; errors, warnings and JSON stay
    verbose: bool = False  # more on stderr: versions, settings, each shard, each rejected recording

    @classmethod
    def current(cls) -> "Output":
        """Return that of the command that is running."""
        meta = click.get_current_context().meta
        return cls(**{field.name: meta.get(_META + field.name, False) for field in dataclasses.fields(cls)})

    def line(self, text: str = "") -> None:
        """Print a line of the summary to stdout."""
        if not (self.as_json or self.quiet):
            click.echo(text)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]], *, n_left: int = 1) -> None:
        """Print a table: drawn on a terminal, plain columns elsewhere; an empty row is a rule or an empty line."""
        # the first `n_left` columns hold words, the others numbers
        if self.as_json or self.quiet:
            return
        import rich.box
        import rich.console
        import rich.table
        from rich.text import Text

        is_terminal, rows = sys.stdout.isatty(), list(rows)
        drawn = rich.table.Table(
            box=rich.box.SIMPLE_HEAD if is_terminal else None, pad_edge=is_terminal, header_style="bold"
        )
        # on a narrow terminal other columns are cut first
        min_width = max(len(printable(row[0])) for row in (headers, *rows) if row)
        for number, header in enumerate(headers):
            drawn.add_column(
                Text(header),
                no_wrap=True,
                justify="left" if number < n_left else "right",
                min_width=None if number else min_width,
            )
        for row in rows:
            if row:
                drawn.add_row(*(Text(printable(cell)) for cell in row))
            elif is_terminal:
                drawn.add_section()
            else:
                drawn.add_row()
        console = rich.console.Console(force_terminal=is_terminal, width=None if is_terminal else _ANY_WIDTH)
        with console.capture() as captured:
            console.print(drawn)
        click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))

    def result(self, summary: Any, *, failed: bool = False) -> None:
        """Print a summary as JSON where that was asked for, in one line; exit with status 3 where it `failed`."""
        if self.as_json:
            import json

            from ser_batch.summary import to_json

            # ASCII: no character of a name reaches a terminal as it is
            click.echo(json.dumps(to_json(summary), allow_nan=False))
        if failed:
            click.get_current_context().exit(3)

    def warning(self, text: object, kind: str = "warning") -> None:
        """Print a warning to stderr, whatever was asked for."""
        click.echo(f"{colored(kind, 'yellow')}: {printable(text)}", err=True)

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
        from ser_batch.runs.progress import each_shard, no_progress

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
            (("--json", "as_json"), "Print the summary as one JSON object on stdout."),
            (("-q", "--quiet"), "Print only errors, warnings and what --json prints."),
            (
                ("-v", "--verbose"),
                "Print more on stderr: versions, settings, each shard, every rejected recording (by default the first "
                "ten), tracebacks of internal errors.",
            ),
        )
    ]


def colored(text: str, color: str) -> str:
    """Return a word in a color, for `click.echo`, which takes it out again where it prints to no terminal."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=color)


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
