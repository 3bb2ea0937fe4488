"""What a worker of a cluster does with a shard: in a process of its own, which may die and costs a recording then.

The worker itself, of Dask or of Ray, does not compute: what a recording does to the process that reads it stays with
that process, as on one machine, and whoever shares the cluster does not notice. Where the worker itself is lost, the
cluster gives the shard to another one, and that goes on with what is left of it.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ser_batch import __version__
from ser_batch.corpus.object_store import is_in_store
from ser_batch.errors import SerBatchError
from ser_batch.runs.ledger import Shard, ShardSummary
from ser_batch.runs.pieces import Pieces
from ser_batch.runs.processes import WorkersDiedError, how_it_ended, interrupt_held
from ser_batch.runs.recovery import Run
from ser_batch.runs.worker import Work
from ser_batch.storage.lock import claim_of

_own = threading.local()


# one is as good as itself only: joblib wants a hash of it, and what it holds has none
@dataclasses.dataclass(frozen=True, eq=False)
class RemoteShard:
    """A shard as it is sent to a worker of a cluster."""

    # what to do; `work.folder` is seen by all workers
    work: Work
    shard: Shard
    claim: str  # the record of the run; see `claim_of`
    timeout_s: float | None  # seconds a recording may take; None is no limit
    version: str = __version__  # of ser-batch, which has to be the same one everywhere

    def __call__(self) -> ShardSummary:
        """Do what is left of the shard; return the summary of all of it."""
        self._check_machine()
        # those of a Dask nanny are daemons, which may have no processes
        multiprocessing.current_process().daemon = False
        pieces = Pieces(self.work.folder, self.shard)
        done, left = pieces.state()
        run = Run(self.work, left, timeout_s=self.timeout_s, name=pieces.name, processes=_one_by_one, claim=self.claim)
        done += run.summaries(1)
        return ShardSummary(
            self.shard.name,
            sum(summary.n_recordings for summary in done),
            sum(summary.n_rows for summary in done),
            sum(summary.n_rejects for summary in done),
            sum(summary.audio_s for summary in done),
        )

    def _check_machine(self) -> None:
        host = socket.gethostname()
        if self.version != __version__:
            raise SerBatchError(
                f"the worker on {host} has ser-batch {__version__}, and the run is of {self.version}; install the same "
                "one everywhere"
            )
        if claim_of(self.work.folder) != self.claim:
            raise SerBatchError(
                f"the worker on {host} does not see {self.work.folder} as the run does; choose an --out that all "
                "machines share, under the same name"
            )
        here = [recording.file for recording in self.shard.recordings if not is_in_store(recording)]
        folders = {os.path.dirname(file) for file in here}  # noqa: PTH120 - bytes
        if folders and not any(map(os.path.isdir, folders)):
            raise SerBatchError(
                f"the worker on {host} sees none of the folders of the recordings, such as "
                f"{os.fsdecode(min(folders))}; put AUDIO where all machines find it, under the same name"
            )


def _one_by_one(calls: Iterable[Callable[[], Any]], *, jobs: int) -> Iterator[Any]:
    """Yield what calls return, each done by a process that this thread alone has; see `in_workers`."""
    assert jobs == 1
    for call in calls:
        yield _in_own_process(call)


def _in_own_process(call: Callable[[], Any]) -> Any:
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if not hasattr(_own, "executor"):
        _own.executor = ProcessPoolExecutor(max_workers=1)
    try:
        with interrupt_held():
            future = _own.executor.submit(call)
        return future.result()
    except TerminatedWorkerError as error:
        with contextlib.suppress(Exception):  # it is broken already
            _own.executor.shutdown(wait=True, kill_workers=True)
        del _own.executor
        raise WorkersDiedError(how_it_ended(str(error))) from error
