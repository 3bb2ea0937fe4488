"""A run of featurize or score: find the recordings, plan, do the shards, sum up."""

import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ser_batch.config.options import RunOptions
from ser_batch.corpus.labels import join_labels
from ser_batch.corpus.manifest import Manifest, Recording
from ser_batch.corpus.walk import name_warnings, utf8, walk
from ser_batch.errors import InputError, UsageError
from ser_batch.runs.cluster import connected_to_dask, connected_to_ray
from ser_batch.runs.ledger import Shard
from ser_batch.runs.local import SameProcess, WorkerProcesses
from ser_batch.runs.progress import Progress, show_progress
from ser_batch.runs.recovery import Backend, run_shards
from ser_batch.runs.store import Plan, Store, StoreSummary
from ser_batch.runs.worker import Work


@dataclasses.dataclass(frozen=True)
class Input:
    """The recordings of a run."""

    audio: Path
    manifest: Manifest  # all that were found
    recordings: tuple[Recording, ...]  # those to do, with their labels
    warnings: tuple[str, ...]
    vote_columns: tuple[str, ...]  # labels that the labels file has votes for

    @classmethod
    def find(cls, audio: Path, options: RunOptions) -> "Input":
        """Walk `audio` and join the labels file; under ``labels`` only recordings with rows are kept."""
        manifest = walk(audio, corpus=options.corpus)
        by_labels = options.segmentation.follows_labels
        recordings, warnings, voted = manifest.recordings, tuple[str, ...](), tuple[str, ...]()
        if options.labels is not None:
            joined = join_labels(recordings, options.labels, timed=options.segments != "clip", cut=by_labels)
            recordings = tuple(recording for recording in joined.recordings if recording.labels or not by_labels)
            warnings, voted = joined.warnings, joined.voted
        elif by_labels:
            raise UsageError("--segments labels needs --labels FILE, with start_s and end_s")
        warnings += name_warnings(recordings, corpus=options.corpus)
        return cls(audio, manifest, recordings, warnings, voted)

    def identity(self, options: RunOptions) -> dict[str, Any]:
        """Return the settings that every output belongs to."""
        return {
            "root": utf8(self.manifest.root),
            "segmentation": options.segmentation.identity(),
            **options.stored(),
        }


@dataclasses.dataclass(frozen=True)
class Runner:
    """Does shards as the options say, and shows progress."""

    options: RunOptions
    backend: Backend
    show: Progress

    def do(self, work: Work, store: Store, recordings: Sequence[Recording], *, title: str) -> None:
        """Do recordings, cut into shards of a store."""
        size, n_workers = self.options.shard_size, self.backend.n_workers
        self.do_shards(work, store.shards(recordings, shard_size=size, n_workers=n_workers), title=title)

    def do_shards(self, work: Work, shards: Sequence[Shard], *, title: str) -> None:
        """Do shards."""
        done = run_shards(work, shards, self.backend, timeout_s=self.options.timeout)
        n_files = sum(len(shard.recordings) for shard in shards)
        with self.show(title, n_files) as advance, contextlib.closing(done):
            for summary in done:
                advance(summary)


@contextlib.contextmanager
def connected(options: RunOptions, progress: Progress | None = None) -> Iterator[Runner]:
    """Give what does shards; connect to the cluster if the options name one."""
    with contextlib.ExitStack() as stack:
        if options.backend == "dask":
            backend = stack.enter_context(connected_to_dask(options.scheduler))
        elif options.backend == "ray":
            backend = stack.enter_context(connected_to_ray(options.scheduler))
        else:
            backend = _local_backend(options)
        yield Runner(options, backend, progress or show_progress)


def _local_backend(options: RunOptions) -> Backend:
    wants_processes = options.isolate or options.timeout is not None
    if multiprocessing.current_process().daemon:  # such as a worker of Celery
        if wants_processes:
            raise UsageError("--isolate and --timeout need processes, and this one is a daemon, which may have none")
        return SameProcess()
    jobs = options.jobs or _n_processors()
    return WorkerProcesses(jobs) if jobs > 1 or wants_processes else SameProcess()


def _n_processors() -> int:
    """Return how many processors this process may use: those of its container, where that has fewer."""
    import joblib

    return int(joblib.cpu_count())


@dataclasses.dataclass(frozen=True)
class Run:
    """A run into a store that is open and held."""

    input: Input
    store: Store
    plan: Plan
    started: float

    @classmethod
    def prepare(cls, found: Input, store: Store, work: Work, options: RunOptions, started: float) -> "Run":
        """Compare what was found with what the store holds."""
        existing = {recording.path for recording in found.manifest.recordings}
        return cls(found, store, store.plan(found.recordings, work, options, existing=existing), started)

    def finish(self, done: str) -> StoreSummary:
        """Write the rejects and return what the store holds; `done` is a word for what was to be done."""
        held = self.store.finish(self.input.manifest.rejects)
        if held.is_empty:
            raise self._nothing_done(held, done)
        return held

    def counts(self, held: StoreSummary) -> dict[str, Any]:
        """Return the fields that the summaries of all stages share."""
        return {
            "n_done": len(self.plan.todo),
            "n_up_to_date": self.plan.n_done,
            "n_missing": self.plan.n_missing,
            "n_beyond_limit": self.plan.n_beyond_limit,
            "n_before_since": self.plan.n_before_since,
            "n_recordings": held.n_recordings,
            "n_segments": held.n_rows,
            "audio_s": held.audio_s,
            "n_rejected": len(held.rejects),
            "n_warned": len({reject.path for reject in held.warned}),
            "rejects": self.store.rejects_file,
            "rejected": held.rejects,
            "warned": held.warned,
            "skipped_files": self.input.manifest.skipped_files,
            "seconds": time.monotonic() - self.started,
        }

    def _nothing_done(self, held: StoreSummary, done: str) -> InputError:
        audio = self.input.audio
        if held.rejects:
            reasons = "; ".join(reject.message for reject in held.rejects[:3])
            return InputError(
                f"{audio}: nothing could be {done}; {len(held.rejects)} rejected, all in {self.store.rejects_file}: "
                f"{reasons}"
            )
        if self.plan.n_before_since:
            return InputError(
                f"{audio}: nothing was {done}: all {self.plan.n_before_since} recordings were last modified before "
                "--since; choose an earlier time, or leave it out"
            )
        return InputError(
            f"{audio}: nothing could be {done}: no recording has speech, or a channel, role or row of the labels file "
            "that was asked for (a mono recording has channel 0 and no role)"
        )
