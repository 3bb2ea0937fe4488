"""Shards over worker processes that may die: one that does costs the recording it was at, not the run.

When one worker dies, the whole pool is gone, and it is not known whose fault it was. What each was at stands in its
note (`watching`): those recordings are set aside, and the rest of their shards goes on. In the end what was set aside
is done once more, each recording alone, with nothing else at work that takes memory: one whose worker dies again is a
reject. One that took longer than the time it may have is a reject at once, and nobody else is suspected then.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from ser_batch.corpus.manifest import Recording, Reject
from ser_batch.errors import SerBatchError, printable
from ser_batch.runs.ledger import Shard, ShardSummary, ledger_entry, ledger_path, summary_of, write_ledger
from ser_batch.runs.part_writer import remove_parts
from ser_batch.runs.pieces import number_of
from ser_batch.runs.processes import WorkersDiedError, in_workers
from ser_batch.runs.watchdog import Note, make_notes_folder, remove_notes, take_note
from ser_batch.runs.worker import Work
from ser_batch.storage.atomic import remove_temporaries

# so many recordings in a row that end their worker are no accident: the machine is at fault, or the time they may take
DEATHS_IN_A_ROW = 10


def summaries(work: Work, shards: Sequence[Shard], *, jobs: int, timeout_s: float | None) -> Generator[ShardSummary]:
    """Do shards in worker processes; yield the summary of each, and of what it was cut into."""
    make_notes_folder(work.folder)
    try:
        yield from Run(work, shards, timeout_s=timeout_s).summaries(jobs)
    except BaseException:
        remove_temporaries(work.folder)
        raise
    finally:
        remove_notes(work.folder)


class Run:
    """What is still to do, and what is known of the recordings that ended their workers."""

    def __init__(
        self,
        work: Work,
        shards: Sequence[Shard],
        *,
        timeout_s: float | None,
        name: Callable[[Sequence[Recording]], str] | None = None,
        processes: Callable[..., Iterable[Any]] | None = None,
        claim: str | None = None,
    ) -> None:
        self._work, self._timeout_s = work, timeout_s
        self._processes, self._claim = processes or in_workers, claim
        self._waiting = list(shards)
        self._suspects: list[Shard] = []  # of one recording each
        last = max((number_of(shard.name) for shard in shards), default=0)
        names = (f"part-{number:06d}" for number in itertools.count(last + 1))
        self._name = name or (lambda _: next(names))
        self._deaths = 0  # in a row
        self._good: Recording | None = None  # one that went well

    def summaries(self, jobs: int) -> Iterator[ShardSummary]:
        """Do everything: what is suspect last, each recording with nothing else at work."""
        while self._waiting or self._suspects:
            if self._waiting:
                shards, self._waiting = self._waiting, []
                yield from self._do(shards, jobs, is_alone=False)
            else:
                yield from self._do([self._suspects.pop(0)], 1, is_alone=True)

    def _do(self, shards: Sequence[Shard], jobs: int, *, is_alone: bool) -> Iterator[ShardSummary]:
        """Do shards as far as workers live; what is left when one has died is sorted out."""
        left = {shard.name: shard for shard in shards}
        calls = [functools.partial(self._work, shard, timeout_s=self._timeout_s, claim=self._claim) for shard in shards]
        try:
            for summary in self._processes(calls, jobs=jobs):
                shard = left.pop(summary.name)
                self._note_life(shard, summary)
                yield summary
            if left:  # joblib's generator has a way out of its loop that raises nothing
                raise WorkersDiedError("it is not known how")
        except WorkersDiedError as death:
            yield from self._after_death(list(left.values()), str(death), is_alone=is_alone)

    def _note_life(self, shard: Shard, summary: ShardSummary) -> None:
        if not summary.n_rejects:
            self._deaths = 0
            self._good = min(shard.recordings, key=lambda recording: recording.size)

    def _after_death(self, shards: Sequence[Shard], end: str, *, is_alone: bool) -> Iterator[ShardSummary]:
        """Find out what is done, which recordings may be to blame, and what goes on."""
        folder = self._work.folder
        notes: dict[str, Note] = {}
        unfinished: list[Shard] = []
        for shard in shards:
            note = take_note(folder, shard.name)
            ledger = ledger_path(folder, shard.name)
            if ledger.is_file():  # only word of it was lost
                yield summary_of(shard.name, json.loads(ledger.read_text(encoding="utf-8")))
                continue
            remove_parts(folder, self._work.schemas, shard.name)
            unfinished.append(shard)
            notes |= {shard.name: note} if note is not None else {}
        self._deaths = self._deaths + 1 if len(unfinished) == len(shards) else 1
        if self._deaths >= DEATHS_IN_A_ROW:
            self._check_machine(shards[0], end)
        # where time was up it is known which recording took it; the others only lost their worker
        blamed = {name for name, note in notes.items() if note.is_timed_out} or set(notes)
        for shard in unfinished:
            if shard.name in blamed:
                yield from self._sort_out(shard, notes[shard.name], end, is_alone=is_alone)
            else:
                (self._suspects if is_alone else self._waiting).append(shard)

    def _sort_out(self, shard: Shard, note: Note, end: str, *, is_alone: bool) -> Iterator[ShardSummary]:
        """Set the recording at hand apart from the rest of its shard, which goes on."""
        half = len(shard.recordings) // 2
        if note.number is None and half:  # all were done, and what was left was to write them
            self._waiting += [self._piece(shard.recordings[:half]), self._piece(shard.recordings[half:])]
            return
        number = note.number or 0
        recording = shard.recordings[number]
        for others in (shard.recordings[:number], shard.recordings[number + 1 :]):
            if others:
                self._waiting.append(self._piece(others))
        if note.is_timed_out:
            yield self._reject(recording, note.content_hash, _timed_out(recording, self._timeout_s))
        elif is_alone:
            yield self._reject(recording, note.content_hash, died(recording, end))
        else:
            self._suspects.append(self._piece((recording,)))

    def _piece(self, recordings: tuple[Recording, ...]) -> Shard:
        return Shard(self._name(recordings), recordings)

    def _check_machine(self, shard: Shard, end: str) -> None:
        """Try out a recording that went well before, after many in a row that did not."""
        if self._good is not None:
            with contextlib.suppress(WorkersDiedError):
                list(self._processes([functools.partial(self._work.try_out, self._good)], jobs=1))
                self._deaths = 0
                return
        limit = "" if self._timeout_s is None else f" (some perhaps by --timeout {self._timeout_s:g})"
        raise SerBatchError(
            f"{self._deaths} worker processes in a row died{limit}, the last one at {shard.recordings[0].path}: {end}. "
            "The machine is at fault rather than the recordings: see to its memory, give fewer --jobs or a longer "
            "--timeout, and run the same command again to go on; finished parts are kept"
        )

    def _reject(self, recording: Recording, content_hash: str | None, reject: Reject) -> ShardSummary:
        timeout_s = self._timeout_s if reject.error == TIMED_OUT else None
        return write_reject(
            self._work, self._piece((recording,)), reject, content_hash=content_hash, timeout_s=timeout_s
        )


def write_reject(
    work: Work, shard: Shard, reject: Reject, *, content_hash: str | None = None, timeout_s: float | None = None
) -> ShardSummary:
    """Write the ledger entry of a shard of one recording, for a worker that could not."""
    (recording,) = shard.recordings
    entry = ledger_entry(
        work,
        recording,
        content_hash=content_hash,
        state=(recording.size, recording.mtime_ns),
        counts={},
        audio_s=0.0,
    )
    if timeout_s is not None:
        entry["timeout_s"] = timeout_s
    ledger = {"rows": 0, "seconds": 0.0, "recordings": [entry], "rejects": [dataclasses.asdict(reject)]}
    write_ledger(work.folder, shard.name, ledger)
    return summary_of(shard.name, ledger)


WORKER_DIED, TIMED_OUT = "WorkerDied", "TimedOut"


def died(recording: Recording, end: str) -> Reject:
    """Return the reject of a recording that ended two workers; `end` is how."""
    return Reject(
        recording.path,
        "worker",
        WORKER_DIED,
        f"{printable(recording.path)}: its worker process died, twice, the second time with nothing else at work "
        f"({end}); replace the file, such as by a conversion to WAV, or remove it",
    )


def _timed_out(recording: Recording, timeout_s: float | None) -> Reject:
    return Reject(
        recording.path,
        "worker",
        TIMED_OUT,
        f"{printable(recording.path)}: was given up after {timeout_s:g} s; give a longer --timeout, or replace or "
        "remove the file",
    )
