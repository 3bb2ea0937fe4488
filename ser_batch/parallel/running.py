"""Shards over worker processes, and how they end."""

import contextlib
import signal
from collections.abc import Iterator

from ser_batch.errors import SerBatchError
from ser_batch.parallel.progress import progress
from ser_batch.parallel.shards import Shard, ShardSummary, Work
from ser_batch.tables import remove_temporaries


def run_shards(work: Work, shards: list[Shard], *, jobs: int, title: str) -> None:
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

    Raises
    ------
    KeyboardInterrupt
        Workers are gone within a second; finished shards stay.
    """
    n_files = sum(len(shard.recordings) for shard in shards)
    with progress(title, n_files) as advance:
        for summary in _results(work, shards, min(jobs, len(shards))):
            advance(summary)


def _results(work: Work, shards: list[Shard], jobs: int) -> Iterator[ShardSummary]:
    if jobs <= 1:
        yield from map(work, shards)
        return
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with _interrupt_held():
            # fork and threads do not go together (polars and JAX start threads); loky starts clean processes
            results = joblib.Parallel(n_jobs=jobs, backend="loky", batch_size=1, return_as="generator_unordered")(
                joblib.delayed(work)(shard) for shard in shards
            )
        yield from results
    except (Exception, KeyboardInterrupt) as error:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        remove_temporaries(work.folder)
        if isinstance(error, TerminatedWorkerError):
            raise SerBatchError(
                "a worker process was killed, perhaps because memory ran out; finished parts are kept. Run the same "
                "command again to go on, with fewer --jobs"
            ) from error
        raise


@contextlib.contextmanager
def _interrupt_held() -> Iterator[None]:
    """Keep Ctrl-C waiting; processes started meanwhile never see it, not even before they can ignore it."""
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as loky_resource_tracker

    # these two, started later, would let the signal through again
    resource_tracker.ensure_running()
    loky_resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
