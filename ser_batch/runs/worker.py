"""One shard: its parts and its ledger, written by the process that does it."""

import abc
import contextlib
import dataclasses
import faulthandler
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import threadpoolctl

from ser_batch.audio.recording_file import ChangedError, RecordingFile, unreadable
from ser_batch.corpus.manifest import Recording, Reject
from ser_batch.corpus.object_store import fetched
from ser_batch.errors import OutputError, RecordingError, SerBatchError, printable
from ser_batch.runs.ledger import LedgerEntry, Shard, ShardLedger, ShardSummary, write_ledger
from ser_batch.runs.part_writer import Parts, Rows, make_part_folders
from ser_batch.storage.lock import claim_of
from ser_batch.storage.streams import open_missing_streams

# how often a worker of a cluster checks that the run goes on
_CLAIM_CHECK_S = 5.0
# exit status of a worker that could not get the memory it asked for
EXIT_NO_MEMORY = 112


class Work(abc.ABC):
    """What a stage does with a recording; sent to the workers, so small and without open files."""

    folder: Path  # of the store

    @property
    @abc.abstractmethod
    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables by name, `MAIN` for the parts."""

    @property
    def cuts_at_labels(self) -> bool:
        """Whether the times of the labels file decide which segments there are."""
        return True

    @property
    def joins_labels(self) -> bool:
        """Whether rows get changed labels without being computed again."""
        return True

    @abc.abstractmethod
    def rows(self, recording: Recording, file: RecordingFile) -> Rows:
        """Yield the rows of one recording, whose file is open, as they are ready; columns left out are null."""

    def prepare(self) -> None:
        """Load what `rows` needs, so that no recording pays for it."""
        return


@dataclasses.dataclass(frozen=True, eq=False)
class ShardTask:
    """A shard as it is sent to a worker."""

    work: Work
    shard: Shard
    timeout_s: float | None = None  # per recording
    claim: str | None = None  # record of the run, for workers that may outlive it
    is_trial: bool = False  # compute and keep nothing, to see whether the process survives


def do_shard(work: Work, shard: Shard) -> ShardSummary:
    """Write the parts and the ledger of a shard, in this process."""
    with threadpoolctl.threadpool_limits(1):
        work.prepare()
        return _ShardRun(work, shard).run()


# the process that this one is a worker of; None in any other one, such as a child process of the user's
_parent: int | None = None


def begin_worker(parent: int) -> None:
    """Make this process a worker of another one."""
    global _parent  # noqa: PLW0603 - the process is one for good
    _parent = parent
    open_missing_streams()
    # Ctrl-C reaches every process of the terminal; only the first one decides what to do
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=[parent], daemon=True, name="ser-batch-parent-watch").start()


def do_task(task: ShardTask, note: Path | None) -> ShardSummary:
    """Do a task in a worker; `note` is the file that says which recording exceeded its time."""
    try:
        with threadpoolctl.threadpool_limits(1), contextlib.ExitStack() as stack:
            task.work.prepare()
            watchdog = None
            if note is not None and task.timeout_s is not None:
                watchdog = stack.enter_context(Watchdog(note, task.timeout_s))
            if task.is_trial:
                if watchdog is not None:
                    watchdog.start(0)
                return _try_out(task)
            return _ShardRun(task.work, task.shard, watchdog, task.claim, _parent).run()
    except MemoryError:
        os._exit(EXIT_NO_MEMORY)  # what the recording at hand holds on to is given back by nothing else


def _try_out(task: ShardTask) -> ShardSummary:
    for recording in task.shard.recordings:
        with contextlib.suppress(RecordingError), fetched(recording) as readable, file_of(readable) as file:
            for _ in task.work.rows(readable, file):
                pass
    return ShardSummary(task.shard.name, 0, 0, 0, 0.0)


def _watch(parent: int) -> None:
    """Let this worker end soon after the process that started it, however that one ended, and if it has already."""
    while True:
        _end_if_orphaned(parent)
        time.sleep(1)


def _end_if_orphaned(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)  # no clean-up: the parts are whole or absent, and nobody waits for the rest


class TimedOut(NamedTuple):
    """A recording that exceeded its time."""

    number: int  # in its shard, from 0
    content_hash: str | None  # None if it was not read that far


def _unwritable(error: OSError) -> OutputError:
    return OutputError(f"{tempfile.gettempdir()}: cannot be written ({error.strerror}); free space")


def note_folder() -> "tempfile.TemporaryDirectory[str]":
    """Make a temporary folder for the note of a `Watchdog`."""
    try:
        return tempfile.TemporaryDirectory(prefix="ser-batch-")
    except OSError as error:
        raise _unwritable(error) from error


class Watchdog:
    """Ends this process when a recording takes too long.

    The file then holds the number of the recording and its hash in the first line, and below it, from faulthandler,
    where the process was.
    """

    def __init__(self, note: Path, timeout_s: float) -> None:
        self._timeout_s, self._number = timeout_s, 0
        try:
            self._file = os.open(note, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
        except OSError as error:
            raise _unwritable(error) from error

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *exception: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._file)

    def start(self, number: int) -> None:
        """Start the time of recording `number` of the shard."""
        self._number = number
        self._write("")
        # its thread is not one of Python's: time is up even where a library hangs and never lets Python run
        faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)

    def note_hash(self, content_hash: str) -> None:
        """Note what the recording holds."""
        self._write(content_hash)

    def stop(self) -> None:
        """Stop the time: only writing is left."""
        faulthandler.cancel_dump_traceback_later()

    def _write(self, content_hash: str) -> None:
        line = f"{self._number:<8} {content_hash:<64}\n".encode("ascii")
        try:
            os.pwrite(self._file, line, 0)
            os.lseek(self._file, len(line), os.SEEK_SET)  # where the traceback goes
        except OSError as error:
            raise _unwritable(error) from error

    @staticmethod
    def read(note: Path) -> TimedOut | None:
        """Return the recording that exceeded its time; None if the process ended otherwise."""
        first, _, rest = note.read_text(encoding="utf-8", errors="replace").partition("\n")
        return TimedOut(int(first[:8]), first[9:].strip() or None) if rest.startswith("Timeout") else None


class _ShardRun:
    """One shard being done."""

    def __init__(
        self,
        work: Work,
        shard: Shard,
        watchdog: Watchdog | None = None,
        claim: str | None = None,
        parent: int | None = None,  # process that this one works for
    ) -> None:
        self._work, self._shard, self._watchdog, self._claim, self._parent = work, shard, watchdog, claim, parent
        self._checked = time.monotonic()
        self._rejects: dict[str, Reject] = {}
        self._warnings: dict[str, list[Reject]] = {}  # of recordings that were done

    def run(self) -> ShardSummary:
        """Write the parts and the ledger."""
        # A recording that breaks after some of its rows went to the part is left out in another attempt: its rows
        # cannot be taken back from the file.
        while True:
            try:
                return self._attempt()
            except _WrittenInPartError as broken:
                self._rejects[broken.reject.path] = broken.reject

    def _attempt(self) -> ShardSummary:
        entries: list[LedgerEntry] = []
        make_part_folders(self._work.folder, self._work.schemas)
        with Parts(self._work.folder, self._work.schemas, self._shard.name) as parts:
            for number, recording in enumerate(self._shard.recordings):
                if self._watchdog is not None:
                    self._watchdog.start(number)
                if time.monotonic() - self._checked > _CLAIM_CHECK_S:
                    self._check_claim()
                entries.append(self._do(recording, parts))
            if self._watchdog is not None:
                self._watchdog.stop()
            if self._parent is not None:  # another run may have taken over what this one was killed in the middle of
                _end_if_orphaned(self._parent)
            self._check_claim()
        rejects = list(self._rejects.values())
        for path, warnings in self._warnings.items():
            rejects += [] if path in self._rejects else warnings
        ledger = ShardLedger(recordings=entries, rejects=rejects)
        write_ledger(self._work.folder, self._shard.name, ledger)
        return ledger.summary(self._shard.name)

    def _check_claim(self) -> None:
        """Stop if the run is over: on a cluster nobody ends the worker of a run that was stopped."""
        self._checked = time.monotonic()
        if self._claim is not None and claim_of(self._work.folder) != self._claim:
            raise OutputError(
                f"{self._work.folder}: the run is over, or its folder is no longer seen here; the shard at hand is "
                "not written"
            )

    def _do(self, recording: Recording, parts: Parts) -> LedgerEntry:
        """Add the rows of a recording, or reject it; return its entry in the ledger."""
        try:
            with fetched(recording) as readable:
                return self._do_here(readable, parts)
        except RecordingError as error:  # it could not be fetched, and is tried again next time
            self._rejects[recording.path] = Reject(recording.path, error.stage, type(error).__name__, str(error))
            return LedgerEntry.of(recording, None, timed=self._work.cuts_at_labels)

    def _do_here(self, recording: Recording, parts: Parts) -> LedgerEntry:
        content_hash, audio_s = None, 0.0
        counts: Mapping[str, int] = {}
        try:
            recording = _as_it_is(recording)
            with file_of(recording) as file:
                content_hash = file.content_hash
                if self._watchdog is not None:
                    self._watchdog.note_hash(content_hash)
                if recording.path not in self._rejects:
                    counts, audio_s = parts.add(self._rows(recording, file))
                    self._warnings[recording.path] = [Reject.warning(recording.path, text) for text in file.warnings]
        except RecordingError as error:
            self._reject(recording, error, parts)
        except (SerBatchError, pa.ArrowException, MemoryError):
            raise  # the output, the model or the machine is at fault, not the recording
        except Exception as error:  # whatever a decoder thinks up costs its recording, not the run
            self._reject(recording, error, parts)
        reject = self._rejects.get(recording.path)
        if reject is not None and reject.error == ChangedError.__name__:
            content_hash = None  # it is tried again next time
        return LedgerEntry.of(recording, content_hash, counts, audio_s, timed=self._work.cuts_at_labels)

    def _rows(self, recording: Recording, file: RecordingFile) -> Rows:
        yield from self._work.rows(recording, file)
        _check_unchanged(recording)

    def _reject(self, recording: Recording, error: Exception, parts: Parts) -> None:
        try:
            _check_unchanged(recording)
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


def _as_it_is(recording: Recording) -> Recording:
    """Return a recording with the size and time that its file has now."""
    try:
        status = os.stat(recording.file)  # noqa: PTH116 - pathlib knows no bytes
    except OSError as error:
        raise unreadable(recording.path, error) from error
    return dataclasses.replace(recording, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _check_unchanged(recording: Recording) -> None:
    if _as_it_is(recording) != recording:
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
