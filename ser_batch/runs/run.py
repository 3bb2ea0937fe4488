"""Shards done in this process, by workers or by a cluster, with progress."""

import contextlib
import multiprocessing
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

from ser_batch.config.options import RunOptions
from ser_batch.corpus.labels import join_labels
from ser_batch.corpus.manifest import Recording
from ser_batch.corpus.walk import name_warnings
from ser_batch.errors import InputError, SerBatchError, UsageError
from ser_batch.runs.cluster import Cluster
from ser_batch.runs.cluster import summaries as on_cluster
from ser_batch.runs.ledger import Shard, ShardSummary
from ser_batch.runs.planning import Plan
from ser_batch.runs.progress import Progress
from ser_batch.runs.progress import progress as own_progress
from ser_batch.runs.recovery import summaries
from ser_batch.runs.store import Store, StoreSummary, worker_count
from ser_batch.runs.worker import Work
from ser_batch.storage.atomic import remove_temporaries


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
    """Do all shards, showing progress on stderr."""
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


def nothing_done(audio: Path, what: str, store: Store, held: StoreSummary, plan: Plan) -> InputError:
    """Return the error of a run that has no row to show: why, and where the reasons stand."""
    if held.rejects:
        reasons = "; ".join(reject.message for reject in held.rejects[:3])
        return InputError(
            f"{audio}: nothing could be {what}; {len(held.rejects)} rejected, all in {store.rejects_file}: {reasons}"
        )
    if plan.n_before_since:
        return InputError(
            f"{audio}: nothing was {what}: all {plan.n_before_since} recordings were last modified before --since; "
            "choose an earlier time, or leave it out"
        )
    return InputError(
        f"{audio}: nothing could be {what}: no recording has speech, or a channel, role or row of the labels file that "
        "was asked for (a mono recording has channel 0 and no role)"
    )


def _without_rows(n: int) -> Iterator[str]:
    if n:
        yield (
            f"{n} recordings have no rows: no speech, or none of the channels that were asked for (mono has channel 0)"
        )


def labelled(
    recordings: tuple[Recording, ...], options: RunOptions
) -> tuple[tuple[Recording, ...], tuple[str, ...], tuple[str, ...]]:
    """Join the labels file, if there is one; under ``labels`` only recordings with rows are kept."""
    by_labels = options.segmentation.follows_labels
    if options.labels is None:
        if by_labels:
            raise UsageError("--segments labels needs --labels FILE, with start_s and end_s")
        return recordings, name_warnings(recordings, corpus=options.corpus), ()
    joined = join_labels(recordings, options.labels, timed=options.segments != "clip", cut=by_labels)
    kept = tuple(recording for recording in joined.recordings if recording.labels or not by_labels)
    return kept, (*joined.warnings, *name_warnings(kept, corpus=options.corpus)), joined.voted
