"""Shards on a cluster of Dask or Ray: only shards and counts travel, workers write to shared storage.

The worker of the cluster does not compute: it starts a process, as on one machine, so a recording that crashes its
process costs nothing to others who use the cluster. A worker that is lost is replaced by the cluster.
"""

import abc
import contextlib
import dataclasses
import itertools
import logging
import multiprocessing
import os
import socket
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Protocol

from ser_batch import __version__
from ser_batch.corpus.object_store import is_in_store
from ser_batch.errors import SerBatchError, UsageError
from ser_batch.runs.ledger import ShardSummary, finished_summary
from ser_batch.runs.local import RunningShard, interrupt_held
from ser_batch.runs.recovery import Backend, Death
from ser_batch.runs.worker import ShardTask
from ser_batch.storage.lock import claim_of

CONNECT_TIMEOUT_S = 15.0
# for one worker to come
WORKER_TIMEOUT_S = 300.0
# Workers may join while it works, so the scheduler gets more shards than the workers of the beginning have hands for;
# not all, since it keeps them in memory, some 20 kB a shard.
SHARDS_AHEAD = 2048
# how often Ray gives a task of a lost worker to another one; Dask has `allowed-failures`
RAY_RETRIES = 3


class Completion(Protocol):
    """Gives handles of tasks as these end."""

    def add(self, handle: Any, /) -> None:
        """Wait for one more."""

    def __next__(self) -> Any:
        """Wait; return the handle of a task that has ended."""


class Cluster(Backend):
    """A cluster that this process is connected to."""

    name: str  # in messages
    remedy: str  # what to check where it fails

    @abc.abstractmethod
    def submit(self, task: ShardTask) -> Any:
        """Send a task; return a handle that is hashable."""

    @abc.abstractmethod
    def completion(self) -> "Completion":
        """Return what waits for the tasks of one call of `outcomes`."""

    @abc.abstractmethod
    def result(self, handle: Any, task: ShardTask) -> ShardSummary | Death:
        """Return what became of a task that has ended; a lost worker is a death, other errors are raised."""

    def outcomes(self, tasks: Iterable[ShardTask]) -> Generator[ShardSummary | Death]:
        """See `Backend`."""
        waiting, running, ended = iter(tasks), dict[Any, ShardTask](), self.completion()
        claim: str | None = None
        while True:
            for task in itertools.islice(waiting, SHARDS_AHEAD - len(running)):
                claim = claim or claim_of(task.work.folder)
                claimed = dataclasses.replace(task, claim=claim)
                handle = self.submit(claimed)
                running[handle] = claimed
                ended.add(handle)
            if not running:
                return
            handle = next(ended)
            task = running.pop(handle)
            try:
                outcome = self.result(handle, task)
            except Exception as error:  # each library has errors of its own
                raise SerBatchError(
                    f"{self.name} could not do {task.shard.name}: {type(error).__name__}: {error}. See {self.remedy}, "
                    "and run the same command again to go on; finished parts are kept"
                ) from error
            yield outcome


class DaskCluster(Cluster):
    """Workers of a Dask scheduler, which may come and go."""

    remedy = "that ser-batch is installed on every worker and that the scheduler runs"

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self.name = f"the cluster at {address}"

    @property
    def n_workers(self) -> int:
        """The threads of all workers."""
        return int(sum(self._client.nthreads().values()))

    def submit(self, task: ShardTask) -> Any:
        """See `Cluster`."""
        return self._client.submit(do_task_remotely, task, __version__, pure=False)

    def completion(self) -> "Completion":
        """See `Cluster`."""
        from distributed import as_completed

        completion: Completion = as_completed(loop=self._client.loop)
        return completion

    def result(self, handle: Any, task: ShardTask) -> ShardSummary | Death:
        """See `Cluster`."""
        from distributed.scheduler import KilledWorker

        try:
            outcome: ShardSummary | Death = handle.result()
        except KilledWorker as error:
            return Death(task.shard, f"lost with {error.allowed_failures + 1} workers of {self._address}")
        return outcome


class RayCluster(Cluster):
    """The CPUs of a Ray cluster."""

    remedy = "that ser-batch is installed on every node"

    def __init__(self, address: str) -> None:
        import ray

        self.name = f"Ray at {address}"
        self._do_task = ray.remote(num_cpus=1, max_retries=RAY_RETRIES)(do_task_remotely)

    @property
    def n_workers(self) -> int:
        """One per CPU."""
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 0)))

    def submit(self, task: ShardTask) -> Any:
        """See `Cluster`."""
        return self._do_task.remote(task, __version__)

    def completion(self) -> "Completion":
        """See `Cluster`."""
        return _RayCompletion()

    def result(self, handle: Any, task: ShardTask) -> ShardSummary | Death:
        """See `Cluster`."""
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

        try:
            outcome: ShardSummary | Death = ray.get(handle)
        except (WorkerCrashedError, NodeDiedError, OutOfMemoryError):
            return Death(task.shard, f"lost with {RAY_RETRIES + 1} workers of {self.name}")
        return outcome


class _RayCompletion:
    """Tasks of Ray in the order in which they end."""

    def __init__(self) -> None:
        self._running: list[Any] = []

    def add(self, handle: Any) -> None:
        self._running.append(handle)

    def __next__(self) -> Any:
        import ray

        (ended,), self._running = ray.wait(self._running)
        return ended


@contextlib.contextmanager
def connected_to_dask(address: str | None) -> Iterator[Backend]:
    """Connect to the scheduler at an address, and wait until it has a worker."""
    try:
        import distributed
    except ImportError as error:
        raise UsageError("--backend dask needs Dask, which is not installed: pip install 'ser-batch[dask]'") from error
    assert address is not None  # the options have checked it
    try:
        with _quiet():
            client = distributed.Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False, name="ser-batch")
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"--scheduler {address}: cannot be reached within {CONNECT_TIMEOUT_S:g} s ({error}); start one with `dask "
            "scheduler`, and give the address that it prints, such as tcp://10.0.0.1:8786"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_TIMEOUT_S)
        except TimeoutError as error:
            raise UsageError(
                f"--scheduler {address}: no worker has come within {WORKER_TIMEOUT_S:g} s; start some with `dask "
                f"worker {address} --nthreads 1`"
            ) from error
        yield DaskCluster(client, address)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log of Dask silent: an unreachable scheduler is told in one message."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def connected_to_ray(address: str | None) -> Iterator[Backend]:
    """Connect to Ray at an address; None is the one of ``RAY_ADDRESS``, or the one that runs on this machine."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("--backend ray needs Ray, which is not installed: pip install 'ser-batch[ray]'") from error
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"--backend ray: no cluster at {address or 'RAY_ADDRESS, or on this machine'} ({error}); start one with "
            "`ray start --head`, and name it by --scheduler"
        ) from error
    try:
        yield RayCluster(address or "auto")
    finally:
        ray.shutdown()


def do_task_remotely(task: ShardTask, version: str) -> ShardSummary | Death:
    """Do a shard in a process of this machine, a worker of the cluster; `version` is that of the run."""
    _check_machine(task, version)
    # those of a Dask nanny are daemons, which may have no processes
    multiprocessing.current_process().daemon = False
    finished = finished_summary(task.work.folder, task.shard.name)
    if finished is not None:  # by a worker that was lost before it could tell
        return finished
    with interrupt_held():
        running = RunningShard(task)
    return running.outcome()


def _check_machine(task: ShardTask, version: str) -> None:
    """Refuse a machine that would reject every recording."""
    host = socket.gethostname()
    if version != __version__:
        raise SerBatchError(
            f"the worker on {host} has ser-batch {__version__}, and the run is of {version}; install the same one "
            "everywhere"
        )
    if claim_of(task.work.folder) != task.claim:
        raise SerBatchError(
            f"the worker on {host} does not see {task.work.folder} as the run does; choose an --out that all machines "
            "share, under the same name"
        )
    here = [recording.file for recording in task.shard.recordings if not is_in_store(recording)]
    folders = {os.path.dirname(file) for file in here}  # noqa: PTH120 - bytes
    if folders and not any(map(os.path.isdir, folders)):
        raise SerBatchError(
            f"the worker on {host} sees none of the folders of the recordings, such as "
            f"{os.fsdecode(min(folders))}; put AUDIO where all machines find it, under the same name"
        )
