"""Worker processes, one pipe to each: what one of them does is known when it dies, and the others go on."""

import contextlib
import os
import signal
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait

from ser_batch.corpus import Recording
from ser_batch.errors import SerBatchError
from ser_batch.parallel.shards import Shard, ShardSummary, Work

# exit status of a worker that could not get the memory it asked for
NO_MEMORY = 112
# a worker computes with one thread, so its libraries need not start more
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1")
_SECONDS_TO_END = 5.0


class WorkerDiedError(Exception):
    """A worker process is gone; the message is how it ended."""


class Worker:
    """One worker process, as the first process sees it.

    Parameters
    ----------
    work
        What it does with shards.
    timeout_s
        Seconds a recording may take; None is no limit.
    """

    def __init__(self, work: Work, timeout_s: float | None) -> None:
        from joblib.externals.loky.backend import get_context

        # fork and threads do not go together (polars and JAX start threads); loky starts clean processes, and does
        # not import the user's script a second time
        context = get_context("loky")
        self.connection, theirs = context.Pipe()
        with _interrupt_held():
            self._process = context.Process(
                target=_serve, args=(theirs, work, timeout_s), daemon=True, env=_ENVIRONMENT
            )
            self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def give(self, task: Shard | Recording) -> None:
        """Let it do a shard, or try out a recording, of which nothing is kept."""
        # one that has died meanwhile is found out by `take`
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(task)

    def take(self) -> ShardSummary | None:
        """Wait for the task that was given to be done; return its summary, None of what was tried out.

        Raises
        ------
        WorkerDiedError
            The process is gone.
        SerBatchError
            What the task raised.
        RuntimeError
            It raised something else; the text says what, and a note where.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerDiedError(self._end()) from error
        if isinstance(answer, BaseException):
            raise answer
        assert answer is None or isinstance(answer, ShardSummary)
        return answer

    def dismiss(self) -> None:
        """Let it end when it has nothing to do any more."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(None)

    def kill(self) -> None:
        """End it now."""
        if self._process.exitcode is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def join(self) -> None:
        """Wait until it has ended."""
        self._process.join(_SECONDS_TO_END)
        self.kill()
        self._process.join()
        self.connection.close()

    def _end(self) -> str:
        """Return how it ended."""
        self.join()
        status = self._process.exitcode
        if status == NO_MEMORY:
            return "memory ran out"
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            return f"killed by {name}" + (", perhaps because memory ran out" if -status == signal.SIGKILL else "")
        return f"exit status {status}"


def ready(workers: Iterable[Worker]) -> list[Worker]:
    """Wait until some of the workers have done what they were given, or died; return those."""
    by_connection = {worker.connection: worker for worker in workers}
    return [by_connection[connection] for connection in wait(list(by_connection))]


def _serve(connection: Connection, work: Work, timeout_s: float | None) -> None:
    """Do what comes through the pipe, until nothing more does: the life of a worker."""
    while True:
        try:
            task = connection.recv()
        except EOFError:  # the first process is gone
            return
        if task is None:
            return
        answer: ShardSummary | Exception | None = None
        try:
            if isinstance(task, Shard):
                answer = work(task, timeout_s=timeout_s)
            else:
                work.try_out(task)
        except MemoryError:
            os._exit(NO_MEMORY)  # what the recording at hand holds on to is given back by nothing else
        except SerBatchError as error:
            answer = error
        except Exception as error:  # not every exception can be sent as it is
            answer = RuntimeError(f"{type(error).__name__}: {error}")
            answer.add_note(f"in the worker:\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except OSError:  # the first process is gone
            return


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
