"""Shards over Ray: a head that is started here, one of whose workers is killed. Ray takes half a minute to start."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from dask_cluster import PYTHONPATH, wait_until
from fateful_work import begun_by, counts
from helpers import recordings_of
from test_cluster import do

from ser_batch.config.options import FeaturizeOptions, RunOptions
from ser_batch.featurization import featurize
from ser_batch.runs.run import connected
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import KEY

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.torture

PORT = 23479


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A head with 2 CPUs on this machine."""
    folder = tmp_path_factory.mktemp("ray")
    log = folder / "log"
    with log.open("w") as stream:
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(PORT)),
                *("--num-cpus", "2", "--object-store-memory", "100000000", "--include-dashboard", "false"),
                *("--node-ip-address", "127.0.0.1", "--disable-usage-stats", "--temp-dir", str(folder / "ray")),
            ],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
        )
    try:
        wait_until(lambda: "Ray runtime started" in log.read_text() or head.poll() is not None, 120)
        assert head.poll() is None, log.read_text()
        yield f"127.0.0.1:{PORT}"
    finally:
        head.terminate()
        head.wait()


def test_featurize_on_ray_gives_the_very_same_table(address, small_corpus, small_features, tmp_path):
    out = tmp_path / "features"
    featurize(small_corpus, FeaturizeOptions(out=out, backend="ray", scheduler=address))
    order = [(name, "ascending") for name in KEY]
    assert read_parts(out).sort_by(order).equals(read_parts(small_features).sort_by(order))


def test_a_killed_worker_costs_nothing_and_a_recording_that_ends_its_process_itself_only(address, tmp_path):
    contents = {"a": "10", "b": "5 exits", "c": "7 waits", "d": "3"}

    def kill_its_worker() -> None:
        wait_until(lambda: begun_by(tmp_path, "c"))
        os.kill(begun_by(tmp_path, "c")[0], signal.SIGKILL)
        wait_until(lambda: len(begun_by(tmp_path, "c")) == 2)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_its_worker)
    killer.start()
    with connected(RunOptions(backend="ray", scheduler=address)) as run:
        summary = do(tmp_path / "out", recordings_of(tmp_path, contents), run)
    killer.join()

    assert [reject.path for reject in summary.rejects] == ["b"]
    assert counts(tmp_path / "out") == {"a": 10, "c": 7, "d": 3}
