"""The sound of a page of calls: addresses of recordings, excerpts."""

import os
from urllib.parse import unquote_to_bytes

import numpy as np
import polars as pl
import pytest
import soundfile

from ser_batch.report.call_audio import call_audio, clips_folder
from ser_batch.report.call_charts import day_of, shares_by_day
from ser_batch.report.scored_run import ScoredRun, read_run, write_run
from ser_batch.storage.paths import to_path


def calls_of(*rows: tuple[str, int, float | None, float | None]) -> pl.DataFrame:
    """Calls with path, channel, priority and where to listen."""
    schema = {"path": pl.String, "channel": pl.Int16, "priority": pl.Float64, "listen_at_s": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(content_hash=pl.col("path"))


@pytest.fixture
def recordings(tmp_path):
    """A folder with a minute of two channels that rise from 0 to 6 tenths, and files that cannot be used."""
    root = tmp_path / "calls #1"
    root.mkdir()
    seconds = np.arange(60 * 8000) / 8000
    tones = np.sin(seconds * 2000) * seconds / 100
    soundfile.write(root / "a?b%41.wav", np.column_stack([tones, 0 * tones]), 8000)
    soundfile.write(root / "three.wav", np.column_stack([0 * tones, 0 * tones, tones]), 8000)
    (root / "broken.wav").write_bytes(b"RIFF, or not")
    return root


def test_a_link_is_relative_encoded_and_begins_where_to_listen(recordings, tmp_path):
    calls = calls_of(("a?b%41.wav", 0, 0.5, 8.25), ("a.aiff", 0, 0.4, 1.0))
    sound = call_audio(calls, {"root": str(recordings)}, tmp_path / "out" / "preds.report.html", "link")
    assert sound.address("a?b%41.wav", 0, 8.25) == "../calls%20%231/a%3Fb%2541.wav#t=8.2"
    assert sound.address("a.aiff", 0, 1.0) is None  # no browser plays it
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_not_utf8_is_found(tmp_path):
    root = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(root)  # noqa: PTH102 - pathlib knows no bytes
    for name in (b"\xfe.wav", rb"\xfe\xfd.wav"):  # the other has backslashes
        with open(root + b"/" + name, "wb"):  # noqa: PTH123
            pass
    calls = calls_of((r"\xfe.wav", 0, None, None), (r"\xfe\xfd.wav", 0, None, None))
    sound = call_audio(calls, {"root": f"{tmp_path}/\\xff"}, tmp_path / "page.html", "link")
    addresses = [sound.address(path, 0, None) for path in calls["path"]]
    found = [unquote_to_bytes(address.partition("#")[0]) for address in addresses if address]
    assert found == [b"\xff/\xfe.wav", rb"".join([b"\xff/", rb"\xfe\xfd.wav"])]


@pytest.mark.parametrize(
    ("settings", "playback", "why"),
    [
        ({}, "link", "not beside the table"),
        ({"root": "/no/such/folder"}, "clips", "/no/such/folder is not there any more"),
        ({"root": "s3://bucket/calls"}, "clips", "object store"),
        ({"root": "/"}, "none", "without audio"),
    ],
)
def test_where_there_is_nothing_to_play_the_page_says_so(settings, playback, why, tmp_path):
    sound = call_audio(calls_of(("a.wav", 0, 0.5, 1.0)), settings, tmp_path / "preds.report.html", playback)
    assert sound.address("a.wav", 0, 1.0) is None
    assert why in sound.why
    assert not list(tmp_path.iterdir())


def test_excerpts_are_20_s_around_where_to_listen_and_named_by_a_hash(recordings, tmp_path):
    page = tmp_path / "preds.report.html"
    calls = calls_of(
        ("a?b%41.wav", 0, 0.9, 13.0), ("three.wav", 2, 0.8, 1.0), ("broken.wav", 0, 0.7, 1.0),
        ("a?b%41.wav", 1, 0.6, 90.0), ("gone.wav", 0, 0.5, 1.0), ("three.wav", 0, None, None),
    )  # fmt: skip
    settings = {"root": str(recordings)}
    sound = call_audio(calls, settings, page, "clips")
    folder = clips_folder(page)
    assert folder.name == "preds.audio"
    assert sound.clips is not None
    first, third = sound.clips["a?b%41.wav", 0], sound.clips["three.wav", 2]
    assert isinstance(first, tuple)
    assert isinstance(third, tuple)
    assert sorted(file.name for file in folder.iterdir()) == sorted((first[0], third[0]))
    samples, rate = soundfile.read(folder / first[0])
    assert (first[1], third[1]) == (10.0, 0.0)
    assert len(samples) / rate == pytest.approx(20, abs=0.1)
    assert samples.shape[1] == 2
    assert abs(samples[:rate, 0]).max() == pytest.approx(0.11, abs=0.02)  # from 10 s on
    assert abs(samples[-rate:, 0]).max() == pytest.approx(0.30, abs=0.02)
    assert soundfile.info(folder / first[0]).subtype == "OPUS"
    assert soundfile.info(folder / third[0]).channels == 1  # the one that the call is of
    for path, channel, why in (
        ("broken.wav", 0, "broken.wav"),
        ("a?b%41.wav", 1, "ends before"),
        ("gone.wav", 0, "gone"),
    ):
        assert why in str(sound.clips[path, channel])
    assert ("three.wav", 0) not in sound.clips
    # another night: what is there is kept, what is not played any more goes, what is not ours stays
    (folder / "mine.ogg").touch()
    before = (folder / third[0]).stat().st_mtime_ns
    again = call_audio(calls.filter(pl.col("path") == "three.wav"), settings, page, "clips")
    assert again.clips == {("three.wav", 2): third}
    assert sorted(file.name for file in folder.iterdir()) == sorted(("mine.ogg", third[0]))
    assert (folder / third[0]).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("path", "day"),
    [
        ("2026-03-01/call.wav", "2026-03-01"),
        ("inbox/20260301_0815.wav", "2026-03-01"),
        ("inbox/20260301081530.wav", "2026-03-01"),
        ("2026/03/01/call.wav", "2026-03-01"),
        ("2026-03-01/call of 2026-03-02.wav", "2026-03-02"),
        ("2026-02-30.wav", None),
        ("20261301.wav", None),
        ("120260301.wav", None),
        ("202603011.wav", None),
        ("2026-0301.wav", None),
        ("call.wav", None),
    ],
)
def test_the_day_of_a_call_is_the_last_date_in_its_path(path, day):
    assert day_of(path) == day


def test_days_are_weighed_by_speech_and_one_day_is_no_chart():
    calls = pl.DataFrame(
        {"share_sad": [1.0, 0.0, None, 0.5], "share_calm": [0.0, 1.0, None, 0.5], "speech_s": [3.0, 1.0, 9.0, 1.0]}
    )
    days = ["2026-03-01", "2026-03-01", "2026-03-01", "2026-03-02"]
    latest, earlier = shares_by_day(calls, days, ["sad", "calm"])
    assert (latest["day"], latest["calls"], earlier["calls"]) == ("2026-03-02", 1, 3)
    assert [(piece["label"], piece["width"]) for piece in earlier["pieces"]] == [("sad", 75.0), ("calm", 25.0)]
    assert shares_by_day(calls, ["2026-03-01", None, None, "2026-03-01"], ["sad", "calm"]) == []


def test_new_is_what_came_since_the_last_page(tmp_path):
    (tmp_path / "_meta").mkdir()
    first_new = []
    for last_part in (3, 3, 5, 5, 6):
        run = ScoredRun(model="open", model_id="m", accuracy="", license="", last_part=last_part, first_new_part=1)
        write_run(tmp_path, run)
        written = read_run(tmp_path)
        assert written is not None
        first_new.append(written.first_new_part)
    assert first_new == [1, 1, 4, 4, 6]


def test_excerpts_of_a_page_in_a_store_are_beside_it(recordings):
    page = to_path("memory://night/preds.report.html")
    calls = calls_of(("three.wav", 2, 0.8, 1.0))
    none = call_audio(calls.clear(), {"root": str(recordings)}, page, "clips")
    assert none.clips == {}
    sound = call_audio(calls, {"root": str(recordings)}, page, "clips")
    address = sound.address("three.wav", 2, 1.0)
    assert address is not None
    assert (page.parent / address).read_bytes().startswith(b"OggS")
    assert "--playback clips" in call_audio(calls, {"root": str(recordings)}, page, "link").why
