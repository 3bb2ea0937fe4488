"""A cluster of Dask: a scheduler that is there already, and workers that come and go."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ser_batch.errors import UsageError
from ser_batch.runs.cluster import Cluster, JoblibCluster, OutcomesMixin

CONNECT_TIMEOUT_S = 15.0
# for one worker to come
WORKER_TIMEOUT_S = 300.0
# workers may join while it works, so the scheduler gets more than its workers of the beginning have hands for; not
# all, since it keeps in memory what it is given, some 20 kB a shard
SHARDS_AHEAD = 2048


class DaskCluster(JoblibCluster):
    """Workers of a Dask scheduler, which replaces one that is lost as often as it allows."""

    remedy = "that ser-batch is installed on every worker and that the scheduler runs"
    pre_dispatch = SHARDS_AHEAD

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self.name = f"the cluster at {address}"

    @property
    def n_workers(self) -> int:
        """The threads of all workers: each does a shard at a time."""
        return int(sum(self._client.nthreads().values()))

    def backend(self) -> Any:
        """Return joblib's backend of Dask, mended."""
        return _backend(self._client)

    def loss(self, error: BaseException) -> str | None:
        """Return how often it was lost, where the scheduler has given up."""
        from distributed.scheduler import KilledWorker

        if not isinstance(error, KilledWorker):
            return None
        return f"lost with {error.allowed_failures + 1} workers of {self._address}"


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[Cluster]:
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
    """Leave what is said of a scheduler that does not answer to the one message."""
    import logging

    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _backend(client: Any) -> Any:
    from joblib._dask import DaskDistributedBackend

    class Backend(OutcomesMixin, DaskDistributedBackend):  # type: ignore[misc]  # joblib ships no types
        """Joblib's, which neither leaves the cluster where it has one worker nor waits for what is lost."""

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)
            ((call, _, _),) = func.items

            def tell_error(done: Any) -> None:
                if done.exception() is not None:
                    callback((call.shard, done.exception()))

            future.add_done_callback(tell_error)
            return future

    return Backend(client=client)
