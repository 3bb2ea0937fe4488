"""Printing: results to stdout, everything else to stderr."""

import contextlib
import dataclasses
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ser_batch.errors import printable
from ser_batch.storage.streams import is_terminal

if TYPE_CHECKING:
    from ser_batch.runs.progress import Progress

_META = "ser_batch.output."
_ANY_WIDTH = 100_000  # of a line that is no terminal's
_WIDTH = 80  # of a terminal that does not tell
# What is copied from a message stays in one line: what stands in backticks or quotes, a command to its end, and a path
# before a colon, which may hold spaces.
_WHOLE = re.compile(
    r"`[^`]*`"
    r"|(?<!\w)'[^']*'(?!\w)"
    r"|(?<=: )ser-batch .*?(?=[,;] |\. |$)"
    r"|(?:(?<=[:;,] )|^)[^:;,]*(?:/[^:;,]*|\.\w+)(?=: )"
)


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
            click.echo(wrapped(text, sys.stdout))

    def link(self, before: str, path: Path) -> None:
        """Print a line that ends with a file, which terminals open at a click."""
        if self.as_json or self.quiet:
            return
        text = printable(path)
        if is_terminal(sys.stdout) and not is_plain():
            uri = path.absolute().as_uri()  # all but letters, digits and few marks are encoded
            text = f"\x1b]8;;{uri}\x1b\\{text}\x1b]8;;\x1b\\"
        click.echo(before + text)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]], *, n_left: int = 1) -> None:
        """Print a table: drawn on a terminal, plain columns elsewhere; an empty row is a rule or an empty line."""
        # the first `n_left` columns hold words, the others numbers
        if self.as_json or self.quiet:
            return
        import rich.box
        import rich.console
        import rich.table
        from rich.text import Text

        is_drawn, rows = is_terminal(sys.stdout), list(rows)
        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD if is_drawn else None, pad_edge=is_drawn, header_style="bold")
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
            elif is_drawn:
                drawn.add_section()
            else:
                drawn.add_row()
        console = rich.console.Console(force_terminal=is_drawn, width=None if is_drawn else _ANY_WIDTH)
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

    def warning(self, text: object, kind: str = "warning", name: str = "") -> None:
        """Print a warning to stderr, whatever was asked for; a `name` in it stays in one line."""
        echo_error(printable(text), kind, "yellow", name=name)

    def remark(self, text: str) -> None:
        """Print what need not be acted upon to stderr."""
        if not self.quiet:
            click.echo(wrapped(text, sys.stderr), err=True)

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
        elif self.verbose or not is_terminal(sys.stderr):
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
        elif not is_terminal(sys.stderr):
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


def wrapped(text: str, stream: TextIO, *, before: str = "", name: str = "") -> str:
    """Return `text` in lines as wide as a terminal, the first of them after `before`; as it is elsewhere."""
    if not is_terminal(stream):
        return text
    names = [*filter(None, [printable(name)]), *_given_names()]
    lines = []
    for line in text.split("\n"):
        joined = line
        for whole in names:
            joined = joined.replace(whole, _joined(whole))
        joined = _joined(before) + _WHOLE.sub(lambda found: _joined(found[0]), joined)
        options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "expand_tabs": False}
        parts = textwrap.wrap(joined, _width_of(stream), subsequent_indent="  ", replace_whitespace=False, **options)
        lines.append("\n".join(parts).replace("\0", " ").removeprefix(before) if parts else line)
        before = ""
    return "\n".join(lines)


def _joined(text: str) -> str:
    return text.replace(" ", "\0")


def _given_names() -> list[str]:
    """Return the arguments that hold spaces, as they are printed, also as parts of other names."""
    given = [argument.partition("=")[2] if argument.startswith("--") else argument for argument in sys.argv[1:]]
    names = {printable(name) for argument in given for name in (argument, argument.removesuffix(Path(argument).suffix))}
    return sorted((name for name in names if " " in name), key=len, reverse=True)


def _width_of(stream: TextIO) -> int:
    """Return how many characters a line of a terminal has."""
    columns = os.environ.get("COLUMNS", "")
    try:
        width = int(columns) if columns.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except OSError:
        width = 0
    return width or _WIDTH


def echo_error(text: str, kind: str = "ser-batch", color: str = "red", *, err: bool = True, name: str = "") -> None:
    """Print a message and, in a color, its kind to stderr, or to stdout."""
    stream = sys.stderr if err else sys.stdout
    click.echo(f"{colored(kind, color)}: {wrapped(text, stream, before=f'{kind}: ', name=name)}", err=err)


def colored(text: str, color: str) -> str:
    """Return a word in a color, for `click.echo`, which takes it out again where it prints to no terminal."""
    return text if is_plain() else click.style(text, fg=color)


def is_plain() -> bool:
    """Whether a terminal gets no colors and no links."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


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
