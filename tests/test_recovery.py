"""Workers that die, hang or lose their files: what it costs, and what the next run finds."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import soundfile
from fateful_work import FATES, FatefulWork, begun_by, counts
from helpers import recordings_of

from ser_batch.config.options import FeaturizeOptions, RunOptions, ScoreOptions
from ser_batch.corpus.manifest import Recording
from ser_batch.errors import OutputError, SerBatchError, UsageError
from ser_batch.featurization import featurize
from ser_batch.runs.run import connected
from ser_batch.runs.store import Plan, Store, StoreSummary
from ser_batch.scoring.run import score
from ser_batch.storage.atomic import TEMPORARY_MARK
from ser_batch.storage.lock import claimed, locked


class Run:
    """Runs into one output; what the last one found to do is `plan`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.work = FatefulWork(self.out)
        self.plan: Plan | None = None

    def __call__(self, recordings: list[Recording], *, shard_size: int = 4, jobs: int = 2, **options) -> StoreSummary:
        run_options = RunOptions(jobs=jobs, **options)
        with claimed(self.out), connected(run_options) as run:
            store = Store(self.out, {"root": "here"}, overwrite=False)
            self.plan = store.plan(recordings, self.work, run_options)
            shards = store.shards(self.plan.todo, shard_size=shard_size, n_workers=1)
            run.do_shards(self.work, shards, title="do")
            summary = store.finish(())
        assert not list(self.out.rglob(f"*{TEMPORARY_MARK}*"))
        return summary

    @property
    def counts(self) -> dict[str, int]:
        """Rows by recording."""
        return counts(self.out)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


# ---- a worker is renewed ----


def test_a_worker_that_is_renewed_for_its_memory_is_not_told_of(run, tmp_path):
    recordings = recordings_of(tmp_path, {f"{number}.wav": "1 is renewed" for number in range(12)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        summary = run(recordings, shard_size=1)
        warnings.warn("others are", UserWarning, stacklevel=1)
    assert (summary.n_recordings, summary.n_rows) == (12, 12)
    assert [str(warning.message) for warning in told] == ["others are"]


# ---- a worker dies ----


@pytest.mark.parametrize(
    ("fate", "how"),
    [
        ("kills", "killed by SIGKILL, perhaps because memory ran out"),
        ("crashes", "killed by SIGSEGV"),
        ("exits", "exit status 3"),
        ("takes too much", "memory ran out"),
        ("fails later", "exit status 7"),
    ],
)
def test_a_worker_that_dies_costs_its_recording_and_no_other(fate, how, run, tmp_path):
    contents = {"a": "10", "b": "600", "c": f"5 {fate}", "d": "30", "e": "1", "f": "2", "g": "3"}

    summary = run(recordings_of(tmp_path, contents))

    assert run.counts == {"a": 10, "b": 600, "d": 30, "e": 1, "f": 2, "g": 3}
    assert (summary.n_rows, summary.n_recordings) == (646, 7)
    (reject,) = summary.rejects
    assert (reject.path, reject.stage, reject.error) == ("c", "worker", "WorkerDied")
    assert reject.message.startswith("c: ")
    assert f"({how})" in reject.message
    assert "replace the file" in reject.message
    assert run(recordings_of(tmp_path, contents)).rejects == (reject,)
    assert run.plan.todo == ()
    assert run(recordings_of(tmp_path, contents | {"c": "6"}), jobs=1).rejects == ()
    assert run.counts["c"] == 6


def test_one_job_is_isolated_where_that_is_asked_for(run, tmp_path):
    summary = run(recordings_of(tmp_path, {"a": "1", "b": "2 exits", "c": "3"}), jobs=1, isolate=True)

    assert [reject.path for reject in summary.rejects] == ["b"]
    assert run.counts == {"a": 1, "c": 3}


def test_a_recording_that_goes_well_alone_is_not_blamed(run, tmp_path):
    summary = run(recordings_of(tmp_path, {"a": "10", "b": "5 kills once", "c": "7"}))

    assert summary.rejects == ()
    assert run.counts == {"a": 10, "b": 5, "c": 7}


@pytest.mark.parametrize("options", [{"jobs": 1, "isolate": True}, {"jobs": 2}])
def test_what_was_done_is_not_done_again_where_only_word_of_it_was_lost(options, run, tmp_path):
    recordings = recordings_of(tmp_path, {"a": "1", "b": "2 is silent", "c": "3 is silent", "d": "4"})

    summary = run(recordings, shard_size=1, **options)

    assert (summary.n_rows, summary.n_recordings, summary.rejects) == (10, 4, ())
    assert run.counts == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert [len(begun_by(tmp_path, name)) for name in "abcd"] == [1, 1, 1, 1]


def test_processes_wait_for_the_next_run_and_may_die_meanwhile(run, tmp_path):
    run(recordings_of(tmp_path, {"a": "1", "b": "2"}), shard_size=1)
    waiting = [child for child in psutil.Process().children() if "popen_loky" in " ".join(child.cmdline())]
    for process in waiting:
        process.kill()
    psutil.wait_procs(waiting, timeout=10)

    summary = run(recordings_of(tmp_path, {"a": "1", "b": "2", "c": "3", "d": "4"}), shard_size=1)

    assert waiting
    assert (summary.n_rows, summary.rejects) == (10, ())


def test_where_every_recording_ends_its_worker_the_machine_is_at_fault(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.runs.recovery.MAX_DEATHS_IN_A_ROW", 3)
    contents = {f"{number}": "1 exits" for number in range(6)}

    with pytest.raises(SerBatchError, match=r"3 workers in a row died.*exit status 3.*memory.*fewer --jobs"):
        run(recordings_of(tmp_path, contents), shard_size=2)

    assert not run.counts
    assert run(recordings_of(tmp_path, dict.fromkeys(contents, "1")), jobs=1).n_rows == 6


def test_one_fatal_recording_in_each_shard_ends_no_run(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.runs.recovery.MAX_DEATHS_IN_A_ROW", 2)
    contents = {f"{number}": "1 exits" if number % 2 else "2" for number in range(4)}

    summary = run(recordings_of(tmp_path, contents), shard_size=2, jobs=1, isolate=True)

    assert [reject.path for reject in summary.rejects] == ["1", "3"]
    assert summary.n_rows == 4


def test_many_broken_recordings_in_a_row_are_rejected_as_long_as_others_go_well(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.runs.recovery.MAX_DEATHS_IN_A_ROW", 2)
    contents = {"a": "5"} | {f"{number}": "1 exits" for number in range(3)}

    summary = run(recordings_of(tmp_path, contents), shard_size=1, jobs=1, isolate=True)

    assert [reject.path for reject in summary.rejects] == ["0", "1", "2"]
    assert run.counts == {"a": 5}


# ---- a recording takes too long ----


def test_a_recording_that_takes_too_long_is_rejected_at_once_even_where_it_hangs_in_c(run, tmp_path):
    contents = {"a": "10", "b": "600 hangs", "c": "7"}

    summary = run(recordings_of(tmp_path, contents), timeout=2)

    assert run.counts == {"a": 10, "c": 7}
    (reject,) = summary.rejects
    assert (reject.path, reject.stage, reject.error) == ("b", "worker", "TimedOut")
    assert reject.message == "b: was given up after 2 s; give a longer --timeout, or replace or remove the file"
    assert len(begun_by(tmp_path, "b")) == 1
    run(recordings_of(tmp_path, contents), timeout=1.5)
    assert run.plan.todo == ()


@pytest.mark.parametrize("timeout", [30, None])
def test_with_more_time_what_was_given_up_is_tried_again(timeout, run, tmp_path, monkeypatch):
    recordings = recordings_of(tmp_path, {"a": "10", "b": "6 hangs"})
    assert len(run(recordings, timeout=1, jobs=1, isolate=True).rejects) == 1
    store = Store(run.out, {"root": "here"}, overwrite=False)
    assert store.plan(recordings, run.work, RunOptions(timeout=1)).todo == (), "as much as before"

    monkeypatch.setitem(FATES, "hangs", lambda: None)
    plan = store.plan(recordings, run.work, RunOptions(timeout=timeout))

    assert [recording.path for recording in plan.todo] == ["b"]
    with connected(RunOptions(jobs=1)) as one:
        one.do(run.work, store, plan.todo, title="do")
    assert store.finish(()).rejects == ()
    assert run.counts == {"a": 10, "b": 6}


@pytest.mark.parametrize("options", [FeaturizeOptions, ScoreOptions])
def test_a_time_limit_needs_a_worker_to_end(options):
    with pytest.raises(UsageError, match=r"--timeout 5 with --jobs 1.*add --isolate.*2 jobs"):
        options(timeout=5, jobs=1)
    for jobs, isolate in ((1, True), (2, False), (None, False)):
        assert options(timeout=5, jobs=jobs, isolate=isolate).timeout == 5
    with pytest.raises(UsageError, match=r"--timeout 0; expected a number above 0"):
        options(timeout=0)


# ---- files that change ----


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("fate", "said"), [("grows", "b: changed while it was read"), ("goes", "b: is no longer there")]
)
@pytest.mark.parametrize("n_rows", [3, 600])
def test_a_file_that_changes_while_it_is_read_is_rejected_and_done_by_the_next_run(
    jobs, fate, said, n_rows, run, tmp_path
):
    summary = run(recordings_of(tmp_path, {"a": "600", "b": f"{n_rows} {fate}", "c": "7"}), jobs=jobs)

    assert run.counts == {"a": 600, "c": 7}
    (reject,) = summary.rejects
    assert (reject.path, reject.stage) == ("b", "open")
    assert reject.message.startswith(said)
    summary = run(recordings_of(tmp_path, {"a": "600", "b": "9", "c": "7"}), jobs=1)
    assert [recording.path for recording in run.plan.todo] == ["b"]
    assert (summary.rejects, run.counts) == ((), {"a": 600, "b": 9, "c": 7})


def test_a_file_that_is_gone_before_it_is_read_is_rejected_and_forgotten_by_the_next_run(run, tmp_path):
    recordings = recordings_of(tmp_path, {"a": "600", "b": "5", "c": "7"})
    (tmp_path / "b").unlink()

    summary = run(recordings, jobs=1)

    assert [(reject.path, reject.message[:24]) for reject in summary.rejects] == [("b", "b: is no longer there, t")]
    assert run.counts == {"a": 600, "c": 7}
    summary = run(recordings_of(tmp_path, {"a": "600", "c": "7"}), jobs=1)
    assert (summary.rejects, summary.n_recordings, run.plan.n_missing) == ((), 2, 0)


def test_a_file_that_has_changed_since_the_walk_is_done_as_it_is_and_known_next_time(run, tmp_path):
    recordings = recordings_of(tmp_path, {"a": "6", "b": "5"})
    recordings_of(tmp_path, {"b": "1234"})

    run(recordings, jobs=1)

    assert run.counts == {"a": 6, "b": 1234}
    run(recordings_of(tmp_path, {"a": "6", "b": "1234"}), jobs=1)
    assert run.plan.todo == ()


# ---- the output ----


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_output_that_vanishes_ends_the_run_and_the_next_one_makes_it_anew(jobs, run, tmp_path):
    contents = {"a": "1", "b": "2 takes the output along", "c": "3", "d": "4"}

    with pytest.raises(OutputError, match=r"out.*cannot be (made|written)"):
        run(recordings_of(tmp_path, contents), shard_size=1, jobs=jobs)

    assert not list(tmp_path.glob("out/part-*"))
    run(recordings_of(tmp_path, contents | {"b": "2"}), jobs=1)
    assert run.counts == {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.fixture
def audio(tmp_path):
    folder = tmp_path / "audio"
    folder.mkdir()
    for number in range(3):
        tone = 0.1 * np.sin(np.arange(8000) * (0.1 + number / 10))
        soundfile.write(folder / f"{number}.wav", tone, 8000)
    return folder


def runs(out: Path, **options):
    """Every way to write into an output: the stage, its options, and the folder that remembers what is done."""
    yield featurize, FeaturizeOptions(out=out, jobs=1, **options), out
    options |= {"model": "fast", "segments": "clip"}
    yield score, ScoreOptions(out=out, jobs=1, **options), out
    yield score, ScoreOptions(out=out / "p.parquet", jobs=1, **options), out / "p.parts"


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("place", ["below a file", "nowhere", "the lock is a folder"])
def test_an_output_that_cannot_be_written_is_named(place, which, audio, tmp_path):
    (tmp_path / "file").write_text("this is no folder")
    out = {"below a file": tmp_path / "file" / "out", "nowhere": Path("/proc/nowhere")}.get(place, tmp_path / "out")
    stage, options, folder = list(runs(out))[which]
    if place == "the lock is a folder":  # as on a file system that has become read-only, the first write fails
        (folder / "_meta" / "ledger").mkdir(parents=True)
        (folder / "_meta" / "lock.json").mkdir()

    with pytest.raises(OutputError, match=rf"{folder}.*cannot be (made|written).*--out"):
        stage(audio, options)


# ---- two runs into one output ----


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_second_run_into_one_output_is_refused_with_who_holds_it(which, audio, tmp_path):
    stage, options, folder = list(runs(tmp_path / "out"))[which]
    who = rf"process {os.getpid()} on {socket.gethostname()}, started 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d"
    overwriting = msgspec.structs.replace(options, overwrite=True)

    with claimed(folder):
        for again in (options, overwriting):
            with pytest.raises(OutputError, match=rf"{folder}: another run is writing there: {who}"):
                stage(audio, again)

    assert stage(audio, overwriting).n_rejected == 0
    assert not (folder / "_meta" / "lock.json").exists()


def test_overwriting_keeps_the_lock_of_the_run_that_does_it(run, tmp_path):
    run(recordings_of(tmp_path, {"a": "1"}))
    with claimed(run.out):
        Store(run.out, {"root": "there"}, overwrite=True)
        with pytest.raises(OutputError, match="another run"), claimed(run.out):
            pass
    assert not run.counts


HOLDER = """
import sys, time
from pathlib import Path
from ser_batch.storage.lock import locked
with locked(Path(sys.argv[1]), Path("out")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_process_that_was_killed_is_taken_over(tmp_path):
    file = tmp_path / "lock.json"
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {process.pid} on "), locked(file, Path("out")):
            pass
        process.kill()
    assert json.loads(file.read_text())["pid"] == process.pid
    with locked(file, Path("out")):
        assert json.loads(file.read_text())["pid"] == os.getpid()
    assert not file.exists()


def test_of_many_that_begin_together_one_at_a_time_holds_an_output(tmp_path):
    file, inside, most, held = tmp_path / "lock.json", 0, 0, 0

    def try_often() -> None:
        nonlocal inside, most, held
        for _ in range(300):
            try:
                with locked(file, tmp_path):
                    inside += 1
                    most, held = max(most, inside), held + 1
                    inside -= 1
            except OutputError:
                continue

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert held >= 4


@pytest.mark.parametrize("who", ["nobody", "gone", "alive", "elsewhere"])
def test_without_locks_of_the_file_system_the_record_decides(who, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    file = tmp_path / "lock.json"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    record = {
        "gone": {"pid": gone.pid, "host": socket.gethostname()},
        "alive": {"pid": os.getpid(), "host": socket.gethostname()},
        "elsewhere": {"pid": gone.pid, "host": "another.example"},
    }.get(who)
    if record is not None:
        file.write_text(json.dumps(record | {"started": "2026-03-01T00:00:00+00:00"}))

    if who in ("alive", "elsewhere"):
        assert record is not None
        refused = rf"process {record['pid']} on {record['host']}.*remove {file}"
        with pytest.raises(OutputError, match=refused), locked(file, tmp_path):
            pass
        assert file.exists()
    else:
        with locked(file, tmp_path), pytest.raises(OutputError, match="another run"), locked(file, tmp_path):
            pass
        assert not file.exists()
