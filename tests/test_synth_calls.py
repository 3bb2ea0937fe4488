"""Made-up calls: who says what when, the same bytes again, and stretches that the labels find."""

import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner

from ser_batch.cli.commands import cli
from ser_batch.errors import OutputError, UsageError
from ser_batch.synth_calls import AGENTS, synth_calls


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Eight calls: one course of all."""
    folder = tmp_path_factory.mktemp("made") / "calls"
    return synth_calls(folder, calls=8)


def test_calls_are_stereo_mu_law_in_folders_of_days(made):
    files = sorted(made.out.rglob("*.wav"))
    assert [path.parent.name for path in files] == [
        "2026-03-02", "2026-03-02", "2026-03-03", "2026-03-03", "2026-03-04", "2026-03-05", "2026-03-05", "2026-03-06"
    ]  # fmt: skip
    infos = [soundfile.info(path) for path in files]
    assert {(info.samplerate, info.channels, info.subtype) for info in infos} == {(8000, 2, "ULAW")}
    assert all(60 <= info.duration < 100 for info in infos)
    assert made.n_recordings == 8
    assert made.audio_s == pytest.approx(sum(info.duration for info in infos), abs=0.01)


def test_labels_cover_each_call_and_speech_is_where_they_say(made):
    labels = pl.read_csv(made.out / "labels.csv")
    emotional = labels.filter(pl.col("emotion") != "neutral")
    assert sorted(emotional["emotion"]) == ["angry", "angry", "happy", "sad"]
    assert set(emotional["channel"]) == {1}
    assert (emotional["end_s"] - emotional["start_s"]).is_between(15, 18).all()
    for (path,), own in labels.group_by("path"):
        samples, rate = soundfile.read(made.out / str(path))
        ordered = own.sort("start_s")
        assert ordered["start_s"][0] == 0
        assert (ordered["end_s"].head(-1) == ordered["start_s"].tail(-1)).all()
        for channel, start_s, end_s in ordered.select("channel", "start_s", "end_s").rows():
            part = samples[round(start_s * rate) : round(end_s * rate)]
            speaker, other = part[:, channel].std(), part[:, 1 - channel].std()
            assert speaker > 10 * other > 0


def test_the_same_arguments_give_the_same_calls_whatever_their_number(made, tmp_path):
    synth_calls(tmp_path, calls=2)
    for number in (1, 2):
        (one,), (other,) = (list(folder.rglob(f"call-000{number}.wav")) for folder in (made.out, tmp_path))
        assert one.read_bytes() == other.read_bytes()
    synth_calls(tmp_path / "other", calls=1, seed=1)
    (other,) = (tmp_path / "other").rglob("*.wav")
    assert other.read_bytes() != one.read_bytes()


def test_the_command_says_what_it_made_and_refuses_a_folder_in_use(tmp_path):
    run = CliRunner().invoke
    first = run(cli, ["synth", str(tmp_path / "calls"), "--calls", "1"])
    assert first.exit_code == 0, first.output
    assert "1 made-up recording, 1." in first.output
    again = run(cli, ["synth", str(tmp_path / "calls"), "--calls", "1"])
    assert again.exit_code == 1
    assert "holds files" in again.output
    with pytest.raises(UsageError, match="calls is out of range"):
        synth_calls(tmp_path / "none", calls=0)
    with pytest.raises(OutputError):
        synth_calls(tmp_path / "calls", calls=1)


def test_agents_are_few_and_customers_are_others():
    assert len(AGENTS) < 10
    assert np.intersect1d(AGENTS, range(5, 25)).size == 0
