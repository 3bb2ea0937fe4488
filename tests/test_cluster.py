"""Shards over a cluster: real schedulers and workers over TCP, some of them killed, and what is left of a shard."""

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dask_cluster import DaskCluster, dask_cluster, wait_until
from helpers import recordings_of

from ser_batch.cli.commands import cli
from ser_batch.config.options import FeaturizeOptions, RunOptions, ScoreOptions
from ser_batch.corpus.manifest import Recording
from ser_batch.errors import OutputError, SerBatchError, UsageError
from ser_batch.featurization import featurize
from ser_batch.runs.cluster import Cluster, Lost, connected
from ser_batch.runs.ledger import Shard, write_ledger
from ser_batch.runs.part_writer import MAIN, Rows
from ser_batch.runs.remote_worker import RemoteShard
from ser_batch.runs.run import run_shards
from ser_batch.runs.store import Store, StoreSummary
from ser_batch.runs.worker import Work
from ser_batch.scoring.run import score
from ser_batch.storage.atomic import TEMPORARY_MARK
from ser_batch.storage.lock import claim_of, claimed
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import KEY

pytest.importorskip("distributed", reason="the extra dask is not installed")

SCHEMA = pa.schema([("path", pa.string()), ("end_s", pa.float64())])


@dataclasses.dataclass(frozen=True)
class FatefulWork(Work):
    """Yields as many rows as a recording's file says, then does what it says; notes each time who begins it."""

    folder: Path

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        return {MAIN: SCHEMA}

    def rows(self, recording: Recording, content_hash: str) -> Rows:
        file = Path(os.fsdecode(recording.file))
        with file.with_suffix(".begun").open("a") as log:
            log.write(f"{os.getppid()}\n")
        n_rows, _, fate = file.read_text().partition(" ")
        if fate == "waits":
            wait_until((file.parent / "go").exists)
        if fate == "kills its worker":
            os.kill(os.getppid(), signal.SIGKILL)
        if fate in ("exits", "kills its worker"):
            os._exit(3)
        for number in range(int(n_rows)):
            yield MAIN, {"path": recording.path, "end_s": number + 1.0}
        if fate == "stops the run":
            (self.folder / "_meta" / "lock.json").unlink()


def resume_from(folder: Path, name: str) -> list[int]:
    """The processes of the cluster whose child began a recording."""
    file = (folder / name).with_suffix(".begun")
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def do(out: Path, recordings: Sequence[Recording], cluster: Cluster, *, shard_size: int = 2, **options) -> StoreSummary:
    work = FatefulWork(out)
    with claimed(out):
        store = Store(out, {"root": "here"}, overwrite=False)
        plan = store.plan(recordings, work, prune=False)
        shards = store.shards(plan.todo, RunOptions(jobs=1, shard_size=shard_size))
        run_shards(work, shards, jobs=1, title="do", cluster=cluster, **options)
        summary = store.finish(())
    assert not list(out.rglob(f"*{TEMPORARY_MARK}*"))
    assert not (out / "_meta" / "at").exists()
    return summary


def counts(out: Path) -> dict[str, int]:
    """Rows by recording."""
    paths = [path for part in out.glob("part-*") for path in pq.read_table(part)["path"].to_pylist()]
    return {path: paths.count(path) for path in sorted(set(paths))}


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
        wait_until(lambda: resume_from(tmp_path, "8"))
        os.kill(resume_from(tmp_path, "8")[0], signal.SIGKILL)
        wait_until(lambda: len(resume_from(tmp_path, "8")) == 2)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_its_worker)
    killer.start()
    with connected(RunOptions(backend="dask", scheduler=dask.address)) as cluster:
        summary = do(tmp_path / "out", recordings, cluster)
    killer.join()

    assert (summary.n_rows, summary.n_recordings, summary.rejects) == (50, 10, ())
    assert counts(tmp_path / "out") == {name: int(content.split()[0]) for name, content in contents.items()}
    first, second = resume_from(tmp_path, "8")
    assert first != second


def test_a_worker_that_joins_late_is_given_work(dask, tmp_path):
    recordings = recordings_of(tmp_path, {f"{number}": "2 waits" for number in range(8)})
    workers: set[int] = set()

    def join() -> None:
        wait_until(lambda: sum(bool(resume_from(tmp_path, f"{number}")) for number in range(8)) >= 3)
        workers.update(pid for number in range(8) for pid in resume_from(tmp_path, f"{number}"))
        late = dask.worker("--no-nanny")
        wait_until(lambda: any(late.pid in resume_from(tmp_path, f"{number}") for number in range(8)))
        workers.add(late.pid)
        (tmp_path / "go").touch()

    joiner = threading.Thread(target=join)
    joiner.start()
    with connected(RunOptions(backend="dask", scheduler=dask.address)) as cluster:
        summary = do(tmp_path / "out", recordings, cluster, shard_size=1)
    joiner.join()

    assert (summary.n_rows, summary.rejects) == (16, ())
    assert len(workers) == 4


def test_what_ends_processes_or_even_workers_is_rejected_and_no_other(dask, tmp_path):
    contents = {"a": "10", "b": "5 exits", "c": "600", "d": "4 kills its worker", "e": "3", "f": "2", "g": "1 waits"}

    with connected(RunOptions(backend="dask", scheduler=dask.address)) as cluster:
        summary = do(tmp_path / "out", recordings_of(tmp_path, contents), cluster, shard_size=1, timeout_s=3)

    assert counts(tmp_path / "out") == {"a": 10, "c": 600, "e": 3, "f": 2}
    b, d, g = summary.rejects
    assert [(reject.path, reject.stage, reject.error) for reject in (b, d, g)] == [
        ("b", "worker", "WorkerDied"),
        ("d", "worker", "WorkerDied"),
        ("g", "worker", "TimedOut"),
    ]
    assert "exit status 3" in b.message
    assert "2 workers" in d.message
    assert len(set(resume_from(tmp_path, "b"))) == 1  # by one and the same worker, which lives on
    with connected(RunOptions(backend="dask", scheduler=dask.address)) as cluster:
        again = do(tmp_path / "out", recordings_of(tmp_path, contents), cluster, timeout_s=3)
    assert again.rejects == summary.rejects


def test_a_scheduler_that_is_lost_ends_the_run_and_the_same_command_goes_on(tmp_path):
    recordings = recordings_of(tmp_path, {"a": "3", "b": "2 waits", "c": "4"})
    with dask_cluster(tmp_path, n_workers=1) as dask:

        def end() -> None:
            wait_until(lambda: resume_from(tmp_path, "b"))
            dask.close()

        ender = threading.Thread(target=end)
        ender.start()
        options = RunOptions(backend="dask", scheduler=dask.address)
        with (
            pytest.raises(SerBatchError, match=rf"{dask.address} could not do.*run the same command again"),
            connected(options) as cluster,
        ):
            do(tmp_path / "out", recordings, cluster, shard_size=1)
        ender.join()
    (tmp_path / "go").touch()
    work = FatefulWork(tmp_path / "out")
    store = Store(tmp_path / "out", {"root": "here"}, overwrite=False)
    plan = store.plan(recordings, work, prune=False)
    assert [recording.path for recording in plan.todo] == ["b", "c"]
    run_shards(work, store.shards(plan.todo, RunOptions(jobs=1)), jobs=1, title="do")
    assert counts(tmp_path / "out") == {"a": 3, "b": 2, "c": 4}


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheduler": "tcp://h:1"}, r"--scheduler tcp://h:1 without a cluster; add --backend dask"),
        ({"backend": "dask"}, r"--backend dask with --scheduler left out.*such as tcp://10\.0\.0\.1:8786"),
        ({"backend": "dask", "scheduler": "h:1"}, r"--scheduler h:1.*tcp://"),
        ({"backend": "ray", "jobs": 2}, r"--jobs 2 with --backend ray"),
        ({"backend": "spark"}, r"backend 'spark'; expected one of loky, dask, ray"),
    ],
)
def test_options_of_a_cluster_go_together(options, said):
    with pytest.raises(UsageError, match=said):
        FeaturizeOptions(**options)
    RunOptions(backend="dask", scheduler="tcp://h:1", timeout=5, isolate=True)


def test_a_scheduler_that_cannot_be_reached_is_named_before_anything_is_thrown_away(
    small_corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr("ser_batch.runs.dask_cluster.CONNECT_TIMEOUT_S", 0.5)
    options = FeaturizeOptions(out=tmp_path / "out", backend="dask", scheduler="tcp://127.0.0.1:9", overwrite=True)

    with pytest.raises(UsageError, match=r"--scheduler tcp://127\.0\.0\.1:9: cannot be reached within 0\.5 s"):
        featurize(small_corpus, options)

    assert not (tmp_path / "out").exists()


def test_a_scheduler_without_workers_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.runs.dask_cluster.WORKER_TIMEOUT_S", 0.2)
    with dask_cluster(tmp_path, n_workers=0) as dask:
        options = RunOptions(backend="dask", scheduler=dask.address)
        with pytest.raises(UsageError, match=rf"no worker has come.*dask worker {dask.address}"), connected(options):
            pass


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_the_extra_to_install_is_named(backend, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    options = RunOptions(backend=backend, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match=rf"pip install 'ser-batch\[{backend}\]'"), connected(options):
        pass


# ---- what a worker of the cluster looks at ----


@pytest.fixture
def remote(tmp_path) -> Iterator[RemoteShard]:
    """A shard of three recordings, as it is sent, of a run that holds the output."""
    out = tmp_path / "out"
    with claimed(out):
        Store(out, {"root": "here"}, overwrite=False)
        (out / "_meta" / "at").mkdir()
        recordings = recordings_of(tmp_path, {"a": "1", "b": "2", "c": "3"})
        yield RemoteShard(FatefulWork(out), Shard("part-000001", tuple(recordings)), claim_of(out) or "", None)


def test_a_worker_of_another_version_or_without_the_files_says_so(remote, tmp_path):
    with pytest.raises(SerBatchError, match=r"has ser-batch .* the run is of 9\.9; install the same one"):
        dataclasses.replace(remote, version="9.9")()
    with pytest.raises(SerBatchError, match=r"does not see .*out as the run does; choose an --out that all"):
        dataclasses.replace(remote, claim="{}")()
    (recording, *_) = remote.shard.recordings
    cross_corpus = dataclasses.replace(recording, file=b"/nowhere/at/all/a")
    with pytest.raises(SerBatchError, match=r"sees none of the folders.*/nowhere/at/all; put AUDIO"):
        dataclasses.replace(remote, shard=Shard("part-000001", (cross_corpus,)))()
    assert not counts(tmp_path / "out")


def test_a_worker_that_outlives_its_run_writes_nothing(remote, tmp_path):
    recordings = recordings_of(tmp_path, {"a": "1", "b": "2 stops the run"})
    with pytest.raises(OutputError, match="the run is over"):
        dataclasses.replace(remote, shard=Shard("part-000001", tuple(recordings)))()
    assert not list((tmp_path / "out").glob("_meta/ledger/*"))
    assert not list((tmp_path / "out").glob("part-*"))


def test_what_an_earlier_worker_has_done_of_a_shard_is_not_done_again(remote, tmp_path):
    recordings = recordings_of(tmp_path, {"a": "1", "b": "2 exits", "c": "3"})
    remote = dataclasses.replace(remote, shard=Shard("part-000001", tuple(recordings)))

    summary = remote()

    assert (summary.n_recordings, summary.n_rows, summary.n_rejects) == (3, 4, 1)
    names = sorted(path.stem for path in (tmp_path / "out").glob("_meta/ledger/*"))
    assert names == ["part-000001-0000-0001", "part-000001-0001-0002", "part-000001-0002-0003"]
    assert remote() == summary
    assert len(resume_from(tmp_path, "a")) == 2  # once beside b, once after it
    (tmp_path / "out/_meta/ledger/part-000001-0002-0003.json").unlink()
    assert remote() == summary
    assert [len(resume_from(tmp_path, name)) for name in "abc"] == [2, 2, 2]


# ---- lost workers, without any ----


class LosingCluster(Cluster):
    """Does calls in this process, and loses those with certain recordings."""

    def __init__(self, losing: set[str], *, times: int = 1_000) -> None:
        self.losing, self.left, self.sent = losing, times, []

    @property
    def n_workers(self) -> int:
        return 1

    def results(self, calls):
        for call in calls:
            self.sent.append("".join(recording.path for recording in call.shard.recordings))
            if self.left and self.losing & {recording.path for recording in call.shard.recordings}:
                self.left -= 1
                yield Lost(call.shard, "lost with 4 workers")
            else:
                yield call.work(call.shard)


def test_a_shard_that_loses_its_workers_is_halved_until_the_recording_is_known(tmp_path):
    cluster = LosingCluster({"c", "f"})

    summary = do(tmp_path / "out", recordings_of(tmp_path, dict.fromkeys("abcdefgh", "3")), cluster, shard_size=4)

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
    cluster = LosingCluster({"a"}, times=1)
    summary = do(tmp_path / "out", recordings_of(tmp_path, {"a": "1", "b": "2"}), cluster)
    assert (summary.rejects, counts(tmp_path / "out")) == ((), {"a": 1, "b": 2})


def test_where_all_shards_lose_their_workers_the_cluster_is_at_fault(tmp_path):
    names = [f"{number:02d}" for number in range(20)]
    cluster = LosingCluster(set(names))
    with pytest.raises(SerBatchError, match=r"10 shards in a row lost their workers.*4 workers.*memory of the workers"):
        do(tmp_path / "out", recordings_of(tmp_path, dict.fromkeys(names, "1")), cluster, shard_size=1)


class ForgetfulCluster(LosingCluster):
    """Tells of the first shard only, the first time of none."""

    def results(self, calls):
        self.sent.append(len(calls))
        yield from [call.work(call.shard) for call in calls][: len(self.sent) - 1]


def test_shards_that_nothing_is_heard_of_are_done_nevertheless(tmp_path):
    cluster = ForgetfulCluster(set())
    summary = do(tmp_path / "out", recordings_of(tmp_path, dict.fromkeys("abcd", "3")), cluster, shard_size=1)
    assert (summary.n_rows, summary.n_recordings, summary.rejects) == (12, 4, ())
    assert cluster.sent == [4]


class RepeatingCluster(LosingCluster):
    """Finishes a shard in pieces, and as a whole too: by a worker that nobody saw any more."""

    def results(self, calls):
        for call in calls:
            if len(call.shard.recordings) == 4 and not self.sent:
                self.sent.append("abcd")
                yield Lost(call.shard, "lost")
            else:
                call.work(Shard("part-000001", self.whole))
                yield call.work(call.shard)


def test_what_was_done_twice_is_there_once(tmp_path):
    cluster = RepeatingCluster(set())
    recordings = recordings_of(tmp_path, dict.fromkeys("abcdefgh", "3"))
    cluster.whole = tuple(recordings[:4])

    summary = do(tmp_path / "out", recordings, cluster, shard_size=4)

    assert counts(tmp_path / "out") == dict.fromkeys("abcdefgh", 3)
    assert (summary.n_rows, summary.n_recordings) == (24, 8)


def test_a_run_after_pieces_counts_on(tmp_path):
    out = tmp_path / "out"
    with claimed(out):
        Store(out, {"root": "here"}, overwrite=False)
        write_ledger(out, "part-000007-0000-0002", {"rows": 0, "recordings": [], "rejects": []})
        store = Store(out, {"root": "here"}, overwrite=False)
        (shard,) = store.shards(recordings_of(tmp_path, {"a": "1"}), RunOptions(jobs=1))
    assert shard.name == "part-000008"
