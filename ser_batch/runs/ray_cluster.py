"""A cluster of Ray, or Ray on this machine."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ser_batch.errors import UsageError
from ser_batch.runs.cluster import Cluster, JoblibCluster, OutcomesMixin

# as often as Dask gives what was lost with a worker to another one
RETRIES = 3


class RayCluster(JoblibCluster):
    """The CPUs that a Ray cluster has when the work begins; it replaces workers that are lost."""

    remedy = "that ser-batch is installed on every node"
    pre_dispatch = "3*n_jobs"  # Ray's pool has a thread for each of them

    def __init__(self, address: str) -> None:
        self.name = f"Ray at {address}"

    @property
    def n_workers(self) -> int:
        """One a CPU."""
        import ray

        return int(ray.cluster_resources().get("CPU", 0))

    def backend(self) -> Any:
        """Return Ray's backend of joblib, mended."""
        return _backend()

    def loss(self, error: BaseException) -> str | None:
        """Return how often it was lost, where Ray has given up."""
        from ray.exceptions import RayActorError

        return f"lost with {RETRIES + 1} workers of {self.name}" if isinstance(error, RayActorError) else None


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[Cluster]:
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
        cluster = RayCluster(address or "auto")
        if cluster.n_workers < 2:
            raise UsageError(
                f"--backend ray: the cluster has {cluster.n_workers} CPUs, and 2 are needed; without --backend, this "
                "machine does the work"
            )
        yield cluster
    finally:
        ray.shutdown()


def _backend() -> Any:
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(OutcomesMixin, RayBackend):  # type: ignore[misc]  # joblib ships no types
        """Ray's backend of joblib, which yields results as they come."""

        supports_return_generator = True

    return Backend(ray_remote_args={"max_restarts": -1, "max_task_retries": RETRIES, "num_cpus": 1})
