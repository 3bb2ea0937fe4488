"""The same command every night: only what is new, so much of it at most, and the tables as if made at once."""

import datetime
import json
import os
import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from ser_batch.cli.commands import cli
from ser_batch.cli.console import Output
from ser_batch.cli.summaries import print_score
from ser_batch.config.features import FeatureSpec
from ser_batch.config.job import read_job
from ser_batch.config.option_values import parse_since
from ser_batch.config.options import FeaturizeOptions, ScoreOptions
from ser_batch.corpus.manifest import LabelRow, Metadata, Recording
from ser_batch.errors import InputError, UsageError
from ser_batch.featurization import FeaturizeWork, featurize
from ser_batch.report.pages import write_page
from ser_batch.runs.ledger import LedgerEntry
from ser_batch.runs.store import plan_run
from ser_batch.scoring.run import score

HOUR_S = 3600
RATE = 4000  # Hz, below what any model of the package was trained with
SIDES = ("calls", "report", "rejects")


def write(folder: Path, *names: str, age_h: float = 0.0, seed: int = 0) -> None:
    """Write recordings of a second that differ by name and seed, and are so many hours old."""
    folder.mkdir(exist_ok=True)
    for name in names:
        noise = np.random.default_rng([seed, *name.encode()]).normal(0, 0.1, RATE)
        soundfile.write(folder / name, noise, RATE)
        make_old(folder / name, age_h)


def make_old(file: Path, age_h: float) -> None:
    then = datetime.datetime.now().timestamp() - age_h * HOUR_S
    os.utime(file, (then, then))


def run(audio: Path, out: Path, **options):
    # noise is no speech, and is to be scored all the same
    return score(audio, ScoreOptions(out=out, model="fast", jobs=1, min_speech=0.0, **options))


def tables(out: Path) -> dict[str, pl.DataFrame]:
    """All tables, sorted by their keys."""
    frames = {name: pl.read_parquet(out.with_suffix(f".{name}.parquet")) for name in SIDES}
    segments = pl.read_parquet(out).sort("path", "channel", "segment")
    return frames | {"segments": segments, "calls": frames["calls"].sort("path", "channel")}


def check_as_if_made_at_once(audio: Path, out: Path) -> None:
    """Compare with a fresh run over the same recordings."""
    fresh = out.with_name("fresh.parquet")
    run(audio, fresh, overwrite=True)
    found, expected = tables(out), tables(fresh)
    for name, frame in expected.items():
        if name == "report":  # means over rows in another order differ in the last bits
            assert_frame_equal(found[name], frame, rel_tol=1e-12, abs_tol=0)
        else:
            assert found[name].equals(frame), name


def times(out: Path) -> dict[str, int]:
    return {
        file.name: file.stat().st_mtime_ns for file in (out, *(out.with_suffix(f".{name}.parquet") for name in SIDES))
    }


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Three recordings and one that is broken, scored; not to be changed."""
    folder = tmp_path_factory.mktemp("scored")
    write(folder / "calls", "a.wav", "b.wav", "c.wav")
    (folder / "calls" / "broken.wav").write_bytes(b"RIFF, or not")
    run(folder / "calls", folder / "preds.parquet")
    return folder


@pytest.fixture
def night(scored, tmp_path):
    """A copy of it with the same times: the folder of recordings, and the output."""
    # the store knows the folder it was made for, so that is moved away while the copy stands in its place
    shutil.copytree(scored, tmp_path / "copy")
    run_file = tmp_path / "copy" / "preds.parts" / "_meta" / "run.json"
    run_file.write_text(run_file.read_text().replace(str(scored / "calls"), str(tmp_path / "copy" / "calls")))
    return tmp_path / "copy" / "calls", tmp_path / "copy" / "preds.parquet"


# ---- nothing new ----


def test_a_night_with_nothing_new_leaves_the_tables_as_they_are(night):
    audio, out = night
    before = times(out)
    again = run(audio, out)
    assert (again.n_done, again.n_up_to_date, len(again.rejected)) == (0, 4, 1)
    assert times(out) == before
    assert (again.n_segments, again.n_calls, again.done_s) == (3, 3, 0.0)
    assert again.audio_s == pytest.approx(3.0)
    report = pl.read_parquet(out.with_suffix(".report.parquet"))
    assert again.labels.equals(report)
    assert any("3 recordings have a sampling rate below" in warning for warning in again.warnings)
    check_as_if_made_at_once(audio, out)


def test_files_that_were_only_touched_change_no_table(night):
    audio, out = night
    make_old(audio / "a.wav", 5)
    before = times(out)
    assert run(audio, out).n_done == 0
    assert times(out) == before


@pytest.mark.parametrize("suffix", [".parquet", ".calls.parquet", ".report.parquet", ".rejects.parquet"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-20])])
def test_a_table_that_is_gone_or_cut_off_is_made_again(night, suffix, damage):
    audio, out = night
    before = tables(out)
    damage(out.with_suffix(suffix))
    assert run(audio, out).n_done == 0
    for name, frame in tables(out).items():
        assert frame.equals(before[name])


def test_a_run_that_ended_before_its_tables_were_made_makes_them_next_time(night, monkeypatch):
    audio, out = night
    write(audio, "d.wav")

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ser_batch.scoring.run.write_tables", broken)
        with pytest.raises(KeyboardInterrupt):
            run(audio, out)
    assert run(audio, out).n_done == 0
    check_as_if_made_at_once(audio, out)


def test_a_folder_of_parts_keeps_its_tables_too(night, tmp_path):
    audio, _ = night
    run(audio, tmp_path / "preds")
    files = sorted((tmp_path / "preds" / "_tables").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    run(audio, tmp_path / "preds")
    assert [file.stat().st_mtime_ns for file in files] == before
    files[0].unlink()
    run(audio, tmp_path / "preds")
    assert files[0].is_file()


# ---- something new ----


def test_what_is_new_changed_or_gone_leads_to_the_tables_of_a_fresh_run(night):
    audio, out = night
    write(audio, "d.wav")
    assert run(audio, out).n_done == 1
    check_as_if_made_at_once(audio, out)
    write(audio, "a.wav", seed=1)
    assert run(audio, out).n_done == 1
    check_as_if_made_at_once(audio, out)
    (audio / "b.wav").unlink()
    (audio / "broken.wav").unlink()
    gone = run(audio, out)
    assert (gone.n_done, gone.n_missing, len(tables(out)["segments"])) == (0, 2, 4)
    assert run(audio, out, prune=True).n_done == 0
    check_as_if_made_at_once(audio, out)


def test_changed_labels_change_the_report(night, tmp_path):
    audio, out = night
    for emotion in ("angry", "sad"):
        (tmp_path / "labels.csv").write_text(f"path,emotion\na.wav,{emotion}\n")
        report = run(audio, out, labels=tmp_path / "labels.csv").labels
        assert report.filter(label=emotion)["support"].item() == 1
    assert run(audio, out).labels["support"].null_count() == len(report), "labels that are not given are not known"


# ---- --since ----


def test_only_recordings_modified_since_are_done_and_rows_of_older_ones_stay(night):
    audio, out = night
    write(audio, "old.wav", age_h=30)
    write(audio, "new.wav", age_h=2)
    tonight = run(audio, out, since="24h")
    assert (tonight.n_done, tonight.n_up_to_date, tonight.n_before_since, tonight.n_beyond_limit) == (1, 4, 1, 0)
    assert set(tables(out)["segments"]["path"]) == {"a.wav", "b.wav", "c.wav", "new.wav"}
    assert run(audio, out).n_done == 1
    check_as_if_made_at_once(audio, out)


def test_an_older_recording_that_changed_keeps_its_rows_until_it_is_asked_for(night):
    audio, out = night
    before = tables(out)["segments"]
    write(audio, "a.wav", seed=1, age_h=48)  # as long as before, so only its hash tells
    assert run(audio, out, since="1d").n_done == 0
    assert tables(out)["segments"].equals(before)
    assert run(audio, out).n_done == 1
    check_as_if_made_at_once(audio, out)


def test_the_very_first_night_may_have_nothing_recent(tmp_path):
    write(tmp_path / "calls", "a.wav", age_h=48)
    with pytest.raises(InputError, match=r"all 1 recordings were last modified before --since"):
        run(tmp_path / "calls", tmp_path / "preds.parquet", since="24h")
    assert run(tmp_path / "calls", tmp_path / "preds.parquet").n_done == 1


NOON = datetime.datetime(2026, 3, 2, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOON - datetime.timedelta(minutes=90)),
        ("24h", NOON - datetime.timedelta(days=1)),
        ("1.5d", NOON - datetime.timedelta(hours=36)),
        ("2w", NOON - datetime.timedelta(days=14)),
        (" 7d ", NOON - datetime.timedelta(days=7)),
        ("2026-03-01T08:30:00+05:30", datetime.datetime(2026, 3, 1, 3, tzinfo=datetime.UTC)),
        ("2026-03-01T08:30Z", datetime.datetime(2026, 3, 1, 8, 30, tzinfo=datetime.UTC)),
        ("2026-03-01", datetime.datetime(2026, 3, 1).astimezone()),
        ("2026-03-01 18:00", datetime.datetime(2026, 3, 1, 18).astimezone()),
    ],
)
def test_since_is_a_date_a_time_or_an_age(text, expected):
    assert parse_since(text, NOON) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "24", "-1h", "24 hours", "2026-02-30", "0001-01-01", "1e9d", "99999999w"]
)
def test_other_words_are_refused(text):
    with pytest.raises(UsageError, match=r"--since .*; expected a date such as 2026-03-01"):
        ScoreOptions(since=text)


# ---- --limit ----


def test_a_limit_does_the_rest_next_time(night):
    audio, out = night
    write(audio, "d.wav", "e.wav", "f.wav")
    write(audio, "a.wav", seed=1)
    before = tables(out)["segments"].filter(path="a.wav")
    seen = []
    for _ in range(3):
        summary = run(audio, out, limit=2)
        seen.append((summary.n_done, summary.n_up_to_date, summary.n_beyond_limit))
    assert seen == [(2, 3, 2), (2, 5, 0), (0, 7, 0)]
    check_as_if_made_at_once(audio, out)
    assert not tables(out)["segments"].filter(path="a.wav").equals(before)


def test_a_changed_recording_beyond_the_limit_keeps_its_rows(night):
    audio, out = night
    before = tables(out)["segments"]
    write(audio, "a.wav", "c.wav", seed=1)
    assert run(audio, out, limit=1).n_beyond_limit == 1
    after = tables(out)["segments"]
    same = {path: after.filter(path=path).equals(before.filter(path=path)) for path in ("a.wav", "b.wav", "c.wav")}
    assert same == {"a.wav": False, "b.wav": True, "c.wav": True}
    assert run(audio, out, limit=1).n_beyond_limit == 0
    check_as_if_made_at_once(audio, out)


def test_since_comes_before_the_limit(night):
    audio, out = night
    write(audio, "1.wav", "2.wav", age_h=30)
    write(audio, "3.wav", "4.wav", age_h=1)
    summary = run(audio, out, since="24h", limit=1)
    assert (summary.n_done, summary.n_beyond_limit, summary.n_before_since) == (1, 1, 2)
    assert "3.wav" in set(tables(out)["segments"]["path"])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(limit):
    with pytest.raises(UsageError, match=rf"--limit {limit}; expected a whole number, 1 or more"):
        FeaturizeOptions(limit=limit)


def recording(name: str, *labels: LabelRow, mtime_ns: int = 5) -> Recording:
    return Recording(path=name, file=b"", size=1, mtime_ns=mtime_ns, metadata=Metadata(), labels=labels)


def entry(of: Recording, **changes):
    return msgspec.structs.replace(LedgerEntry.of(of, "h", timed=True), **changes)


def planned(recordings, done, **options):
    work = FeaturizeWork(Path(), "d", FeatureSpec(), FeaturizeOptions(segments="windows").segmentation)
    plan = plan_run(recordings, done, work, **({"since_ns": None, "limit": None} | options))
    return (
        [r.path for r in plan.todo],
        [r.path for r in plan.relabel],
        plan.n_done,
        plan.n_beyond_limit,
        plan.n_before_since,
    )


def test_what_can_not_be_read_does_not_take_every_turn():
    recordings = [recording("a"), recording("b"), recording("c")]
    done = {"a": entry(recordings[0], content_hash=None), "b": entry(recordings[1], content_hash=None)}
    assert planned(recordings, done, limit=2) == (["c", "a"], [], 0, 1, 0)


def test_new_labels_of_older_recordings_are_joined_where_that_costs_nothing():
    now = recording("a", LabelRow(emotion="sad", start_s=0.0, end_s=1.0))
    done = {"a": entry(recording("a", LabelRow(emotion="sad")))}
    assert planned([now], done, since_ns=9) == ([], ["a"], 1, 0, 0)


# ---- the command line, job files, featurize ----


def test_the_last_lines_tell_what_is_left_and_how_fast_it_was(night):
    audio, out = night
    write(audio, "old.wav", age_h=30)
    write(audio, "1.wav", "2.wav")
    arguments = ["score", str(audio), "--out", str(out), "--model", "fast", "--jobs", "1", "--min-speech", "0"]
    arguments += ["--since", "24h"]
    result = CliRunner().invoke(cli, [*arguments, "--limit", "1"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()[-3:]
    assert lines[0] == "skipped: 1 recording, not modified since --since"
    assert lines[1] == "left: 1 recording beyond --limit; run again to continue"
    assert lines[2].startswith("done: 1 recording in ")
    assert " times real time), 4 already up to date; 0.00 h of audio in total, 1 rejected" in lines[2]
    assert CliRunner().invoke(cli, [*arguments, "--limit", "0"]).exit_code == 2
    assert CliRunner().invoke(cli, [*arguments[:-1], "soon"]).exit_code == 2


def test_the_speed_is_that_of_the_recordings_of_this_call(night, capsys):
    summary = msgspec.structs.replace(run(*night), done_s=20.0, audio_s=3600.0, seconds=2.0)
    print_score(summary, Output())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("done: 0 recordings in 2.0 s (10 times real time), ")
    assert "; 1.00 h of audio in total" in last


def test_a_job_file_takes_both(tmp_path):
    (tmp_path / "job.toml").write_text('[score]\naudio = "calls"\nsince = "24h"\nlimit = 100\n')
    ((_, options),) = read_job(tmp_path / "job.toml").steps
    assert options == ScoreOptions(since="24h", limit=100)


def test_featurize_takes_both(tmp_path):
    write(tmp_path / "calls", "1.wav", "2.wav", "3.wav")
    write(tmp_path / "calls", "old.wav", age_h=30)

    def done(**options):
        summary = featurize(tmp_path / "calls", FeaturizeOptions(out=tmp_path / "features", jobs=1, **options))
        return summary.n_done, summary.n_up_to_date, summary.n_beyond_limit, summary.n_before_since

    assert done(since="24h", limit=2) == (2, 0, 1, 1)
    assert done(since="24h", limit=2) == (1, 2, 0, 1)
    assert done() == (1, 3, 0, 0)


# ---- the page of the morning after ----


def listed(out: Path) -> dict:
    """What the script of a page lists."""
    (data,) = re.findall(r'id="page-data">(.*?)</script>', out.with_suffix(".report.html").read_text(encoding="utf-8"))
    return json.loads(data)


def new_paths(out: Path) -> set[str]:
    data = listed(out)
    return {data["paths"][data["calls"]["path"][row]] for row in data["calls"]["new"]}


def test_the_page_tells_what_is_new_and_can_be_made_again_without_the_model(night):
    audio, out = night
    assert new_paths(out) == set()  # all is
    write(audio, "d.wav", "e.wav")
    run(audio, out)
    assert new_paths(out) == {"d.wav", "e.wav"}
    run(audio, out)
    assert new_paths(out) == {"d.wav", "e.wav"}
    write(audio, "f.wav")
    run(audio, out)
    before = out.with_suffix(".report.html").read_text(encoding="utf-8")
    assert new_paths(out) == {"f.wav"}
    assert "accuracy</dt><dd>UAR 0." in before
    assert "license</dt><dd>all of these hold: ODbL" in before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ser_batch.model.folder.find_model", None)
        write_page(out, out.with_suffix(".report.html"))
    assert out.with_suffix(".report.html").read_text(encoding="utf-8") == before


def test_another_playback_makes_the_page_again(night):
    audio, out = night
    run(audio, out)
    assert listed(out)["audio"]["base"] == "calls/"
    before = times(out)
    run(audio, out, playback="clips")
    assert listed(out)["audio"]["base"] == "preds.audio/"
    assert out.with_suffix(".audio").is_dir()
    run(audio, out, playback="none")
    assert listed(out)["audio"]["base"] is None
    assert set(times(out)) == set(before)
