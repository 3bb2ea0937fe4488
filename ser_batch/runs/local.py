"""Shards in this process, or in worker processes of this machine."""

import concurrent.futures
import contextlib
import itertools
import multiprocessing.util
import os
import re
import signal
import warnings
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from ser_batch.errors import SerBatchError
from ser_batch.runs.ledger import ShardSummary
from ser_batch.runs.recovery import Backend, Death
from ser_batch.runs.worker import (
    EXIT_NO_MEMORY,
    ShardTask,
    TimedOut,
    Watchdog,
    begin_worker,
    do_shard,
    do_task,
    note_folder,
)

_IDLE_S = 300
# of Python: what is started as a module or as code would import from the working folder first, and a random.py among
# somebody's recordings would be taken for the library's
_SAFE_PATH = "PYTHONSAFEPATH"
_ENVIRONMENT = {_SAFE_PATH: "1"} | {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
# Executors of one process each, which wait for the next shard or the next run, by the process that they work for: a
# fork inherits them, and cannot use them. One process each because a worker that dies takes its executor along: this
# way it is known which shard it was, and no other is lost.
_idle: dict[int, list[Any]] = {}


def _idle_here() -> list[Any]:
    """Return the idle executors of this process; they end with it."""
    if os.getpid() not in _idle:
        # a child process of multiprocessing waits for its own before it exits; this comes first
        multiprocessing.util.Finalize(None, _end_idle, exitpriority=1)
    return _idle.setdefault(os.getpid(), [])


def _end_idle() -> None:
    for executor in _idle.pop(os.getpid(), []):
        executor.shutdown(wait=True, kill_workers=True)


class SameProcess(Backend):
    """Shards one after the other in this process."""

    @property
    def n_workers(self) -> int:
        """One."""
        return 1

    def outcomes(self, tasks: Iterable[ShardTask]) -> Generator[ShardSummary | Death]:
        """See `Backend`; a crash ends this process."""
        try:
            for task in tasks:
                yield do_shard(task.work, task.shard)
        except MemoryError as error:
            raise SerBatchError(
                "memory ran out; finished parts are kept. With --isolate, a recording that takes too much is rejected "
                "and the others go on; run the same command again with it"
            ) from error


class WorkerProcesses(Backend):
    """Shards in worker processes of this machine."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers

    @property
    def n_workers(self) -> int:
        """The number of processes."""
        return self._n_workers

    def outcomes(self, tasks: Iterable[ShardTask]) -> Generator[ShardSummary | Death]:
        """See `Backend`."""
        waiting = iter(tasks)
        running: dict[concurrent.futures.Future[ShardSummary], RunningShard] = {}

        def start(n: int) -> None:
            with interrupt_held():  # so that Ctrl-C finds each of them in `running`
                for task in itertools.islice(waiting, n):
                    shard = RunningShard(task)
                    running[shard.future] = shard

        try:
            start(self._n_workers)
            while running:
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    outcome = running.pop(future).outcome()
                    start(1)
                    yield outcome
        except BaseException:
            with concurrent.futures.ThreadPoolExecutor() as threads:  # at once, so that Ctrl-C is
                list(threads.map(RunningShard.kill, running.values()))
            raise


class RunningShard:
    """A shard that a process of its own is doing; to be made while `interrupt_held`."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._notes = note_folder() if task.timeout_s is not None else None
        self._note = Path(self._notes.name) / "note" if self._notes is not None else None
        self._executor, self.future = _submit(task, self._note)

    def outcome(self) -> ShardSummary | Death:
        """Wait until the shard is done or its process has died; errors of the run as a whole are raised."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        timed_out: TimedOut | None = None
        try:
            summary = self.future.result()
        except TerminatedWorkerError as error:
            if self._note is not None and self._note.exists():
                timed_out = Watchdog.read(self._note)
            self.kill()
            return Death(self._task.shard, _exit_reason(str(error)), timed_out)
        except BaseException:
            self.kill()
            raise
        if self._notes is not None:
            self._notes.cleanup()
        _idle_here().append(self._executor)
        return summary

    def kill(self) -> None:
        """End the process."""
        self._executor.shutdown(wait=True, kill_workers=True)
        if self._notes is not None:
            self._notes.cleanup()


def _submit(task: ShardTask, note: Path | None) -> "tuple[Any, concurrent.futures.Future[ShardSummary]]":
    """Give a task to an idle process, or to a new one; return its executor too."""
    from joblib.externals.loky import ProcessPoolExecutor, process_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    while True:
        try:
            executor = _idle_here().pop()
        except IndexError:
            # fork and threads do not go together (polars and JAX start threads); loky starts clean processes
            executor = None
            # a worker whose memory has grown is renewed, and does what it was given after that
            warnings.filterwarnings(
                "ignore", "A worker stopped while some jobs", UserWarning, process_executor.__name__
            )
        with contextlib.suppress(TerminatedWorkerError), _starting():  # it died while it was idle
            executor = executor or ProcessPoolExecutor(
                max_workers=1, timeout=_IDLE_S, env=_ENVIRONMENT, initializer=begin_worker, initargs=(os.getpid(),)
            )
            return executor, executor.submit(do_task, task, note)


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Turn what the system has against more processes into a message."""
    try:
        yield
    except OSError as error:
        raise SerBatchError(
            f"worker processes cannot be started ({error.strerror or error}). They need /dev/shm, processes and open "
            "files (ulimit -u, ulimit -n); ask for fewer with --jobs, or give --jobs 1, which needs none"
        ) from error


def _exit_reason(message: str) -> str:
    """Return how a worker ended, from what loky says of it."""
    name, code = next(iter(re.findall(r"\{.*?(\w+)\((-?\d+)\).*?\}", message)), ("", ""))
    if name == "EXIT":
        return "memory ran out" if int(code) == EXIT_NO_MEMORY else f"exit status {code}"
    if name == "SIGKILL":
        return "killed by SIGKILL, perhaps because memory ran out"
    return f"killed by {name}" if name else "it is not known how"


@contextlib.contextmanager
def interrupt_held() -> Iterator[None]:
    """Keep Ctrl-C waiting; processes started meanwhile never see it, not even before they can ignore it."""
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as loky_resource_tracker

    # these two, started later, would let the signal through again
    with _safe_path(), _starting():
        resource_tracker.ensure_running()
        loky_resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Let Python processes that are started meanwhile import nothing from the working folder."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SAFE_PATH, None)
        else:
            os.environ[_SAFE_PATH] = before
