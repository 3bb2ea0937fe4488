"""Shards done in this process or by workers, with progress."""

import contextlib
import multiprocessing
from collections.abc import Generator, Sequence

from ser_batch.errors import SerBatchError, UsageError
from ser_batch.parallel.progress import Progress
from ser_batch.parallel.progress import progress as own_progress
from ser_batch.parallel.recovering import summaries
from ser_batch.parallel.shards import Shard, ShardSummary, Work
from ser_batch.tables import remove_temporaries


def run_shards(
    work: Work,
    shards: Sequence[Shard],
    *,
    jobs: int,
    title: str,
    isolate: bool = False,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Do all shards, showing progress on stderr.

    Parameters
    ----------
    work
        What is done with each.
    shards
        As `Store.shards` made them.
    jobs
        Worker processes; 1 is a plain loop in this process.
    title
        Of the progress bar.
    isolate
        Whether even one job's work is done in a worker process.
    timeout_s
        Seconds a recording may take before it is given up and rejected, None for no limit; work with one is done in
        worker processes.
    progress
        Shows it; None is a bar on a terminal, else plain lines.

    Raises
    ------
    KeyboardInterrupt
        Workers are gone within a second; finished shards stay.
    SerBatchError
        Memory ran out, or every recording ends its worker process.
    """
    n_files = sum(len(shard.recordings) for shard in shards)
    wants_workers = isolate or timeout_s is not None
    if multiprocessing.current_process().daemon:  # such as a worker of Celery
        if wants_workers:
            raise UsageError("--isolate and --timeout need processes, and this one is a daemon, which may have none")
        jobs = 1
    done = (
        summaries(work, shards, jobs=min(jobs, len(shards)), timeout_s=timeout_s)
        if shards and (jobs > 1 or wants_workers)
        else _plainly(work, shards)
    )
    with (progress or own_progress)(title, n_files) as advance, contextlib.closing(done):
        for summary in done:
            advance(summary)


def _plainly(work: Work, shards: Sequence[Shard]) -> Generator[ShardSummary]:
    """Do shards one after the other in this process."""
    try:
        yield from map(work, shards)
    except MemoryError as error:
        remove_temporaries(work.folder)
        raise SerBatchError(
            "memory ran out; finished parts are kept. With --isolate, a recording that takes too much is rejected and "
            "the others go on; run the same command again with it"
        ) from error
