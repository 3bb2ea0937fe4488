"""Shards over a cluster: real schedulers and workers over TCP, some of them killed, and what is left of a shard."""

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dask_cluster import DaskCluster, dask_cluster, wait_until
from fateful_work import FatefulWork, begun_by, counts
from helpers import recordings_of

from ser_batch import __version__
from ser_batch.cli.commands import cli
from ser_batch.config.options import FeaturizeOptions, RunOptions, ScoreOptions
from ser_batch.corpus.manifest import Recording
from ser_batch.errors import OutputError, SerBatchError, UsageError
from ser_batch.featurization import featurize
from ser_batch.runs.cluster import do_task_remotely
from ser_batch.runs.ledger import Shard, ShardSummary
from ser_batch.runs.progress import no_progress
from ser_batch.runs.recovery import Backend, Death
from ser_batch.runs.run import Runner, connected
from ser_batch.runs.store import Store, StoreSummary
from ser_batch.runs.worker import ShardTask, do_shard
from ser_batch.scoring.run import score
from ser_batch.storage.atomic import TEMPORARY_MARK
from ser_batch.storage.lock import claim_of, claimed
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import KEY

pytest.importorskip("distributed", reason="the extra dask is not installed")


def do(out: Path, recordings: Sequence[Recording], run: Runner, *, shard_size: int = 2) -> StoreSummary:
    work = FatefulWork(out)
    with claimed(out):
        store = Store(out, {"root": "here"}, overwrite=False)
        plan = store.plan(recordings, work, run.options)
        run.do_shards(work, store.shards(plan.todo, shard_size=shard_size, n_workers=1), title="do")
        summary = store.finish(())
    assert not list(out.rglob(f"*{TEMPORARY_MARK}*"))
    return summary


def on_dask(address: str, **options) -> AbstractContextManager[Runner]:
    return connected(RunOptions(backend="dask", scheduler=address, **options))


@pytest.fixture(scope="module")
def dask(tmp_path_factory) -> Iterator[DaskCluster]:
    """A scheduler and three workers, each with a nanny that starts it again."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), n_workers=3) as cluster:
        yield cluster


# ---- the stages ----


def test_featurize_on_dask_gives_the_very_same_table(dask, small_corpus, small_features, tmp_path):
    out = tmp_path / "features"
    options = ("--out", str(out), "--backend", "dask", "--scheduler", dask.address)

    result = CliRunner().invoke(cli, ["featurize", str(small_corpus), *options])

    assert result.exit_code == 0, result.output
    assert "done: 120 recordings" in result.output
    order = [(name, "ascending") for name in KEY]
    assert read_parts(out).sort_by(order).equals(read_parts(small_features).sort_by(order))
    # six shards for three workers
    assert len(list(out.glob("part-*.parquet"))) == 6
    again = featurize(small_corpus, FeaturizeOptions(out=out, jobs=1))
    assert (again.n_done, again.n_up_to_date) == (0, 120)


def test_score_on_dask_gives_the_very_same_tables(dask, small_corpus, tmp_path):
    audio = small_corpus / "Actor_01"
    there = score(audio, ScoreOptions(out=tmp_path / "there.parquet", backend="dask", scheduler=dask.address))
    here = score(audio, ScoreOptions(out=tmp_path / "here.parquet", jobs=1))

    assert there.n_segments == here.n_segments > 0
    for name in ("", ".calls", ".report", ".rejects"):
        one, other = (pq.read_table(tmp_path / f"{where}{name}.parquet") for where in ("there", "here"))
        order = [(column, "ascending") for column in ("path", "channel", "segment") if column in one.column_names]
        assert bool(one.num_rows) == (name != ".rejects")
        assert one.sort_by(order).equals(other.sort_by(order)) if order else one.equals(other)


# ---- workers that come and go ----


def test_the_shard_of_a_killed_worker_is_done_by_another_one(dask, tmp_path):
    contents = {f"{number}": "5" for number in range(8)} | {"8": "7 waits", "9": "3"}
    recordings = recordings_of(tmp_path, contents)

    def kill_its_worker() -> None:
        wait_until(lambda: begun_by(tmp_path, "8"))
        os.kill(begun_by(tmp_path, "8")[0], signal.SIGKILL)
        wait_until(lambda: len(begun_by(tmp_path, "8")) == 2)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_its_worker)
    killer.start()
    with on_dask(dask.address) as run:
        summary = do(tmp_path / "out", recordings, run)
    killer.join()

    assert (summary.n_rows, summary.n_recordings, summary.rejects) == (50, 10, ())
    assert counts(tmp_path / "out") == {name: int(content.split()[0]) for name, content in contents.items()}
    first, second = begun_by(tmp_path, "8")
    assert first != second


@pytest.mark.slow
def test_a_worker_that_joins_late_is_given_work(dask, tmp_path):
    recordings = recordings_of(tmp_path, {f"{number}": "2 waits" for number in range(8)})
    workers: set[int] = set()

    def join() -> None:
        wait_until(lambda: sum(bool(begun_by(tmp_path, f"{number}")) for number in range(8)) >= 3)
        workers.update(pid for number in range(8) for pid in begun_by(tmp_path, f"{number}"))
        late = dask.worker("--no-nanny")
        wait_until(lambda: any(late.pid in begun_by(tmp_path, f"{number}") for number in range(8)))
        workers.add(late.pid)
        (tmp_path / "go").touch()

    joiner = threading.Thread(target=join)
    joiner.start()
    with on_dask(dask.address) as run:
        summary = do(tmp_path / "out", recordings, run, shard_size=1)
    joiner.join()

    assert (summary.n_rows, summary.rejects) == (16, ())
    assert len(workers) == 4


@pytest.mark.slow
def test_what_ends_processes_or_even_workers_is_rejected_and_no_other(dask, tmp_path):
    contents = {"a": "10", "b": "5 exits", "c": "600", "d": "4 kills its parent", "e": "3", "f": "2", "g": "1 waits"}

    with on_dask(dask.address, timeout=3) as run:
        summary = do(tmp_path / "out", recordings_of(tmp_path, contents), run, shard_size=1)

    assert counts(tmp_path / "out") == {"a": 10, "c": 600, "e": 3, "f": 2}
    b, d, g = summary.rejects
    assert [(reject.path, reject.stage, reject.error) for reject in (b, d, g)] == [
        ("b", "worker", "WorkerDied"),
        ("d", "worker", "WorkerDied"),
        ("g", "worker", "TimedOut"),
    ]
    assert "exit status 3" in b.message
    assert "2 workers" in d.message
    with on_dask(dask.address, timeout=3) as run:
        again = do(tmp_path / "out", recordings_of(tmp_path, contents), run)
    assert again.rejects == summary.rejects


def test_a_recording_that_ends_its_process_costs_no_worker(dask, tmp_path):
    with dask.client() as client:
        before = client.run(os.getpid)
    with on_dask(dask.address) as run:
        summary = do(tmp_path / "out", recordings_of(tmp_path, {"a": "1", "b": "5 exits", "c": "2", "d": "3"}), run)
    assert [reject.path for reject in summary.rejects] == ["b"]
    assert len(begun_by(tmp_path, "b")) == 3  # in its shard, in half of it, and alone
    with dask.client() as client:
        assert set(before.values()) <= set(client.run(os.getpid).values())


def test_a_scheduler_that_is_lost_ends_the_run_and_the_same_command_goes_on(tmp_path):
    recordings = recordings_of(tmp_path, {"a": "3", "b": "2 waits", "c": "4"})
    with dask_cluster(tmp_path, n_workers=1) as dask:

        def end() -> None:
            wait_until(lambda: begun_by(tmp_path, "b"))
            dask.close()

        ender = threading.Thread(target=end)
        ender.start()
        with (
            pytest.raises(SerBatchError, match=rf"{dask.address} could not do.*run the same command again"),
            on_dask(dask.address) as run,
        ):
            do(tmp_path / "out", recordings, run, shard_size=1)
        ender.join()
    (tmp_path / "go").touch()
    work = FatefulWork(tmp_path / "out")
    store = Store(tmp_path / "out", {"root": "here"}, overwrite=False)
    plan = store.plan(recordings, work, RunOptions())
    assert [recording.path for recording in plan.todo] == ["b", "c"]
    with connected(RunOptions(jobs=1)) as one:
        one.do(work, store, plan.todo, title="do")
    assert counts(tmp_path / "out") == {"a": 3, "b": 2, "c": 4}


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheduler": "tcp://h:1"}, r"--scheduler tcp://h:1 without a cluster; add --backend dask"),
        ({"backend": "dask"}, r"--backend dask with --scheduler left out.*such as tcp://10\.0\.0\.1:8786"),
        ({"backend": "dask", "scheduler": "h:1"}, r"--scheduler h:1.*tcp://"),
        ({"backend": "ray", "jobs": 2}, r"--jobs 2 with --backend ray"),
        ({"backend": "spark"}, r"--backend 'spark'; expected one of loky, dask, ray"),
    ],
)
def test_options_of_a_cluster_go_together(options, said):
    with pytest.raises(UsageError, match=said):
        FeaturizeOptions(**options)
    RunOptions(backend="dask", scheduler="tcp://h:1", timeout=5, isolate=True)


def test_a_scheduler_that_cannot_be_reached_is_named_before_anything_is_thrown_away(
    small_corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr("ser_batch.runs.cluster.CONNECT_TIMEOUT_S", 0.5)
    options = FeaturizeOptions(out=tmp_path / "out", backend="dask", scheduler="tcp://127.0.0.1:9", overwrite=True)

    with pytest.raises(UsageError, match=r"--scheduler tcp://127\.0\.0\.1:9: cannot be reached within 0\.5 s"):
        featurize(small_corpus, options)

    assert not (tmp_path / "out").exists()


def test_a_scheduler_without_workers_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.runs.cluster.WORKER_TIMEOUT_S", 0.2)
    with dask_cluster(tmp_path, n_workers=0) as dask:
        said = rf"no worker has come.*dask worker {dask.address}"
        with pytest.raises(UsageError, match=said), on_dask(dask.address):
            pass


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_the_extra_to_install_is_named(backend, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    options = RunOptions(backend=backend, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match=rf"pip install 'ser-batch\[{backend}\]'"), connected(options):
        pass


# ---- what a worker of the cluster looks at ----


@pytest.fixture
def task(tmp_path) -> Iterator[ShardTask]:
    """A shard of three recordings, as it is sent, of a run that holds the output."""
    out = tmp_path / "out"
    with claimed(out):
        Store(out, {"root": "here"}, overwrite=False)
        recordings = recordings_of(tmp_path, {"a": "1", "b": "2", "c": "3"})
        yield ShardTask(FatefulWork(out), Shard("part-000001", tuple(recordings)), claim=claim_of(out))


def test_a_worker_of_another_version_or_without_the_files_says_so(task, tmp_path):
    with pytest.raises(SerBatchError, match=r"has ser-batch .* the run is of 9\.9; install the same one"):
        do_task_remotely(task, "9.9")
    with pytest.raises(SerBatchError, match=r"does not see .*out as the run does; choose an --out that all"):
        do_task_remotely(dataclasses.replace(task, claim="{}"), __version__)
    (recording, *_) = task.shard.recordings
    moved = Shard("part-000001", (dataclasses.replace(recording, file=b"/nowhere/at/all/a"),))
    with pytest.raises(SerBatchError, match=r"sees none of the folders.*/nowhere/at/all; put AUDIO"):
        do_task_remotely(dataclasses.replace(task, shard=moved), __version__)
    assert not counts(tmp_path / "out")


def test_a_worker_that_outlives_its_run_writes_nothing(task, tmp_path):
    recordings = recordings_of(tmp_path, {"a": "1", "b": "2 stops the run"})
    with pytest.raises(OutputError, match="the run is over"):
        do_task_remotely(dataclasses.replace(task, shard=Shard("part-000001", tuple(recordings))), __version__)
    assert not list((tmp_path / "out").glob("_meta/ledger/*"))
    assert not list((tmp_path / "out").glob("part-*"))


def test_a_shard_that_a_lost_worker_has_finished_is_not_done_again(task, tmp_path):
    summary = do_task_remotely(task, __version__)
    assert isinstance(summary, ShardSummary)
    assert (summary.n_recordings, summary.n_rows, summary.n_rejects) == (3, 6, 0)
    assert do_task_remotely(task, __version__) == summary
    assert [len(begun_by(tmp_path, name)) for name in "abc"] == [1, 1, 1]


def test_a_process_that_dies_on_a_worker_is_told_with_how(task, tmp_path):
    shard = Shard("part-000001", tuple(recordings_of(tmp_path, {"a": "1", "b": "2 exits"})))
    assert do_task_remotely(dataclasses.replace(task, shard=shard), __version__) == Death(shard, "exit status 3")
    shard = Shard("part-000002", tuple(recordings_of(tmp_path, {"a": "1", "c": "2 waits"})))
    death = do_task_remotely(dataclasses.replace(task, shard=shard, timeout_s=1.0), __version__)
    assert isinstance(death, Death)
    assert death.timed_out is not None
    assert (death.timed_out.number, len(death.timed_out.content_hash or "")) == (1, 64)


# ---- lost workers, without any ----


class LosingCluster(Backend):
    """Does tasks in this process, and loses those with certain recordings."""

    def __init__(self, losing: set[str], *, times: int = 1_000) -> None:
        self.losing, self.left = losing, times
        self.sent: list[str] = []

    @property
    def n_workers(self) -> int:
        return 1

    @property
    def runner(self) -> Runner:
        return Runner(RunOptions(), self, no_progress)

    def outcomes(self, tasks):
        for task in tasks:
            self.sent.append("".join(recording.path for recording in task.shard.recordings))
            if self.left and self.losing & {recording.path for recording in task.shard.recordings}:
                self.left -= 1
                yield Death(task.shard, "lost with 4 workers")
            else:
                yield do_shard(task.work, task.shard)


def test_a_shard_that_loses_its_workers_is_halved_until_the_recording_is_known(tmp_path):
    cluster = LosingCluster({"c", "f"})
    recordings = recordings_of(tmp_path, dict.fromkeys("abcdefgh", "3"))

    summary = do(tmp_path / "out", recordings, cluster.runner, shard_size=4)

    assert [reject.path for reject in summary.rejects] == ["c", "f"]
    assert counts(tmp_path / "out") == dict.fromkeys("abdegh", 3)
    assert cluster.sent == ["abcd", "efgh", "ab", "cd", "ef", "gh", "c", "d", "e", "f", "c", "f"]
    hashes = {
        entry["path"]: entry["content_hash"]
        for path in (tmp_path / "out").glob("_meta/ledger/*")
        for entry in json.loads(path.read_text())["recordings"]
    }
    assert None not in hashes.values()


def test_a_recording_that_goes_well_alone_is_not_blamed(tmp_path):
    cluster = LosingCluster({"a"}, times=2)
    summary = do(tmp_path / "out", recordings_of(tmp_path, dict.fromkeys("abcd", "2")), cluster.runner)
    assert (summary.rejects, counts(tmp_path / "out")) == ((), dict.fromkeys("abcd", 2))
    assert cluster.sent == ["ab", "cd", "a", "b", "a"]


def test_where_all_shards_lose_their_workers_the_cluster_is_at_fault(tmp_path):
    names = [f"{number:02d}" for number in range(20)]
    cluster = LosingCluster(set(names))
    with pytest.raises(SerBatchError, match=r"10 workers in a row died.*4 workers.*memory of the workers"):
        do(tmp_path / "out", recordings_of(tmp_path, dict.fromkeys(names, "1")), cluster.runner, shard_size=1)
    assert not list((tmp_path / "out").glob("_meta/ledger/*"))


class RepeatingCluster(LosingCluster):
    """Finishes a shard in halves, and as a whole too: by a worker that nobody saw any more."""

    whole: tuple[Recording, ...]

    def outcomes(self, tasks):
        for task in tasks:
            if len(task.shard.recordings) == 4 and not self.sent:
                self.sent.append("abcd")
                yield Death(task.shard, "lost")
            else:
                do_shard(task.work, Shard("part-000001", self.whole))
                yield do_shard(task.work, task.shard)


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_was_done_twice_is_there_once(is_killed, tmp_path, monkeypatch):
    cluster = RepeatingCluster(set())
    recordings = recordings_of(tmp_path, dict.fromkeys("abcdefgh", "3"))
    cluster.whole = tuple(recordings[:4])
    if is_killed:  # before it could tidy up; the next run does
        with monkeypatch.context() as patched:
            patched.setattr("ser_batch.runs.recovery._Run.remove_split", lambda _: None)
            assert do(tmp_path / "out", recordings, cluster.runner, shard_size=4).n_rows == 36

    summary = do(tmp_path / "out", recordings, cluster.runner, shard_size=4)

    assert counts(tmp_path / "out") == dict.fromkeys("abcdefgh", 3)
    assert (summary.n_rows, summary.n_recordings) == (24, 8)


def test_a_later_run_counts_on(tmp_path):
    cluster = LosingCluster({"a"}, times=1)
    do(tmp_path / "out", recordings_of(tmp_path, dict.fromkeys("abcd", "1")), cluster.runner)
    with claimed(tmp_path / "out"):
        store = Store(tmp_path / "out", {"root": "here"}, overwrite=False)
        (shard,) = store.shards(recordings_of(tmp_path, {"e": "1"}), shard_size=64, n_workers=1)
    assert shard.name == "part-000005"
