"""Shards whose workers may die: such a shard is halved until the recording that did it is known.

A recording whose worker died is tried once more with nothing else at work, because memory may have run out by what its
neighbors took. If the worker dies again, the recording is rejected. One that exceeded its time is known at once.
"""

import abc
import contextlib
import dataclasses
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence

from ser_batch.corpus.manifest import Recording, Reject
from ser_batch.errors import RecordingError, SerBatchError, printable
from ser_batch.runs.ledger import (
    LedgerEntry,
    Shard,
    ShardLedger,
    ShardSummary,
    finished_summary,
    ledger_path,
    shard_number,
    write_ledger,
)
from ser_batch.runs.part_writer import remove_parts
from ser_batch.runs.worker import ShardTask, TimedOut, Work, content_hash_of
from ser_batch.storage.atomic import remove_temporaries

# so many deaths in a row are no accident: the machine is at fault, or the time limit
MAX_DEATHS_IN_A_ROW = 10
WORKER_DIED, TIMED_OUT = "WorkerDied", "TimedOut"


@dataclasses.dataclass(frozen=True)
class Death:
    """A shard whose worker died."""

    shard: Shard
    reason: str
    timed_out: TimedOut | None = None


class Backend(abc.ABC):
    """Where shards are done: in this process, by processes of this machine, or on a cluster."""

    @property
    @abc.abstractmethod
    def n_workers(self) -> int:
        """How many shards it does at a time."""

    @abc.abstractmethod
    def outcomes(self, tasks: Iterable[ShardTask]) -> Generator[ShardSummary | Death]:
        """Yield what becomes of tasks, in the order in which they end."""


def run_shards(
    work: Work, shards: Sequence[Shard], backend: Backend, *, timeout_s: float | None = None
) -> Generator[ShardSummary]:
    """Do shards; yield the summary of each, or of those that it was split into."""
    run = _Run(work, shards, backend, timeout_s)
    try:
        yield from run.summaries(shards)
        run.remove_split()
    finally:
        remove_temporaries(work.folder)


class _Run:
    """What is known of the workers that died."""

    def __init__(self, work: Work, shards: Sequence[Shard], backend: Backend, timeout_s: float | None) -> None:
        self._work, self._backend, self._timeout_s = work, backend, timeout_s
        self._numbers = itertools.count(1 + max((shard_number(shard.name) for shard in shards), default=0))
        self._split: list[Shard] = []  # those whose recordings went to other shards
        self._harmless: list[Recording] = []  # one that went well
        self._dead: list[Shard] = []  # those whose workers died in a row

    def summaries(self, shards: Sequence[Shard]) -> Iterator[ShardSummary]:
        """Do shards, then the recordings whose worker died, each with nothing else at work."""
        waiting, last = list(shards), list[Shard]()
        while waiting or last:
            is_alone = not waiting
            batch, waiting = ([last.pop(0)], []) if is_alone else (waiting, [])
            tasks = {shard.name: ShardTask(self._work, shard, self._timeout_s) for shard in batch}
            for outcome in self._backend.outcomes(tasks.values()):
                if isinstance(outcome, ShardSummary):
                    self._note_success(tasks[outcome.name].shard, outcome)
                    yield outcome
                    continue
                finished = finished_summary(self._work.folder, outcome.shard.name)
                if finished is not None:  # only the message was lost
                    yield finished
                    continue
                remove_parts(self._work.folder, self._work.schemas, outcome.shard.name)
                self._note_death(outcome)
                if outcome.timed_out is not None:
                    before, recording, after = self._around(outcome)
                    waiting += [shard for shard in (before, after) if shard.recordings]
                    yield self._reject(recording, self._too_slow(outcome), outcome.timed_out.content_hash)
                elif len(outcome.shard.recordings) > 1:
                    waiting += self._halves(outcome.shard)
                elif is_alone:
                    yield self._reject(outcome.shard, _fatal(outcome), _hash_of(outcome.shard))
                else:
                    last.append(outcome.shard)

    def remove_split(self) -> None:
        """Remove what was done twice: a worker that the cluster lost sight of may finish a shard that was split."""
        for shard in self._split:
            ledger = ledger_path(self._work.folder, shard.name)
            if ledger.is_file():
                ledger.unlink()
                remove_parts(self._work.folder, self._work.schemas, shard.name)

    def _halves(self, shard: Shard) -> tuple[Shard, Shard]:
        half = len(shard.recordings) // 2
        self._split.append(shard)
        return self._new_shard(shard.recordings[:half]), self._new_shard(shard.recordings[half:])

    def _around(self, death: Death) -> tuple[Shard, Shard, Shard]:
        """Return what comes before a recording that exceeded its time, the recording, and what comes after."""
        assert death.timed_out is not None
        number, recordings = death.timed_out.number, death.shard.recordings
        self._split.append(death.shard)
        cuts = recordings[:number], recordings[number : number + 1], recordings[number + 1 :]
        before, recording, after = map(self._new_shard, cuts)
        return before, recording, after

    def _new_shard(self, recordings: tuple[Recording, ...]) -> Shard:
        return Shard.numbered(next(self._numbers), recordings)

    def _note_success(self, shard: Shard, summary: ShardSummary) -> None:
        if not summary.n_rejects:
            self._forget_deaths(min(shard.recordings, key=lambda recording: recording.size))

    def _forget_deaths(self, harmless: Recording) -> None:
        self._dead, self._harmless = [], [harmless]

    def _note_death(self, death: Death) -> None:
        """End the run where workers die whatever they do: too many in a row, and with recordings tried alone too."""
        self._dead.append(death.shard)
        if len(self._dead) < MAX_DEATHS_IN_A_ROW:
            return
        # where each shard holds one fatal recording, all of them die though the machine is well
        smallest = (min(shard.recordings, key=lambda recording: recording.size) for shard in self._dead)
        for recording in self._harmless or smallest:
            trial = ShardTask(self._work, Shard("trial", (recording,)), self._timeout_s, is_trial=True)
            if not any(isinstance(outcome, Death) for outcome in self._backend.outcomes([trial])):
                self._forget_deaths(recording)
                return
        limit = "" if self._timeout_s is None else f" (some perhaps by --timeout {self._timeout_s:g})"
        raise SerBatchError(
            f"{len(self._dead)} workers in a row died{limit}, the last one at {death.shard.recordings[0].path}: "
            f"{death.reason}. The machine is at fault rather than the recordings: see to the memory of the workers, "
            "give fewer --jobs or a longer --timeout, and run the same command again to go on; finished parts are kept"
        )

    def _reject(self, shard: Shard, reject: Reject, content_hash: str | None) -> ShardSummary:
        """Write the ledger of a recording that no worker can do."""
        (recording,) = shard.recordings
        timeout_s = self._timeout_s if reject.error == TIMED_OUT else None
        entry = LedgerEntry.of(recording, content_hash, timed=self._work.cuts_at_labels, timeout_s=timeout_s)
        ledger = ShardLedger(recordings=[entry], rejects=[reject])
        write_ledger(self._work.folder, shard.name, ledger)
        return ledger.summary(shard.name)

    def _too_slow(self, death: Death) -> Reject:
        assert death.timed_out is not None
        path = death.shard.recordings[death.timed_out.number].path
        message = (
            f"{printable(path)}: was given up after {self._timeout_s:g} s; give a longer --timeout, or replace or "
            "remove the file"
        )
        return Reject(path, "worker", TIMED_OUT, message)


def _fatal(death: Death) -> Reject:
    path = death.shard.recordings[0].path
    message = (
        f"{printable(path)}: its worker process died, twice, the second time with nothing else at work "
        f"({death.reason}); replace the file, such as by a conversion to WAV, or remove it"
    )
    return Reject(path, "worker", WORKER_DIED, message)


def _hash_of(shard: Shard) -> str | None:
    """Return the hash of one recording, so that it is not tried again before it changes."""
    with contextlib.suppress(RecordingError):
        return content_hash_of(shard.recordings[0])
    return None
