"""AUDIO and --out in an object store: moto's server over HTTP on loopback, which fails and hangs when it is told to."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dask_cluster import dask_cluster

from ser_batch.cli.commands import cli
from ser_batch.config.options import FeaturizeOptions, ScoreOptions, TrainOptions
from ser_batch.corpus.walk import walk
from ser_batch.errors import InputError, OutputError, UsageError
from ser_batch.featurization import featurize
from ser_batch.scoring.run import score
from ser_batch.storage.lock import claimed
from ser_batch.storage.paths import to_path
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import KEY

s3fs = pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto is not installed")

ORDER = [(name, "ascending") for name in KEY]


class ObjectStore:
    """moto's server; `trouble` sees each request first and may answer it."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: object) -> None:
                """Say nothing."""

        self.trouble: Callable[[str, str], int | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        moto = DomainDispatcherApplication(create_backend_app)

        def app(environ, start_response):
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.requests.append((method, path))
            status = self.trouble(method, path)
            if status is None:
                return moto(environ, start_response)
            start_response(f"{status} Trouble", [("Content-Length", "0")])
            return [b""]

        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fails_sometimes(self, every: int, *, status: int = 500) -> None:
        """Answer each so-manieth request with a failure."""
        self._count(every, lambda: status)

    def hangs_sometimes(self, every: int, *, seconds: float) -> None:
        """Answer each so-manieth request too late."""

        def hang() -> int:
            threading.Event().wait(seconds)
            return 503

        self._count(every, hang)

    def _count(self, every: int, answer: Callable[[], int]) -> None:
        lock, n = threading.Lock(), 0

        def trouble(method: str, path: str) -> int | None:
            nonlocal n
            with lock:
                n += 1
                is_due = n % every == 0
            return answer() if is_due else None

        self.trouble = trouble


@pytest.fixture
def store(monkeypatch) -> Iterator[ObjectStore]:
    """An empty store with a bucket, whose client waits a second for an answer, and tries five times."""
    import fsspec

    server = ObjectStore()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patience = {"read_timeout": 1, "connect_timeout": 1, "retries": {"total_max_attempts": 5}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": patience})
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield server
    server.trouble = lambda method, path: None
    s3fs.S3FileSystem().rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    server.close()


@pytest.fixture
def few(small_corpus: Path, tmp_path: Path) -> Path:
    """Twelve recordings; eleven are enough for a reference."""
    folder = tmp_path / "Actor_01"
    folder.mkdir()
    for recording in sorted((small_corpus / "Actor_01").iterdir())[:12]:
        shutil.copy(recording, folder)
    return folder


def put(folder: Path, name: str) -> Path:
    s3fs.S3FileSystem().put(str(folder), f"bucket/{name}", recursive=True)
    return to_path(f"s3://bucket/{name}")


def names(address: str) -> list[str]:
    return sorted(key.removeprefix(f"{address}/") for key in s3fs.S3FileSystem(use_listings_cache=False).find(address))


def test_featurize_from_and_into_a_store_gives_the_very_same_table(store, few, tmp_path):
    put(few, "calls/Actor_01")
    featurize(few, FeaturizeOptions(out=tmp_path / "here", name="audio", jobs=1, shard_size=3))
    command = ["featurize", "s3://bucket/calls/Actor_01", "--out", "s3://bucket/features", "--name", "audio"]
    command += ["--shard-size", "3", "--jobs", "1"]

    result = CliRunner().invoke(cli, command, catch_exceptions=False)

    assert result.exit_code == 0, result.output
    assert "s3://bucket/features: 12 segments from 12 recordings" in result.output
    there = read_parts(to_path("s3://bucket/features")).sort_by(ORDER)
    assert there.equals(read_parts(tmp_path / "here").sort_by(ORDER))
    assert names("bucket/features") == [
        *(f"_meta/ledger/part-{number:06d}.json" for number in range(1, 5)),
        *("_meta/rejects.parquet", "_meta/run.json"),
        *(f"part-{number:06d}.parquet" for number in range(1, 5)),
        "spec.json",
    ]
    # each recording is fetched once, to be hashed and decoded from the copy
    assert sum(method == "GET" and path.endswith(".wav") for method, path in store.requests) == 12

    again = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert "12 already up to date" in again.output
    assert sum(method == "GET" and path.endswith(".wav") for method, path in store.requests) == 12


def test_the_ledger_is_written_last_and_a_part_without_it_is_as_good_as_not_there(store, few, tmp_path):
    puts = []

    def trouble(method: str, path: str) -> int | None:
        puts.extend([path] if method == "PUT" else [])
        return 403 if "ledger/part-000002" in path and method == "PUT" else None

    store.trouble = trouble
    options = FeaturizeOptions(out=to_path("s3://bucket/features"), jobs=1, shard_size=6)
    with pytest.raises(OutputError, match=r"part-000002\.json: cannot be written or read \(PermissionError"):
        featurize(few, options)
    assert puts[-4:] == [
        "/bucket/features/part-000001.parquet",
        "/bucket/features/_meta/ledger/part-000001.json",
        "/bucket/features/part-000002.parquet",
        "/bucket/features/_meta/ledger/part-000002.json",
    ]
    assert "_meta/lock.json" not in names("bucket/features")

    store.trouble = lambda method, path: None
    summary = featurize(few, options)
    assert (summary.n_done, summary.n_up_to_date, summary.n_segments) == (6, 6, 12)


def test_score_from_and_into_a_store_gives_the_very_same_tables(store, few, tmp_path):
    audio = put(few, "calls")
    score(few, ScoreOptions(out=tmp_path / "here.parquet", jobs=1))
    score(audio, ScoreOptions(out=to_path("s3://bucket/preds.parquet"), jobs=1))
    score(audio, ScoreOptions(out=to_path("s3://bucket/scored"), jobs=1))

    filesystem = s3fs.S3FileSystem()
    for local, one_file, folder in (
        ("here", "preds", None),
        ("here.calls", "preds.calls", "calls"),
        ("here.report", "preds.report", "report"),
        ("here.rejects", "preds.rejects", "rejects"),
    ):
        expected = pq.read_table(tmp_path / f"{local}.parquet")
        with filesystem.open(f"bucket/{one_file}.parquet") as stream:
            assert pq.read_table(stream).equals(expected)
        if folder:
            with filesystem.open(f"bucket/scored/_tables/{folder}.parquet") as stream:
                assert pq.read_table(stream).equals(expected)
    for page in ("preds.report.html", "scored/_tables/report.html"):
        assert b"recordings are in an object store" in filesystem.cat(f"bucket/{page}")
    assert score(audio, ScoreOptions(out=to_path("s3://bucket/scored"), jobs=1)).n_done == 0


@pytest.mark.parametrize(
    "trouble",
    ["fails", pytest.param("throttles", marks=pytest.mark.slow), pytest.param("hangs", marks=pytest.mark.slow)],
)
def test_a_store_that_fails_or_hangs_now_and_then_costs_nothing_but_time(trouble, store, few, tmp_path):
    audio = put(few, "calls")
    featurize(few, FeaturizeOptions(out=tmp_path / "here", name="calls", jobs=1))
    if trouble == "hangs":
        store.hangs_sometimes(17, seconds=1.5)
    else:
        store.fails_sometimes(9, status=500 if trouble == "fails" else 503)

    summary = featurize(audio, FeaturizeOptions(out=to_path("s3://bucket/features"), jobs=1, shard_size=4))

    store.trouble = lambda method, path: None
    assert summary.rejected == ()
    there = read_parts(to_path("s3://bucket/features")).sort_by(ORDER)
    assert there.equals(read_parts(tmp_path / "here").sort_by(ORDER))


def test_a_recording_that_cannot_be_fetched_is_rejected_and_tried_again(store, few, tmp_path):
    audio = put(few, "calls")
    first = min(recording.path for recording in walk(audio).recordings)
    store.trouble = lambda method, path: 403 if path.endswith(first) and method == "GET" else None
    options = FeaturizeOptions(out=tmp_path / "features", jobs=1)

    (reject,) = featurize(audio, options).rejected
    assert (reject.path, reject.stage) == (first, "open")
    assert "cannot be fetched (PermissionError" in reject.message

    store.trouble = lambda method, path: None
    again = featurize(audio, options)
    assert (again.n_done, again.rejected) == (1, ())


def test_a_recording_that_changes_is_done_again_and_one_that_vanishes_is_told(store, few, tmp_path):
    audio = put(few, "calls")
    options = FeaturizeOptions(out=tmp_path / "features", jobs=1)
    featurize(audio, options)
    one, two, *_ = walk(audio).recordings
    filesystem = s3fs.S3FileSystem(use_listings_cache=False)
    filesystem.copy(two.file.decode(), one.file.decode())
    filesystem.rm(two.file.decode())

    summary = featurize(audio, options)

    assert (summary.n_done, summary.n_up_to_date, summary.n_missing) == (1, 10, 1)
    rows = pl.read_parquet(tmp_path / "features/*.parquet", columns=["path", "content_hash"])
    assert rows.filter(path=one.path)["content_hash"].item() == rows.filter(path=two.path)["content_hash"].item()


def test_a_second_run_into_one_output_is_refused_with_who_holds_it(store, few):
    record = {"pid": 7, "host": "another.example", "run": "x", "started": "2026-03-01T00:00:00+00:00"}
    s3fs.S3FileSystem().pipe_file("bucket/features/_meta/lock.json", json.dumps(record).encode())
    options = FeaturizeOptions(out=to_path("s3://bucket/features"), jobs=1)
    with pytest.raises(
        OutputError, match=r"process 7 on another\.example.*remove s3://bucket/features/_meta/lock\.json"
    ):
        featurize(few, options)
    assert names("bucket/features") == ["_meta/lock.json"]


def test_what_a_container_that_was_started_again_left_is_taken_over(store, few):
    record = {"pid": os.getpid(), "host": socket.gethostname(), "run": "x", "started": "2026-03-01T00:00:00+00:00"}
    s3fs.S3FileSystem().pipe_file("bucket/features/_meta/lock.json", json.dumps(record).encode())
    out = to_path("s3://bucket/features")
    with claimed(out), pytest.raises(OutputError, match="another run is writing there"), claimed(out):
        pass
    assert names("bucket/features") == []


def test_what_is_not_there_or_cannot_be_read_is_named(store, few, tmp_path, monkeypatch):
    options = FeaturizeOptions(out=tmp_path / "out", jobs=1)
    with pytest.raises(UsageError, match=r"s3://bucket/nothing: nothing is there"):
        featurize(to_path("s3://bucket/nothing"), options)
    s3fs.S3FileSystem().pipe_file("bucket/texts/a.txt", b"a")
    with pytest.raises(InputError, match=r"s3://bucket/texts: no recordings found; it holds 1 other files"):
        featurize(to_path("s3://bucket/texts"), options)
    store.trouble = lambda method, path: 403
    with pytest.raises(InputError, match=r"s3://bucket/texts: cannot be listed \(PermissionError"):
        featurize(to_path("s3://bucket/texts"), options)


def test_addresses_where_none_can_be_used_are_refused(monkeypatch):
    with pytest.raises(UsageError, match=r"--out s3://bucket/model; expected a path on this machine"):
        TrainOptions(out=to_path("s3://bucket/model"))
    with pytest.raises(UsageError, match=r"--labels s3://bucket/labels\.csv; expected a path on this machine"):
        FeaturizeOptions(labels=to_path("s3://bucket/labels.csv"))
    with pytest.raises(UsageError, match=r"foo://bucket: cannot be used .*pip install 'ser-batch\[s3\]'"):
        to_path("foo://bucket")
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(UsageError, match=r"pip install 'ser-batch\[s3\]'"):
        to_path("s3://bucket")


@pytest.mark.slow
def test_a_cluster_without_a_shared_disk_works_in_a_store(store, few, tmp_path):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    audio = put(few, "calls")
    featurize(few, FeaturizeOptions(out=tmp_path / "here", name="calls", jobs=1))
    with dask_cluster(tmp_path, n_workers=2) as dask:
        out = to_path("s3://bucket/features")
        summary = featurize(audio, FeaturizeOptions(out=out, backend="dask", scheduler=dask.address))
    assert (summary.n_segments, summary.rejected) == (12, ())
    assert read_parts(out).sort_by(ORDER).equals(read_parts(tmp_path / "here").sort_by(ORDER))
