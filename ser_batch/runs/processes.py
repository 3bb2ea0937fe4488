"""Shards over worker processes, by joblib: whose death is an error that says so."""

import contextlib
import re
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

# exit status of a worker that could not get the memory it asked for
NO_MEMORY = 112


class WorkersDiedError(Exception):
    """A worker process is gone, and with it all others of the pool; the message is how it ended."""


def in_workers(calls: Iterable[Callable[[], Any]], *, jobs: int) -> Generator[Any]:
    """Yield what calls return, as they are ready, each done by a worker process."""
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with interrupt_held():
            # Fork and threads do not go together (polars and JAX start threads); loky starts clean processes. With one
            # job joblib would do all in this process, so there are two then, of which one at a time has something to do
            results = joblib.Parallel(
                n_jobs=max(2, jobs),
                backend="loky",
                batch_size=1,
                pre_dispatch="2*n_jobs" if jobs > 1 else 1,
                return_as="generator_unordered",
            )(joblib.delayed(call)() for call in calls)
        yield from results
    except BaseException as error:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        if isinstance(error, TerminatedWorkerError):
            raise WorkersDiedError(how_it_ended(str(error))) from error
        raise


def how_it_ended(message: str) -> str:
    """Return how a worker ended, from what loky says of all of them: those that it killed itself ended by SIGTERM."""
    found = re.search(r"exit codes of the workers are \{(.*?)\}", message)
    ends = []
    for name, code in re.findall(r"(\w+)\((-?\d+)\)", found[1] if found else ""):
        if name == "EXIT":
            ends.append("memory ran out" if int(code) == NO_MEMORY else f"exit status {code}")
        elif name == "SIGKILL":
            ends.append("killed by SIGKILL, perhaps because memory ran out")
        elif name != "SIGTERM":
            ends.append(f"killed by {name}")
    return ", ".join(dict.fromkeys(ends)) or "it is not known how"


@contextlib.contextmanager
def interrupt_held() -> Iterator[None]:
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
