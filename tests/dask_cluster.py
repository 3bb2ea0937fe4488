"""A Dask cluster of real processes over TCP on loopback: `dask scheduler`, and `dask worker` as often as wanted."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# workers import ser_batch and the tests as this process does
PYTHONPATH = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
DASK = [sys.executable, "-m", "dask"]


class DaskCluster:
    """Its scheduler runs from the beginning; workers have one thread each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.processes: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        self._start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")

    def worker(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start a worker; it is there when `n_workers` counts it."""
        return self._start(
            "worker", self.address, "--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard", "--death-timeout", "30",
            *("--local-directory", str(self.folder), *options),
        )  # fmt: skip

    def client(self):
        import distributed

        return distributed.Client(self.address, set_as_default=False)

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{len(self.processes)}-{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [*DASK, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # processes of a group end together
                env=os.environ | {"PYTHONPATH": PYTHONPATH, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"},
                cwd=self.folder,
            )
        self.processes.append(process)
        return process


@contextlib.contextmanager
def dask_cluster(folder: Path, *, n_workers: int) -> Iterator[DaskCluster]:
    """Run a scheduler and workers that have joined."""
    cluster = DaskCluster(folder)
    try:
        for _ in range(n_workers):
            cluster.worker()
        if n_workers:
            with cluster.client() as client:
                client.wait_for_workers(n_workers, timeout=180)
        yield cluster
    finally:
        cluster.close()


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait until something holds."""
    given_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < given_up
        time.sleep(0.02)
