"""The made-up corpus: its names, the same bytes every time, and emotions that a model learns, not all."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import soundfile
from helpers import contents
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_batch.errors import OutputError, UsageError
from ser_batch.synth import SynthSummary, synth

NEUTRAL, CALM, HAPPY, SAD, ANGRY, FEARFUL, DISGUST, SURPRISED = range(1, 9)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return synth(tmp_path_factory.mktemp("synth") / "audio")


@pytest.fixture(scope="module")
def clips(corpus):
    """Samples and codes of every recording, in the order of the names."""
    return [
        (soundfile.read(path)[0], [int(code) for code in path.stem.split("-")])
        for path in sorted(corpus.out.rglob("*.wav"))
    ]


def spectra(samples: np.ndarray, size: int = 1024) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 4]
    return np.abs(np.fft.rfft(frames * np.hanning(size), 2 * size)) ** 2


def pitch_hz(samples: np.ndarray, sampling_rate: int = 16000) -> float:
    """Median over the louder frames of the highest peak of the autocorrelation between 60 and 600 Hz."""
    power = spectra(samples)
    power = power[power.sum(axis=1) > np.median(power.sum(axis=1))]
    correlation = np.fft.irfft(power**0.25)  # compressed, or a formant would win over the pitch
    shortest, longest = sampling_rate // 600, sampling_rate // 60
    return float(np.median(sampling_rate / (shortest + correlation[:, shortest:longest].argmax(axis=1))))


def level_dbfs(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples**2)))


def mean_by(clips, figure, position: int) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for samples, codes in clips:
        values.setdefault(codes[position], []).append(figure(samples))
    return {key: float(np.mean(value)) for key, value in values.items()}


def cepstrum(samples: np.ndarray) -> np.ndarray:
    """Mean and deviation of 20 cepstral coefficients of bands that are about equally wide in octaves."""
    edges = np.unique(np.geomspace(8, 1024, 33).astype(int))
    bands_db = 10 * np.log10(np.add.reduceat(spectra(samples), edges[:-1], axis=1) + 1e-9)
    coefficients = scipy.fft.dct(bands_db, norm="ortho")[:, :20]
    return np.concatenate([coefficients.mean(axis=0), coefficients.std(axis=0)])


def test_names_and_counts(corpus, clips):
    paths = sorted(corpus.out.rglob("*"))
    names = [path.name for path in paths if path.is_file()]
    audio_s: Any = pytest.approx(sum(len(s) for s, _ in clips) / 16000)
    assert corpus == SynthSummary(out=corpus.out, n_recordings=240, audio_s=audio_s)
    assert len(names) == len(set(names)) == 240
    assert [path.name for path in paths if path.is_dir()] == ["Actor_01", "Actor_02", "Actor_03", "Actor_04"]
    pattern = r"03-01-(01-01|0[2-8]-0[12])-0[12]-0[12]-0[1-4]\.wav"
    assert all(re.fullmatch(pattern, name) for name in names)
    assert all(path.parent.name == f"Actor_{path.stem[-2:]}" for path in paths if path.is_file())
    assert Counter(codes[2] for _, codes in clips) == {1: 16, **dict.fromkeys(range(2, 9), 32)}


def test_sound_format(corpus, clips):
    for path in list(corpus.out.rglob("*.wav"))[::20]:
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, 16000)
    for samples, _ in clips:
        assert 1.15 < len(samples) / 16000 < 2.25
        assert np.abs(samples).max() < 0.95  # nothing is clipped
        assert -80 < level_dbfs(samples[:1200]) < -65  # a quiet room, not digital silence
        assert level_dbfs(samples) > -55


def test_the_same_call_gives_the_same_bytes(tmp_path):
    first, again = (synth(tmp_path / name, actors=1, repetitions=1, seed=7) for name in ("first", "again"))
    assert contents(first.out) == contents(again.out)
    assert (first.n_recordings, first.audio_s) == (again.n_recordings, again.audio_s)


def test_a_clip_does_not_depend_on_how_many_others_there_are(corpus, tmp_path):
    smaller = contents(synth(tmp_path / "smaller", actors=2, repetitions=1).out)
    assert len(smaller) == 2 * 30
    assert smaller.items() <= contents(corpus.out).items()


def test_another_seed_and_every_clip_differ(corpus, tmp_path):
    mine, other = (
        contents(corpus.out),
        contents(synth(tmp_path / "b", actors=1, repetitions=1, seed=1).out),
    )
    assert len(set(mine.values())) == 240
    assert not set(mine.values()) & set(other.values())
    assert other.keys() < mine.keys()


@pytest.mark.parametrize("sampling_rate", [8000, 22050, 96000])
def test_other_sampling_rates(tmp_path, sampling_rate):
    summary = synth(tmp_path, actors=1, repetitions=1, sampling_rate=sampling_rate)
    path = next(tmp_path.rglob("*.wav"))
    samples, found = soundfile.read(path)
    assert found == sampling_rate
    assert np.isfinite(samples).all()
    assert 30 * 1.2 < summary.audio_s < 30 * 2.2


def test_emotions_go_where_the_literature_says(clips):
    levels, pitches = mean_by(clips, level_dbfs, 2), mean_by(clips, pitch_hz, 2)
    lengths = mean_by(clips, len, 2)
    assert levels[ANGRY] > levels[HAPPY] > levels[NEUTRAL] > levels[CALM] > levels[SAD]
    assert levels[ANGRY] - levels[SAD] > 12
    assert min(pitches[FEARFUL], pitches[SURPRISED], pitches[HAPPY]) > 1.15 * pitches[NEUTRAL]
    assert pitches[FEARFUL] > 1.3 * pitches[SAD]
    assert lengths[ANGRY] < lengths[NEUTRAL] < lengths[SAD]


def test_surprise_rises_and_anger_falls(clips):
    def rise(samples: np.ndarray) -> float:
        half = len(samples) // 2
        return np.log2(pitch_hz(samples[half:]) / pitch_hz(samples[:half]))

    rises = mean_by(clips, rise, 2)
    assert rises[SURPRISED] > 0.1 > -0.05 > rises[ANGRY]


def test_strong_intensity_exaggerates(clips):
    angry = [clip for clip in clips if clip[1][2] == ANGRY]
    sad = [clip for clip in clips if clip[1][2] == SAD]
    assert mean_by(angry, level_dbfs, 3)[2] > mean_by(angry, level_dbfs, 3)[1]
    assert mean_by(sad, level_dbfs, 3)[2] < mean_by(sad, level_dbfs, 3)[1]


def test_women_are_higher_than_men(clips):
    pitches = mean_by([clip for clip in clips if clip[1][2] == NEUTRAL], pitch_hz, 6)
    assert min(pitches[2], pitches[4]) > 1.2 * max(pitches[1], pitches[3])


def test_a_simple_model_learns_but_not_everything(clips):
    features = np.array([cepstrum(samples) for samples, _ in clips])
    emotions = np.array([codes[2] for _, codes in clips])
    actors = np.array([codes[6] for _, codes in clips])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    random_split = cross_val_predict(model, features, emotions, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    held_out = cross_val_predict(model, features, emotions, groups=actors, cv=GroupKFold(4))
    assert np.mean(random_split == emotions) > 0.6  # chance is 0.13
    assert 0.35 < np.mean(held_out == emotions) < 0.95


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("actors", value) for value in (0, 25, -1)),
        *(("repetitions", value) for value in (0, 3)),
        *(("sampling_rate", value) for value in (7999, 96001)),
        *(("seed", value) for value in (-1, 2**32)),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, option, value):
    with pytest.raises(UsageError, match=rf"{option} is {value}: give a whole number from \d+ to \d+"):
        synth(tmp_path / "new", **{option: value})
    assert not (tmp_path / "new").exists()


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        synth(tmp_path, actors=1, repetitions=1)
    assert contents(tmp_path) == {"deep/notes.txt": b"mine"}


def test_overwrite_replaces_its_own_names_only(tmp_path):
    own, beside = "Actor_01/03-01-05-02-01-01-01.wav", "Actor_01/03-01-05-02-01-02-01.wav"
    (tmp_path / "Actor_01").mkdir()
    for name in (own, beside, "notes.txt"):
        (tmp_path / name).write_bytes(b"mine")
    synth(tmp_path, actors=1, repetitions=1, overwrite=True)
    found = contents(tmp_path)
    assert found[beside] == found["notes.txt"] == b"mine"
    assert found[own].startswith(b"RIFF")
    assert len(found) == 30 + 2


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match="cannot be made"):
        synth(tmp_path / "file", actors=1, repetitions=1)
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_failed_write_leaves_no_half_file(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        synth(tmp_path, actors=1, repetitions=1)
    assert contents(tmp_path) == {}
