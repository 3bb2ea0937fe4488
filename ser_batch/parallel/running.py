"""Shards done in this process, by workers or by a cluster, with progress."""

import contextlib
import multiprocessing
from collections.abc import Generator, Iterable, Sequence

from ser_batch.config import RunOptions
from ser_batch.corpus import Recording
from ser_batch.errors import SerBatchError, UsageError
from ser_batch.parallel.cluster import Cluster
from ser_batch.parallel.cluster import summaries as on_cluster
from ser_batch.parallel.progress import Progress
from ser_batch.parallel.progress import progress as own_progress
from ser_batch.parallel.recovering import summaries
from ser_batch.parallel.shards import Shard, ShardSummary, Work
from ser_batch.parallel.store import Store, worker_count
from ser_batch.tables import remove_temporaries


def run_recordings(
    work: Work,
    store: Store,
    recordings: Iterable[Recording],
    options: RunOptions,
    *,
    title: str,
    cluster: Cluster | None,
    progress: Progress | None,
) -> None:
    """Cut recordings into shards of a store and do them as the options say; see `run_shards`."""
    jobs = worker_count(options) if cluster is None else cluster.n_workers
    run_shards(
        work,
        store.shards(recordings, options, jobs=jobs),
        jobs=jobs,
        title=title,
        isolate=options.isolate,
        timeout_s=options.timeout,
        cluster=cluster,
        progress=progress,
    )


def run_shards(
    work: Work,
    shards: Sequence[Shard],
    *,
    jobs: int,
    title: str,
    isolate: bool = False,
    timeout_s: float | None = None,
    cluster: Cluster | None = None,
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
    cluster
        Whose workers do it; None for this machine's.
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
    if cluster is not None:
        done = on_cluster(work, shards, cluster, timeout_s=timeout_s)
    else:
        done = _here(work, shards, jobs=jobs, wants_workers=wants_workers, timeout_s=timeout_s)
    with (progress or own_progress)(title, n_files) as advance, contextlib.closing(done):
        for summary in done:
            advance(summary)


def _here(
    work: Work, shards: Sequence[Shard], *, jobs: int, wants_workers: bool, timeout_s: float | None
) -> Generator[ShardSummary]:
    """Return the generator that does shards on this machine."""
    if multiprocessing.current_process().daemon:  # such as a worker of Celery
        if wants_workers:
            raise UsageError("--isolate and --timeout need processes, and this one is a daemon, which may have none")
        jobs = 1
    if shards and (jobs > 1 or wants_workers):
        return summaries(work, shards, jobs=min(jobs, len(shards)), timeout_s=timeout_s)
    return _plainly(work, shards)


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
