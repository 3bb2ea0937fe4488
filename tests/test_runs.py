"""Shards and workers: what a crash, a kill and Ctrl-C leave behind, what is shown meanwhile, what workers load."""

import dataclasses
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from counting_work import CountingWork
from helpers import Log, recordings_of

from ser_batch.config.options import FeaturizeOptions, RunOptions
from ser_batch.corpus.manifest import Recording
from ser_batch.errors import RecordingError
from ser_batch.featurization import featurize
from ser_batch.runs.ledger import Shard
from ser_batch.runs.part_writer import MAIN, ROWS_A_GROUP
from ser_batch.runs.run import connected
from ser_batch.runs.store import Store, StoreSummary
from ser_batch.runs.worker import do_shard
from ser_batch.storage.atomic import TEMPORARY_MARK
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import KEY

CLI = [sys.executable, "-c", "from ser_batch.cli.commands import main; main()"]

# ---- a stage of its own: a recording's file says how many rows it has and where it breaks ----


def do(work: CountingWork, recordings: list[Recording], *, jobs: int = 1, shard_size: int = 64) -> StoreSummary:
    options = RunOptions(jobs=jobs)
    store = Store(work.folder, {"root": "here"}, overwrite=False)
    plan = store.plan(recordings, work, options)
    shards = store.shards(plan.todo, shard_size=shard_size, n_workers=1)
    with connected(options) as run:
        run.do_shards(work, shards, title="count")
    return store.finish(())


def counts(out: Path, table: str = MAIN) -> dict[str, int]:
    """Rows by recording."""
    parts = list((out / "_meta" / table if table else out).glob("part-*.parquet"))
    paths = [path for part in parts for path in pq.read_table(part)["path"].to_pylist()]
    return {path: paths.count(path) for path in sorted(set(paths))}


def leftovers(out: Path) -> list[Path]:
    return list(out.rglob(f"*{TEMPORARY_MARK}*"))


@pytest.mark.parametrize("error", [RuntimeError, RecordingError])
def test_a_recording_that_breaks_after_rows_were_written_leaves_none_and_the_others_stay(error, tmp_path):
    many = 3 * ROWS_A_GROUP + 7
    contents = {"a": "10", "b": f"{many}", "c": f"{many} breaks", "d": "20 breaks", "e": f"{many}", "f": "0", "g": "5"}
    recordings = recordings_of(tmp_path, contents)

    summary = do(CountingWork(tmp_path / "out", error), recordings)

    kept = {"a": 10, "b": many, "e": many, "g": 5}
    assert counts(tmp_path / "out") == kept
    assert counts(tmp_path / "out", "calls") == {"a": 1, "b": 1, "e": 1, "f": 1, "g": 1}
    assert summary.n_rows == sum(kept.values())
    assert summary.audio_s == sum(kept.values())
    assert summary.n_recordings == 7
    assert [(reject.path, reject.stage) for reject in summary.rejects] == [
        ("c", "worker" if error is RuntimeError else "decode"),
        ("d", "worker" if error is RuntimeError else "decode"),
    ]
    assert all(reject.message.startswith(f"{reject.path}: ") for reject in summary.rejects)
    assert not leftovers(tmp_path / "out")


def test_rejects_of_a_broken_decoder_are_not_worked_on_again_until_they_change(tmp_path):
    work = CountingWork(tmp_path / "out")
    do(work, recordings_of(tmp_path, {"a": "1500 breaks", "b": "3"}))
    store = Store(tmp_path / "out", {"root": "here"}, overwrite=False)

    assert store.plan(recordings_of(tmp_path, {"a": "1500 breaks", "b": "3"}), work, RunOptions()).todo == ()
    (repaired,) = store.plan(recordings_of(tmp_path, {"a": "1501", "b": "3"}), work, RunOptions()).todo
    assert repaired.path == "a"


def test_a_part_holds_all_rows_in_order_over_the_edges_of_row_groups(tmp_path):
    recordings = recordings_of(tmp_path, {"a": "1234", "b": "40", "c": "700"})
    Store(tmp_path / "out", {}, overwrite=False)
    do_shard(CountingWork(tmp_path / "out"), Shard("part-000001", tuple(recordings)))

    part = pq.ParquetFile(tmp_path / "out" / "part-000001.parquet")
    expected = [(name, number) for name, count in (("a", 1234), ("b", 40), ("c", 700)) for number in range(count)]
    assert list(zip(*part.read(["path", "number"]).to_pydict().values(), strict=True)) == expected
    assert part.metadata.row_group(0).num_rows == ROWS_A_GROUP


@pytest.mark.parametrize("jobs", [1, 2])
def test_output_that_cannot_be_written_ends_the_run_and_blames_no_recording(jobs, tmp_path, monkeypatch):
    """A full disk; in a process of its own, because the limit on file sizes cannot be raised again."""
    for name in "abcd":
        (tmp_path / name).write_text("30000")
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from ser_batch.errors import OutputError
from test_runs import *
folder = Path({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    do(CountingWork(folder / "out"), recordings_of(folder, dict.fromkeys("abcd", "30000")), jobs={jobs}, shard_size=1)
except OutputError as error:
    print("OutputError", error)
"""
    # containers often lack procps, whose pgrep loky falls back on: workers are ended without it
    without_pgrep = os.environ | {"PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=without_pgrep
    )

    assert re.search(r"OutputError .*part-.*cannot be written.*large", done.stdout), done
    assert "Traceback" not in done.stderr
    assert counts(tmp_path / "out") == {}
    assert not leftovers(tmp_path / "out")
    summary = do(CountingWork(tmp_path / "out"), recordings_of(tmp_path, dict.fromkeys("abcd", "30000")))
    assert (summary.n_rows, summary.rejects) == (120_000, ())


def test_a_killed_worker_costs_its_recording_in_all_tables_and_finished_shards_stay(tmp_path):
    recordings = recordings_of(tmp_path, {"a": "10", "b": "20", "c": "1500 kills", "d": "30"})

    summary = do(CountingWork(tmp_path / "out"), recordings, jobs=2, shard_size=2)

    assert [(reject.path, reject.stage, reject.error) for reject in summary.rejects] == [("c", "worker", "WorkerDied")]
    assert not leftovers(tmp_path / "out")
    assert counts(tmp_path / "out") == {"a": 10, "b": 20, "d": 30}
    assert counts(tmp_path / "out", "calls") == {"a": 1, "b": 1, "d": 1}
    recordings = recordings_of(tmp_path, {"a": "10", "b": "20", "c": "5", "d": "30"})
    assert do(CountingWork(tmp_path / "out"), recordings).n_rows == 65


@pytest.mark.parametrize(
    ("n", "jobs", "shard_size", "sizes"), [(10, 1, 4, [4, 4, 2]), (10, 2, 64, [3, 3, 3, 1]), (3, 8, 64, [1, 1, 1])]
)
def test_shards_are_no_larger_than_asked_and_small_runs_reach_every_worker(n, jobs, shard_size, sizes, tmp_path):
    recordings = recordings_of(tmp_path, {f"r{i:02d}": "1" for i in range(n)})
    store = Store(tmp_path / "out", {}, overwrite=False)

    shards = store.shards(recordings, shard_size=shard_size, n_workers=jobs)

    assert [len(shard.recordings) for shard in shards] == sizes
    assert [recording for shard in shards for recording in shard.recordings] == recordings
    assert len({shard.name for shard in shards}) == len(shards)


def test_a_shard_is_full_at_256_mb_so_that_long_calls_are_shared_out(tmp_path):
    recordings = [
        dataclasses.replace(recording, size=100 * 2**20)
        for recording in recordings_of(tmp_path, dict.fromkeys("abcde", "1"))
    ]

    shards = Store(tmp_path / "out", {}, overwrite=False).shards(recordings, shard_size=64, n_workers=1)

    assert [len(shard.recordings) for shard in shards] == [2, 2, 1]


# ---- progress ----


def test_progress_is_plain_lines_on_stderr_where_that_is_no_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ser_batch.runs.progress.SECONDS_BETWEEN_LINES", 0)
    do(CountingWork(tmp_path / "out"), recordings_of(tmp_path, {"a": "7200", "b": "1"}), shard_size=1)

    said = capsys.readouterr()

    assert said.out == ""
    first, last = said.err.splitlines()
    assert re.fullmatch(r"count: 1 of 2 files, 2\.00 h of audio, [\d.]+ files/s, \d+ s left", first)
    assert re.fullmatch(r"count: 2 of 2 files, 2\.00 h of audio, [\d.]+ files/s, 0 s left", last)


def test_short_runs_say_nothing_where_stderr_is_no_terminal(tmp_path, capsys):
    do(CountingWork(tmp_path / "out"), recordings_of(tmp_path, {"a": "1", "b": "1"}), shard_size=1)

    assert capsys.readouterr() == ("", "")


def test_what_stands_for_stderr_need_not_know_whether_it_is_a_terminal(tmp_path, monkeypatch):
    log = Log()
    monkeypatch.setattr("ser_batch.runs.progress.SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr("sys.stderr", log)
    do(CountingWork(tmp_path / "out"), recordings_of(tmp_path, {"a": "1"}))

    assert "count: 1 of 1 files" in log.text


# ---- the command itself ----


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Minutes of sound in a few files, so that there is something to interrupt."""
    root = tmp_path_factory.mktemp("corpus") / "audio"
    root.mkdir()
    samples = (0.1 * np.random.default_rng(1).standard_normal(60 * 22050)).astype(np.float32)
    for i in range(5):
        soundfile.write(root / f"{i}.wav", np.roll(samples, i * 1000), 22050, subtype="PCM_16")
    return root


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """Its features in windows, made in one go."""
    out = tmp_path_factory.mktemp("undisturbed") / "features"
    featurize(corpus, FeaturizeOptions(out=out, jobs=2, segments="windows"))
    return out


def rows(out: Path) -> pa.Table:
    return read_parts(out).sort_by([(name, "ascending") for name in KEY])


def start(root: Path, out: Path, *options: str, **popen: Any) -> "subprocess.Popen[str]":
    command = [*CLI, "featurize", str(root), "--out", str(out), "--segments", "windows", *options]
    return subprocess.Popen(command, text=True, start_new_session=True, **popen)


def wait_until(condition, process: subprocess.Popen, timeout_s: float = 60) -> None:
    given_up = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < given_up
        time.sleep(0.02)


def worker_starts(process: "subprocess.Popen[str]") -> bool:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return any("popen_loky" in Path(f"/proc/{child}/cmdline").read_text() for child in children)


def lives_on(group: int) -> bool:
    """Whether any process of a group is there ten seconds later still."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("jobs", "when"), [("2", "a worker starts"), ("1", "the first part is there"), ("2", "the first part is there")]
)
def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(when, jobs, corpus, undisturbed, tmp_path):
    out, options = tmp_path / "out", ("--shard-size", "1", "--jobs", jobs)
    process = start(corpus, out, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if when == "a worker starts":
        wait_until(lambda: worker_starts(process), process)
        time.sleep(0.1)  # in the middle of its imports
    else:
        wait_until(lambda: list(out.glob("_meta/ledger/part-*.json")), process)

    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all its processes
    interrupted = time.monotonic()
    _, said = process.communicate(timeout=30)

    assert time.monotonic() - interrupted < 5  # 2 on a machine with nothing else to do
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert "run the same command to resume" in said
    assert not leftovers(out)
    assert not lives_on(process.pid)
    assert len(list(out.glob("part-*.parquet"))) < 5

    if when != "a worker starts":
        already = len(list(out.glob("_meta/ledger/*.json")))
        again = start(corpus, out, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        shown, _ = again.communicate(timeout=60)
        assert again.returncode == 0
        assert f"{already} already up to date" in shown
        assert rows(out).equals(rows(undisturbed))


def test_a_terminal_shows_a_bar_with_files_and_rate(corpus, tmp_path):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "150"}
    options = ("--preset", "telephone", "--jobs", "1", "--shard-size", "1")
    process = start(corpus, tmp_path / "out", *options, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    summary, _ = process.communicate(timeout=30)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert process.returncode == 0
    assert "featurize ━" in text
    assert re.search(r"5/5 files +0\.08 h of audio +\d[\d.]* files/s", text), text
    assert "done: 5 recordings" in summary
    assert "━" not in summary


def test_workers_load_neither_keras_nor_jax_nor_scikit_learn_nor_numba_nor_librosa(corpus, tmp_path):
    program = f"""
import sys
from pathlib import Path
from ser_batch.config.features import PRESETS
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.walk import walk
from ser_batch.featurization import FeaturizeWork
from ser_batch.runs.ledger import Shard
from ser_batch.runs.store import Store
from ser_batch.runs.worker import do_shard
out = Path({str(tmp_path / "out")!r})
recordings = walk(Path({str(corpus / "0.wav")!r})).recordings
Store(out, {{}}, overwrite=False)
work = FeaturizeWork(out, "corpus", PRESETS["telephone"], Segmentation(mode="windows"))
print(do_shard(work, Shard("part-000001", recordings)).n_rows)
heavy = "keras jax tensorflow torch sklearn numba librosa polars pandas skops rich click".split()
print(*[name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split("\n") == ["29", "", ""]


def test_workers_end_when_the_main_process_is_killed(tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    for number in range(40):
        soundfile.write(audio / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 16000 * 60), 16000)
    command = [*CLI, "featurize", str(audio), "--out", str(tmp_path / "out"), "--jobs", "2", "--shard-size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        wait_until(lambda: list(tmp_path.glob("out/part-*")), process)
        process.kill()
        # the workers hold the other end of the pipe: it closes when the last of them is gone
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def test_a_relative_output_follows_the_working_directory_from_call_to_call(tmp_path, monkeypatch):
    audio = tmp_path / "audio"
    audio.mkdir()
    for number in range(4):
        soundfile.write(audio / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 8000), 8000)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        featurize(audio, FeaturizeOptions(jobs=2, shard_size=1))
        assert read_parts(tmp_path / name / "features").num_rows == 4


def test_python_files_among_the_recordings_are_not_taken_for_the_librarys(corpus, tmp_path):
    # as the installed command is: a script of another folder
    command = tmp_path / "bin" / "command.py"
    command.parent.mkdir()
    command.write_text("from ser_batch.cli.commands import main\nif __name__ == '__main__':\n    main()\n")
    working = tmp_path / "working"
    working.mkdir()
    for name in ("random", "types", "queue", "json"):
        (working / f"{name}.py").write_text("print('from the working folder')")
    arguments = ["featurize", str(corpus), "--out", "out", "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, str(command), *arguments],
        cwd=working,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "0 rejected" in done.stdout, done.stderr
    assert "from the working folder" not in done.stdout + done.stderr


def test_worker_processes_that_the_system_refuses_are_told_with_a_way_out(corpus, tmp_path):
    program = (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "from ser_batch.cli.commands import main\nmain()"
    )
    command = [sys.executable, "-c", program, "featurize", str(corpus), "--out", str(tmp_path / "out"), "--jobs"]
    refused = subprocess.run([*command, "8"], capture_output=True, text=True, timeout=120, check=False)
    alone = subprocess.run([*command, "1"], capture_output=True, text=True, timeout=120, check=False)

    assert refused.returncode == 1
    assert "worker processes cannot be started (Too many open files)" in refused.stderr
    assert "--jobs 1" in refused.stderr
    assert alone.returncode == 0, alone.stderr


def test_a_run_takes_as_many_processes_as_its_container_has_processors(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    with connected(RunOptions()) as run:
        assert run.backend.n_workers == 1
