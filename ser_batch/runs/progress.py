"""Progress on stderr: a bar on a terminal, plain lines elsewhere; or nothing, or a line for each shard."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from ser_batch.runs.ledger import ShardSummary
from ser_batch.storage.streams import is_terminal, say

SECONDS_BETWEEN_LINES = 10.0
Advance = Callable[[ShardSummary], None]  # is called with each shard that is done


class Progress(Protocol):
    """Shows how far a run is."""

    def __call__(self, title: str, n_files: int, /) -> contextlib.AbstractContextManager[Advance]:
        """Show the shards of the block, of so many files in all."""


@contextlib.contextmanager
def show_progress(title: str, n_files: int) -> Iterator[Advance]:
    """Show files, hours of sound, rate and time left: a bar on a terminal, plain lines elsewhere."""
    if is_terminal(sys.stderr):
        with _bar(title, n_files) as (advance, _):
            yield advance
        return
    started = printed = time.monotonic()
    files, audio_s = 0, 0.0

    def advance_plainly(summary: ShardSummary) -> None:
        nonlocal files, audio_s, printed
        files, audio_s = files + summary.n_recordings, audio_s + summary.audio_s
        now = time.monotonic()
        if now - printed >= SECONDS_BETWEEN_LINES:
            printed = now
            rate = files / (now - started)
            say(
                f"{title}: {files} of {n_files} files, {audio_s / 3600:.2f} h of audio, {rate:.1f} files/s, "
                f"{(n_files - files) / rate:.0f} s left"
            )

    yield advance_plainly


@contextlib.contextmanager
def each_shard(title: str, n_files: int) -> Iterator[Advance]:
    """Show a line for each shard, above the bar where there is one."""
    files = 0
    with contextlib.ExitStack() as stack:
        move, show = stack.enter_context(_bar(title, n_files)) if is_terminal(sys.stderr) else (_nothing, say)

        def advance(summary: ShardSummary) -> None:
            nonlocal files
            files += summary.n_recordings
            show(
                f"{title}: {summary.name}: {summary.n_recordings} recordings, {summary.n_rows} rows, "
                f"{summary.n_rejects} rejected, {summary.audio_s:.1f} s of audio; {files} of {n_files} files"
            )
            move(summary)

        yield advance


@contextlib.contextmanager
def no_progress(_title: str, _n_files: int) -> Iterator[Advance]:
    """Show nothing."""
    yield _nothing


def _nothing(_summary: ShardSummary) -> None:
    return


@contextlib.contextmanager
def _bar(title: str, n_files: int) -> Iterator[tuple[Advance, Callable[[str], None]]]:
    """Draw a bar on stderr; give what moves it, and what says a line above it."""
    import rich.console
    import rich.progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("files  {task.fields[hours]:.2f} h of audio  {task.fields[rate]:.1f} files/s "),
        bars.TimeRemainingColumn(),
    )
    started = time.monotonic()
    audio_s = 0.0
    with bars.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task(title, total=n_files, hours=0.0, rate=0.0)

        def advance(summary: ShardSummary) -> None:
            nonlocal audio_s
            audio_s += summary.audio_s
            bar.update(task, advance=summary.n_recordings, hours=audio_s / 3600)
            bar.update(task, rate=bar.tasks[0].completed / (time.monotonic() - started))

        yield advance, lambda line: bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
