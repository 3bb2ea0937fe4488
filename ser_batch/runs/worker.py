"""One shard: its part and its ledger entry, written by the worker that did it."""

import abc
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import threadpoolctl

from ser_batch.audio.recording_file import ChangedError, RecordingFile, unreadable
from ser_batch.corpus.manifest import Recording, Reject
from ser_batch.corpus.object_store import fetched
from ser_batch.errors import OutputError, RecordingError, SerBatchError, printable
from ser_batch.runs.ledger import (
    Shard,
    ShardSummary,
    ledger_entry,
    write_ledger,
)
from ser_batch.runs.part_writer import Parts, Rows, make_part_folders
from ser_batch.runs.processes import NO_MEMORY
from ser_batch.runs.watchdog import Watch
from ser_batch.storage.lock import claim_of

# how often a worker of a cluster asks whether the run goes on
_SECONDS_BETWEEN_QUESTIONS = 5.0


class Work(abc.ABC):
    """What a stage does; sent to the workers, so small and without open files.

    Subclasses have `folder`, that of the store, and `schemas` by table name, `MAIN` for the parts.
    """

    folder: Path
    schemas: Mapping[str, pa.Schema]

    @property
    def cuts_at_labels(self) -> bool:
        """Whether the times of the labels file decide which segments there are."""
        return True

    @property
    def joins_labels(self) -> bool:
        """Whether rows get changed labels without being worked on again."""
        return True

    @abc.abstractmethod
    def rows(self, recording: Recording, file: RecordingFile) -> Rows:
        """Yield the rows of one recording, whose file is open, as they are ready; columns left out are null."""

    def prepare(self) -> None:
        """Load what `rows` needs, so that no recording pays for it."""
        return

    def __call__(self, shard: Shard, *, timeout_s: float | None = None, claim: str | None = None) -> ShardSummary:
        """Do a shard: write its part, then its ledger entry."""
        # A worker process ends where one recording takes longer than `timeout_s` seconds. On a cluster, `claim` is that
        # of the run; where the output belongs to another one by then, nothing is written.
        parent = multiprocessing.parent_process()
        if parent is not None:
            # Ctrl-C reaches every process of the terminal; only the first one decides what to do
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _end_with(parent.pid)
        with threadpoolctl.threadpool_limits(1):
            self.prepare()
            if parent is None:
                return _ShardRun(self, shard, None).run()
            try:
                with Watch(self.folder, shard.name, timeout_s) as watch:
                    return _ShardRun(self, shard, watch, claim).run()
            except MemoryError:
                os._exit(NO_MEMORY)  # what the recording at hand holds on to is given back by nothing else

    def try_out(self, recording: Recording) -> None:
        """Do a recording and keep nothing of it."""
        with threadpoolctl.threadpool_limits(1), fetched(recording) as readable, file_of(readable) as file:
            for _ in self.rows(readable, file):
                pass


@functools.lru_cache(maxsize=1)
def _end_with(parent: int | None) -> None:
    """Let this worker end soon after the process that started it, however that one ended, and if it has already."""

    def watch() -> None:
        while True:
            _end_if_orphaned(parent)
            time.sleep(1)

    threading.Thread(target=watch, daemon=True, name="ser-batch-parent-watch").start()


def _end_if_orphaned(parent: int | None) -> None:
    if os.getppid() != parent:
        os._exit(1)  # no clean-up: the parts are whole or absent, and nobody waits for the rest


class _ShardRun:
    """One shard being done; `watch` where a worker process does it, `claim` where it is one of a cluster."""

    def __init__(self, work: Work, shard: Shard, watch: Watch | None, claim: str | None = None) -> None:
        self._work, self._shard, self._watch, self._claim = work, shard, watch, claim
        self._asked = time.monotonic()
        self._rejects: dict[str, Reject] = {}

    def run(self) -> ShardSummary:
        """Write the part and the ledger entry."""
        # A recording that breaks after some of its rows went to the part is left out in another attempt: its rows
        # cannot be taken back from the file.
        while True:
            try:
                return self._attempt()
            except _WrittenInPartError as broken:
                self._rejects[broken.reject.path] = broken.reject

    def _attempt(self) -> ShardSummary:
        started = time.monotonic()
        entries: list[dict[str, Any]] = []
        make_part_folders(self._work.folder, self._work.schemas)
        with Parts(self._work.folder, self._work.schemas, self._shard.name) as parts:
            for number, recording in enumerate(self._shard.recordings):
                if self._watch is not None:
                    self._watch.begin(number)
                if time.monotonic() - self._asked > _SECONDS_BETWEEN_QUESTIONS:
                    self._check_claim()
                entries.append(self._do(recording, parts))
            if self._watch is not None:
                self._watch.finish()
                parent = multiprocessing.parent_process()
                assert parent is not None  # only workers are watched
                # another run may have taken over what this one was killed in the middle of
                _end_if_orphaned(parent.pid)
                self._check_claim()
        n_rows = sum(entry["rows"] for entry in entries)
        rejects = [dataclasses.asdict(reject) for reject in self._rejects.values()]
        write_ledger(
            self._work.folder,
            self._shard.name,
            {"rows": n_rows, "seconds": time.monotonic() - started, "recordings": entries, "rejects": rejects},
        )
        audio_s = sum(entry["audio_s"] for entry in entries)
        return ShardSummary(self._shard.name, len(entries), n_rows, len(rejects), audio_s)

    def _check_claim(self) -> None:
        """Stop where the run is over: on a cluster nobody ends the worker of a run that was stopped."""
        self._asked = time.monotonic()
        if self._claim is not None and claim_of(self._work.folder) != self._claim:
            raise OutputError(
                f"{self._work.folder}: the run is over, or its folder is not seen here any more; what was at hand is "
                "not written"
            )

    def _do(self, recording: Recording, parts: Parts) -> dict[str, Any]:
        """Add the rows of a recording, or reject it; return its entry of the ledger."""
        try:
            with fetched(recording) as readable:
                return self._do_here(readable, parts)
        except RecordingError as error:  # it could not be fetched, and is tried again next time
            self._rejects[recording.path] = Reject(recording.path, error.stage, type(error).__name__, str(error))
            state = (recording.size, recording.mtime_ns)
            return ledger_entry(self._work, recording, content_hash=None, state=state, counts={}, audio_s=0.0)

    def _do_here(self, recording: Recording, parts: Parts) -> dict[str, Any]:
        content_hash, seconds = None, 0.0
        state = (recording.size, recording.mtime_ns)
        counts: Counter[str] = Counter()
        try:
            state = _state_of(recording)
            with file_of(recording) as file:
                content_hash = file.content_hash
                if self._watch is not None:
                    self._watch.note_hash(content_hash)
                if recording.path not in self._rejects:
                    counts, seconds = parts.add(self._rows(recording, file, state))
        except RecordingError as error:
            self._reject(recording, error, state, parts)
        except (SerBatchError, pa.ArrowException, MemoryError):
            raise  # the output, the model or the machine is at fault, not the recording
        except Exception as error:  # whatever a decoder thinks up costs its recording, not the run
            self._reject(recording, error, state, parts)
        reject = self._rejects.get(recording.path)
        if reject is not None and reject.error == ChangedError.__name__:
            content_hash = None  # it is tried again next time
        return ledger_entry(
            self._work, recording, content_hash=content_hash, state=state, counts=counts, audio_s=seconds
        )

    def _rows(self, recording: Recording, file: RecordingFile, state: tuple[int, int]) -> Rows:
        yield from self._work.rows(recording, file)
        _check_unchanged(recording, state)

    def _reject(self, recording: Recording, error: Exception, state: tuple[int, int], parts: Parts) -> None:
        try:
            _check_unchanged(recording, state)
        except RecordingError as change:
            error = change  # whatever went wrong, that is why
        message = str(error) or type(error).__name__
        if not isinstance(error, RecordingError):
            message = f"{printable(recording.path)}: {message}; replace the file or remove it"
        stage = error.stage if isinstance(error, RecordingError) else "worker"
        reject = Reject(recording.path, stage, type(error).__name__, message)
        if not parts.forget():
            raise _WrittenInPartError(reject) from error
        self._rejects[recording.path] = reject


class _WrittenInPartError(Exception):
    """A recording broke after some of its rows were written."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


def _state_of(recording: Recording) -> tuple[int, int]:
    """Return size, bytes, and time of change, ns, of a recording as it is now."""
    try:
        status = os.stat(recording.file)  # noqa: PTH116 - pathlib knows no bytes
    except OSError as error:
        raise unreadable(recording.path, error) from error
    return status.st_size, status.st_mtime_ns


def _check_unchanged(recording: Recording, state: tuple[int, int]) -> None:
    if _state_of(recording) != state:
        raise ChangedError(
            "open",
            f"{recording.path}: changed while it was read; wait until it is whole and run the same command again",
        )


def file_of(recording: Recording) -> RecordingFile:
    """Open the file of a recording that is on this machine."""
    return RecordingFile(recording.file, recording.path)


def content_hash_of(recording: Recording) -> str:
    """Return the SHA-256 of a recording's bytes, hex."""
    with fetched(recording) as readable, file_of(readable) as file:
        return file.content_hash
