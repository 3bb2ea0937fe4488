"""The picture of a recording: what it shows is what the recording holds and what score says."""

import json
import re
import struct
import sys
import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner

from ser_batch.cli.commands import cli
from ser_batch.config.options import ScoreOptions
from ser_batch.errors import InputError, RecordingError, UsageError
from ser_batch.plot import MFCC_COLUMNS, PREDICTION_COLUMNS, WAVEFORM_COLUMNS, look, plot, rendered, specification
from ser_batch.scoring.run import score


@pytest.fixture(scope="module")
def call(small_corpus, tmp_path_factory):
    """A stereo call of 32 s: speech, 5 s of silence, speech; on channel 1 at half the level."""
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:20]])[::2]
    voice = np.concatenate((voice[: 15 * 8000], np.zeros(5 * 8000), voice[15 * 8000 :]))[: 32 * 8000]
    voice[8000] = 0.95
    path = tmp_path_factory.mktemp("calls") / "call.wav"
    soundfile.write(path, np.stack((voice, voice[::-1] / 2), axis=1), 8000)
    return path


@pytest.fixture(scope="module")
def seen(call):
    return look(call, model="fast")


def test_the_waveform_is_the_least_and_largest_sample_of_each_column(call, seen):
    samples, rate = soundfile.read(call, dtype="float32")
    wave = pl.DataFrame(seen.waveform)
    assert len(wave) == WAVEFORM_COLUMNS
    assert seen.duration_s == len(samples) / rate == wave["end_s"].max()
    for row in wave.sample(40, seed=1).iter_rows(named=True):
        own = samples[round(row["start_s"] * rate) : round(row["end_s"] * rate), 0]
        assert (row["low"], row["high"]) == (own.min(), own.max())
    assert max(wave["high"]) == pytest.approx(0.95, abs=1e-4)


def test_another_channel_and_the_mean_are_others(call, seen):
    second, mixed = look(call, model="fast", channel="1"), look(call, model="research", channel="mix")
    assert (seen.channel, second.channel, mixed.channel) == (0, 1, -1)
    assert max(second.waveform["high"]) < 0.5
    samples = soundfile.read(call)[0].mean(axis=1)
    assert max(mixed.waveform["high"]) == pytest.approx(samples.max(), abs=1e-4)


def test_silence_is_what_is_no_speech(seen):
    longest = max(zip(seen.silence["start_s"], seen.silence["end_s"], strict=True), key=lambda pair: pair[1] - pair[0])
    assert longest[0] <= 15.5
    assert longest[1] >= 19.5
    assert all(end > start for start, end in zip(seen.silence["start_s"], seen.silence["end_s"], strict=True))


def test_silence_ends_with_the_recording(call, tmp_path):
    samples, rate = soundfile.read(call)
    soundfile.write(tmp_path / "a.wav", np.concatenate((samples[: 2 * rate, 0], np.zeros(rate + 1))), rate)
    seen = look(tmp_path / "a.wav", model="fast")
    assert seen.silence["end_s"][-1] == seen.duration_s == 3 + 1 / rate


@pytest.fixture(scope="module")
def windows(call, tmp_path_factory):
    """What score says of the first channel."""
    options = ScoreOptions(out=tmp_path_factory.mktemp("windows") / "p.parquet", model="fast", channels="0", jobs=1)
    score(call, options)
    return pl.read_parquet(options.out)


def test_probabilities_are_those_of_score(seen, windows):
    scored = windows.drop_nulls("predicted")
    shown = pl.DataFrame(seen.predictions)
    assert len(shown) == 6 * len(scored) > 0
    for label in seen.model.labels:
        np.testing.assert_allclose(shown.filter(label=label)["probability"], scored[f"p_{label}"], rtol=0, atol=1e-6)
    assert shown.filter("is_highest")["label"].to_list() == scored["predicted"].to_list()
    # each stands for the middle of its window, so neighbours meet
    middles = ((scored["start_s"] + scored["end_s"]) / 2).to_numpy()
    bars = shown.filter(label="angry")
    assert ((bars["start_s"].to_numpy() <= middles) & (middles <= bars["end_s"].to_numpy())).all()


def test_a_bar_of_several_windows_is_the_mean_of_those_that_were_scored(call, windows, monkeypatch):
    monkeypatch.setattr("ser_batch.plot.PREDICTION_COLUMNS", 8)
    pairs = windows.with_columns(pair=pl.col("segment") // 2)
    assert windows["predicted"].null_count()
    shown = pl.DataFrame(look(call, model="fast").predictions).filter(label="sad")["probability"]
    means = pairs.drop_nulls("predicted").group_by("pair", maintain_order=True).agg(pl.col("p_sad").mean())["p_sad"]
    np.testing.assert_allclose(shown, means, rtol=0, atol=1e-6)


def test_mfccs_cover_the_recording_and_are_around_zero(seen):
    mfcc = pl.DataFrame(seen.mfcc)
    assert mfcc["coefficient"].n_unique() == 40
    assert mfcc["start_s"].n_unique() == MFCC_COLUMNS
    assert mfcc["end_s"].max() == pytest.approx(seen.duration_s)
    means = mfcc.group_by("coefficient").agg(pl.col("value").mean())["value"]
    assert means.abs().to_numpy().max() < 0.1


@pytest.mark.slow
def test_a_long_recording_has_as_many_columns_as_a_short_one(small_corpus, tmp_path):
    first = soundfile.read(next(iter(sorted(small_corpus.rglob("*.wav")))))[0][::2]
    soundfile.write(tmp_path / "long.wav", np.resize(first, 15 * 60 * 8000), 8000)
    seen = look(tmp_path / "long.wav", model="fast")
    assert len(seen.waveform["low"]) == WAVEFORM_COLUMNS
    assert len(seen.mfcc["value"]) == MFCC_COLUMNS * 40
    # 15 minutes have 445 windows
    assert PREDICTION_COLUMNS / 2 < len(seen.predictions["label"]) / 6 <= PREDICTION_COLUMNS
    sums = pl.DataFrame(seen.predictions).group_by("start_s").agg(pl.col("probability").sum())["probability"]
    assert sums.to_numpy() == pytest.approx(1)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_the_command_writes_each_format(suffix, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = [] if suffix == ".html" else ["--out", f"pictures/call{suffix}"]
    result = CliRunner().invoke(cli, ["plot", str(call), "--model", "fast", *out])
    assert result.exit_code == 0, result.output
    assert f"call{suffix}: channel 0 of call.wav, 32.0 s" in result.stdout
    assert "commercial use allowed" in result.stdout
    path = tmp_path / "call.html" if suffix == ".html" else tmp_path / "pictures" / f"call{suffix}"
    contents = path.read_bytes()
    if suffix == ".png":
        assert contents[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", contents[16:24])) > 1000
    elif suffix == ".svg":
        texts = {element.text for element in ET.fromstring(contents).iter() if element.tag.endswith("text")}
        assert {"call.wav", "channel 0 of 2, 8000 Hz, 32.0 s", "angry", "sad", "time, seconds"} <= texts
    else:
        text = contents.decode()
        assert not re.search(r"<(script|link)[^>]*(src|href)=", text)
        assert text.count("</script>") == 2
    assert not list(tmp_path.rglob(".*"))


def test_names_are_text(tmp_path, small_corpus):
    name = "<!--<script>alert(1)&\x1b[31m.wav"
    (tmp_path / name).write_bytes(min(small_corpus.rglob("*.wav")).read_bytes())
    chart = specification(look(tmp_path / name, model="fast"))
    assert chart["title"]["text"] == "<!--<script>alert(1)&\\x1b[31m.wav"
    page = rendered(chart, ".html").decode()
    assert "<!--<script>" not in page
    assert "\\u003c!--\\u003cscript>alert" in page
    assert "&lt;script&gt;" in rendered(chart, ".svg").decode()


def test_a_picture_is_as_small_as_its_columns(seen):
    assert len(json.dumps(specification(seen))) < 2_000_000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"channel": "2"}, r"--channel 2: call\.wav has 2, numbered from 0"),
        ({"channel": "left"}, r"--channel left; expected the number of a channel, from 0, or mix"),
        ({"model": "nothing"}, r"--model nothing: no such folder"),
    ],
)
def test_what_is_not_there_is_wrong_usage(arguments, expected, call):
    with pytest.raises(UsageError, match=expected):
        look(call, **arguments)


def test_what_is_no_recording_is_said_so(call, tmp_path):
    with pytest.raises(UsageError, match="is a folder; expected one recording"):
        look(call.parent)
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(InputError, match=r"notes\.txt"):
        look(tmp_path / "notes.txt")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(RecordingError, match=r"broken\.wav"):
        look(tmp_path / "broken.wav", model="fast")


@pytest.mark.parametrize("out", ["call.pdf", "call", "call.wav"])
def test_other_formats_are_refused_before_anything_is_read(out, call, tmp_path):
    result = CliRunner().invoke(cli, ["plot", str(call), "--out", str(tmp_path / out)])
    assert result.exit_code == 2
    assert "expected a name that ends in .html, .png, .svg" in result.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_without_the_extra_a_page_is_written_and_a_picture_refused_at_once(suffix, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # an import of it fails, as where it is not installed
    result = CliRunner().invoke(cli, ["plot", "nothing.wav", "--out", str(tmp_path / f"call{suffix}")])
    assert result.exit_code == 2
    assert f"plot to {suffix} needs vl-convert-python" in result.stderr
    assert 'pip install "ser-batch[plots]"' in result.stderr
    assert not any(tmp_path.iterdir())
    plot(call, tmp_path / "call.html", model="fast")


@pytest.mark.slow
def test_real_recordings(shared, tmp_path):
    clip = min((shared / "ravdess" / "Actor_05").iterdir())
    for path in (clip, shared / "calls" / "call_40_caller.wav"):
        seen = look(path)
        assert seen.silence["start_s"]
        assert seen.predictions["label"]
        assert len(rendered(specification(seen), ".png")) > 20_000
