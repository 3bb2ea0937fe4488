"""Shards over worker processes that may die: one that does costs the recording it was at, not the run.

What a worker was at stands in its note (`watching`). The recording is set aside and the rest of the shard goes on. In
the end what was set aside is done once more, each recording alone, with no other worker beside it that takes memory: a
recording whose worker dies again is a reject. One that took longer than the time it may have is a reject at once.
"""

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from ser_batch.corpus import Recording, Reject
from ser_batch.errors import SerBatchError, printable
from ser_batch.parallel.parts import remove_parts
from ser_batch.parallel.shards import Shard, ShardSummary, Work, ledger_entry, ledger_path, write_ledger
from ser_batch.parallel.watching import make_notes_folder, take_note
from ser_batch.parallel.workers import Worker, WorkerDiedError, ready
from ser_batch.tables import remove_temporaries

# so many recordings in a row that end their worker are no accident: the machine is at fault, or the time they may take
DEATHS_IN_A_ROW = 10


def summaries(work: Work, shards: Sequence[Shard], *, jobs: int, timeout_s: float | None) -> Generator[ShardSummary]:
    """Do shards in worker processes; yield the summary of each, and of what it was cut into.

    Parameters
    ----------
    work
        What is done with each.
    shards
        As `Store.shards` made them.
    jobs
        Most worker processes.
    timeout_s
        Seconds a recording may take; None is no limit.

    Raises
    ------
    SerBatchError
        Every recording ends its worker, or what a worker raised.
    """
    make_notes_folder(work.folder)
    run = _Run(work, shards, timeout_s)
    try:
        yield from run.drain(run.waiting, jobs)
        yield from run.drain(run.suspects, 1)
    except BaseException:
        remove_temporaries(work.folder)
        raise
    finally:
        shutil.rmtree(work.folder / "_meta" / "at", ignore_errors=True)


class _Run:
    """What is still to do, and what is known of the recordings that ended their workers."""

    def __init__(self, work: Work, shards: Sequence[Shard], timeout_s: float | None) -> None:
        self._work, self._timeout_s = work, timeout_s
        self.waiting = deque(shards)
        self.suspects: deque[Shard] = deque()  # of one recording each
        last = max((int(shard.name.removeprefix("part-")) for shard in shards), default=0)
        self._names = (f"part-{number:06d}" for number in itertools.count(last + 1))
        self._deaths = 0  # in a row
        self._good: Recording | None = None  # one that went well

    def drain(self, shards: deque[Shard], jobs: int) -> Iterator[ShardSummary]:
        """Do `shards`, and what is added to them meanwhile, with at most so many workers."""
        is_alone = shards is self.suspects
        self._deaths = 0
        idle: list[Worker] = []
        busy: dict[Worker, Shard] = {}
        with _ended(idle, busy):
            while shards or busy:
                while shards and len(busy) < jobs:
                    worker = idle.pop() if idle else Worker(self._work, self._timeout_s)
                    busy[worker] = shards.popleft()
                    worker.give(busy[worker])
                for worker in ready(busy):
                    try:
                        summary = worker.take()
                    except WorkerDiedError as death:
                        yield from self._after_death(busy.pop(worker), str(death), is_alone=is_alone)
                        continue
                    assert summary is not None  # a shard was given
                    shard = busy.pop(worker)
                    idle.append(worker)
                    self._deaths = 0
                    if not summary.n_rejects:
                        self._good = min(shard.recordings, key=lambda recording: recording.size)
                    yield summary

    def _after_death(self, shard: Shard, end: str, *, is_alone: bool) -> Iterator[ShardSummary]:
        """Find out what a worker that died has done, which recording is to blame, and what goes on."""
        folder = self._work.folder
        note = take_note(folder, shard.name)
        ledger = ledger_path(folder, shard.name)
        if ledger.is_file():  # only word of it was lost
            yield _summary_of(json.loads(ledger.read_text(encoding="utf-8")))
            return
        remove_parts(folder, self._work.schemas, shard.name)
        self._deaths = 1 if note is not None and note.number else self._deaths + 1
        if self._deaths >= DEATHS_IN_A_ROW:
            self._check_machine(shard, end, is_begun=note is not None)
        if note is None:  # no recording was begun, so none is to blame
            (self.suspects if is_alone else self.waiting).append(shard)
        elif note.number is None and len(shard.recordings) > 1:  # all were done, and what was left was to write them
            half = len(shard.recordings) // 2
            self.waiting.appendleft(Shard(shard.name, shard.recordings[:half]))
            self.waiting.appendleft(Shard(next(self._names), shard.recordings[half:]))
        else:
            number = note.number or 0
            recording = shard.recordings[number]
            before, after = shard.recordings[:number], shard.recordings[number + 1 :]
            # what went well goes well again, what comes next is perhaps no better: other shards first
            if before:
                self.waiting.appendleft(Shard(shard.name, before))
            if after:
                self.waiting.append(Shard(next(self._names), after))
            if note.is_timed_out:
                yield self._reject(recording, note.content_hash, _timed_out(recording, self._timeout_s))
            elif is_alone:
                yield self._reject(recording, note.content_hash, _died(recording, end))
            else:
                self.suspects.append(Shard(next(self._names), (recording,)))

    def _check_machine(self, shard: Shard, end: str, *, is_begun: bool) -> None:
        """Try out a recording that went well before, after many in a row that did not.

        Raises
        ------
        SerBatchError
            There is none, or it does not go well any more.
        """
        if self._good is not None and is_begun:
            worker = Worker(self._work, self._timeout_s)
            with _ended([worker], {}), contextlib.suppress(WorkerDiedError):
                worker.give(self._good)
                worker.take()
                self._deaths = 0
                return
        limit = "" if self._timeout_s is None else f" (some perhaps by --timeout {self._timeout_s:g})"
        raise SerBatchError(
            f"{self._deaths} worker processes in a row died{limit}, the last one at {shard.recordings[0].path}: {end}. "
            "The machine is at fault rather than the recordings: see to its memory, give fewer --jobs or a longer "
            "--timeout, and run the same command again to go on; finished parts are kept"
        )

    def _reject(self, recording: Recording, content_hash: str | None, reject: Reject) -> ShardSummary:
        """Write a ledger entry for a recording that its worker could not write one for."""
        entry = ledger_entry(
            self._work,
            recording,
            content_hash=content_hash,
            state=(recording.size, recording.mtime_ns),
            counts={},
            audio_s=0.0,
        )
        if reject.error == TIMED_OUT:
            entry["timeout_s"] = self._timeout_s
        ledger = {"rows": 0, "seconds": 0.0, "recordings": [entry], "rejects": [dataclasses.asdict(reject)]}
        write_ledger(self._work.folder, next(self._names), ledger)
        return _summary_of(ledger)


WORKER_DIED, TIMED_OUT = "WorkerDied", "TimedOut"


def _died(recording: Recording, end: str) -> Reject:
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


def _summary_of(ledger: dict[str, Any]) -> ShardSummary:
    entries = ledger["recordings"]
    return ShardSummary(
        len(entries), ledger["rows"], len(ledger["rejects"]), sum(entry["audio_s"] for entry in entries)
    )


@contextlib.contextmanager
def _ended(idle: list[Worker], busy: dict[Worker, Shard]) -> Iterator[None]:
    """Let workers end when the block does, those that are at work at once."""
    try:
        yield
    finally:
        for worker in busy:
            worker.kill()
        for worker in idle:
            worker.dismiss()
        for worker in (*idle, *busy):
            worker.join()
