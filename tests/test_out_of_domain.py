"""The out-of-domain model: made-up sounds, learning from them, the model folder."""

import json
import shutil

import msgspec
import numpy as np
import polars as pl
import pytest
import soundfile

from ser_batch.audio.resampling import Resampler
from ser_batch.config.features import EncoderSpec, FeatureSpec
from ser_batch.config.segmentation import Segmentation
from ser_batch.encoder.model import load_encoder
from ser_batch.errors import InputError, ModelError, UsageError
from ser_batch.model.folder import load_model
from ser_batch.network.out_of_domain import Domain
from ser_batch.sounds import telephone
from ser_batch.sounds.kinds import KINDS, sound
from ser_batch.sounds.shaping import filtered, periodic, put, sine
from ser_batch.storage.installed import INSTALLED_ENCODERS
from ser_batch.tables.features import Features
from ser_batch.training import out_of_domain as learning
from ser_batch.training.out_of_domain import between, domain_of

RATE = 16000
MUSIC = ("band", "sustained", "struck", "modulated", "plucked", "drums", "pad", "lead")
SPEC = EncoderSpec(encoder="toy", source="none", revision="1", license="MIT", sha256="0" * 64, outputs=(1,), width=6)
SIZE = SPEC.embedding_size


# --- sounds that are made -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [8000, 22050])
def test_a_sound_is_the_same_for_the_same_seed_and_another_for_another(kind, rate):
    made = [sound(kind, np.random.default_rng(seed), seconds=0.6, sampling_rate=rate) for seed in (1, 1, 2)]
    for samples in made:
        assert samples.dtype == np.float32
        assert samples.shape == (round(0.6 * rate),)
        assert np.isfinite(samples).all()
        assert 0.009 < np.abs(samples).max() <= 1.0
    np.testing.assert_array_equal(made[0], made[1])
    assert np.abs(made[0] - made[2]).max() > 0.001


def test_a_sound_keeps_its_pitch_and_length_on_a_telephone_line(monkeypatch):
    monkeypatch.setitem(KINDS, "tones", lambda n, rate, _: sine(1000.0, n, rate))
    monkeypatch.setattr("ser_batch.sounds.kinds._LINES", ("g711",))
    samples = sound("tones", np.random.default_rng(0), seconds=1.0, sampling_rate=RATE)
    assert strongest_hz(samples, 1) == pytest.approx([1000], abs=1)
    assert np.abs(samples[-RATE // 10 :]).max() > 0.5 * np.abs(samples).max()


def strongest_hz(samples, n, rate=RATE):
    """The `n` strongest frequencies, apart from one another."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    hz, found = np.fft.rfftfreq(len(samples), 1 / rate), []
    for _ in range(n):
        found.append(hz[spectrum.argmax()])
        spectrum[np.abs(hz - found[-1]) < 30] = 0
    return sorted(found)


def test_a_key_of_a_telephone_is_a_row_and_a_column():
    samples = telephone.dtmf(2 * RATE, RATE, np.random.default_rng(3))
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    end = loud[np.flatnonzero(np.diff(loud) > 0.02 * RATE)[0]]
    low, high = strongest_hz(samples[loud[0] : end], 2)
    assert np.abs(np.subtract(telephone.DTMF_ROWS_HZ, low)).min() < 15
    assert np.abs(np.subtract(telephone.DTMF_COLUMNS_HZ, high)).min() < 15


@pytest.mark.parametrize("name", ["ringing, North America", "busy, Europe", "dial, Great Britain"])
def test_call_progress_has_the_frequencies_and_the_cadence_of_its_country(name, monkeypatch):
    frequencies_hz, pattern_s = telephone.CALL_PROGRESS[name]
    monkeypatch.setattr(telephone, "CALL_PROGRESS", {name: (frequencies_hz, pattern_s)})
    samples = telephone.call_progress(12 * RATE, RATE, np.random.default_rng(0))
    np.testing.assert_allclose(strongest_hz(samples, len(frequencies_hz)), frequencies_hz, rtol=0.021)
    on = sum(pattern_s[::2]) / sum(pattern_s) if pattern_s else 1.0
    blocks = np.abs(samples).reshape(-1, RATE // 50).max(axis=1)
    assert (blocks > 0.1).mean() == pytest.approx(on, abs=0.1)


def test_a_tone_has_no_harmonics_beyond_half_the_rate():
    strengths = np.ones(10)
    assert strongest_hz(periodic(3000.0, RATE, RATE, strengths), 2) == pytest.approx([3000, 6000], abs=1)
    spectrum = np.abs(np.fft.rfft(periodic(3000.0, RATE, RATE, strengths)))
    assert spectrum[[3000, 6000]].min() > 100 * np.delete(spectrum, [3000, 6000]).max()


def test_a_filter_takes_away_what_its_gain_says_and_nothing_comes_round():
    tone = sine(200, RATE, RATE) + sine(4000, RATE, RATE)
    np.testing.assert_allclose(
        filtered(tone, RATE, lambda hz: (hz < 1000).astype(float))[2000:-2000],
        sine(200, RATE, RATE)[2000:-2000],
        atol=0.01,
    )
    click = np.zeros(1000)
    click[-1] = 1
    delayed = filtered(click, RATE, lambda hz: np.ones(len(hz)))
    assert np.abs(delayed[:900]).max() < 1e-9


def test_what_does_not_fit_is_cut_off():
    out = np.zeros(5)
    put(out, np.ones(4), 3)
    put(out, np.ones(4), 9)
    assert out.tolist() == [0, 0, 0, 1, 1]


# --- what is learned ----------------------------------------------------------------------------------------------


def drawn(n, mean, seed):
    return np.random.default_rng(seed).normal(mean, 1, (n, SIZE)).astype(np.float32)


def features(groups, spec=SPEC):
    """Features of (corpus, embeddings) pairs."""
    rows = pl.DataFrame([{"dataset": name, "corpus": name} for name, values in groups for _ in range(len(values))])
    values = np.concatenate([values for _, values in groups])
    return Features(rows, values, np.full(len(rows), 50), spec, (Segmentation(),), 0)


def test_typical_speech_is_0_and_what_is_farther_than_the_limit_is_out():
    speech, sounds = drawn(300, 0, 1), drawn(200, 3, 2)
    domain = between(speech, sounds)
    assert np.median(domain.ood_score(speech)) == pytest.approx(0, abs=1e-4)
    assert np.median(domain.ood_score(sounds)) == pytest.approx(1 / learning.LIMIT, rel=1e-4)
    assert (domain.ood_score(drawn(500, 0, 3)) <= 1).all()
    assert (domain.ood_score(drawn(500, 3, 4)) > 1).all()


def test_other_speech_is_inside_however_unlike_the_training_data_it_is():
    """A distance would refuse it: it is ten deviations away, though not towards the sounds."""
    to_sounds, cross_corpus = np.zeros(SIZE), np.zeros(SIZE)
    to_sounds[0], cross_corpus[1] = 8, 10
    domain = between(drawn(300, 0, 1), drawn(200, to_sounds, 2))
    assert (domain.ood_score(drawn(200, cross_corpus, 3)) <= 1).all()


def test_a_number_that_never_changes_tells_nothing():
    speech, sounds = drawn(50, 0, 1), drawn(50, 3, 2)
    speech[:, 0] = sounds[:, 0] = 7
    assert np.isfinite(between(speech, sounds).ood_score(speech)).all()


def test_each_corpus_counts_the_same_however_small_it_is(monkeypatch):
    large, small = drawn(2000, 0, 1), drawn(20, 5, 2)
    seen: dict[str, np.ndarray] = {}
    monkeypatch.setattr(learning, "sounds_embedding", lambda spec, place: drawn(100, 9, 3))
    monkeypatch.setattr(learning, "between", lambda speech, sounds: seen.update(speech=speech))
    domain_of(features([("large", large), ("small", small)]), np.arange(2020))
    assert len(seen["speech"]) <= learning.MAX_ROWS
    assert seen["speech"].mean() == pytest.approx(2.5, abs=0.2)


def test_only_the_rows_of_the_training_count(monkeypatch):
    monkeypatch.setattr(learning, "sounds_embedding", lambda spec, place: drawn(100, 9, 3))
    data = features([("a", drawn(50, 0, 1)), ("b", drawn(50, 100, 2))])
    assert domain_of(data, np.arange(50)) == between(data.embedding[:50], drawn(100, 9, 3))


def test_mfccs_and_encoders_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="features are MFCCs"):
        domain_of(features([("a", np.zeros((4, 10, 3), dtype=np.float32))], FeatureSpec(n_mfcc=3)), np.arange(4))
    with pytest.raises(UsageError, match="toy"):
        domain_of(features([("a", drawn(4, 0, 1))]), np.arange(4))


# --- real speech --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embed():
    loaded = load_encoder(INSTALLED_ENCODERS["whisper-tiny.en"])

    def embed(samples):
        segment = loaded.segment()
        segment.feed(samples)
        return segment.finish().values

    return embed


@pytest.fixture(scope="module")
def made(embed):
    """Embeddings of two sounds of each kind."""
    return {
        kind: np.stack(
            [embed(sound(kind, np.random.default_rng(seed), seconds=3, sampling_rate=RATE)) for seed in (1, 2)]
        )
        for kind in KINDS
    }


def spoken(folder, n, embed):
    """Embeddings of `n` recordings of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac", ".opus"))
    found = []
    for path in paths[:: len(paths) // n][:n]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        found.append(embed(Resampler(rate, RATE).feed(samples.mean(axis=1), last=True)))
    return np.stack(found)


def test_unknown_music_is_refused_and_speech_of_another_corpus_is_not(shared, embed, made):
    noises = np.concatenate([values for kind, values in made.items() if kind not in MUSIC])
    domain = between(spoken(shared / "emodb", 40, embed), noises)
    assert (domain.ood_score(spoken(shared / "ravdess", 20, embed)) <= 1).all()
    assert (domain.ood_score(np.concatenate([made[kind] for kind in MUSIC])) > 1).all()


def test_the_sounds_are_those_of_the_encoder_and_made_once(embed, monkeypatch):
    monkeypatch.setattr(learning, "KINDS", {"dtmf": KINDS["dtmf"]})
    monkeypatch.setattr(learning, "SOUNDS_PER_KIND", 2)
    learning.sounds_embedding.cache_clear()
    try:
        spec = load_encoder(INSTALLED_ENCODERS["whisper-tiny.en"]).spec
        found = learning.sounds_embedding(spec, spec.encoder)
        expected = [
            embed(sound("dtmf", np.random.default_rng((learning.SEED, 0, i)), seconds=4.04, sampling_rate=RATE))
            for i in (0, 1)
        ]
        np.testing.assert_array_equal(found, expected)
        assert learning.sounds_embedding(spec, spec.encoder) is found
    finally:
        learning.sounds_embedding.cache_clear()


# --- what a model keeps -------------------------------------------------------------------------------------------


@pytest.fixture
def kept(small_heads, tmp_path):
    """A model folder whose model.json is given a domain."""
    folder = tmp_path / "model"
    shutil.copytree(small_heads, folder)

    def keep(values):
        path = folder / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"domain": values}))
        return load_model(folder)

    return keep


def test_a_model_keeps_its_domain(kept, small_heads):
    size = load_model(small_heads).n_numbers
    domain = between(
        np.random.default_rng(1).normal(0, 1, (20, size)).astype(np.float32),
        np.random.default_rng(2).normal(3, 1, (20, size)).astype(np.float32),
    )
    assert kept(msgspec.structs.asdict(domain)).domain == domain
    assert isinstance(kept(msgspec.structs.asdict(domain)).domain, Domain)
    assert kept(None).domain is None
    assert load_model(small_heads).domain is None


@pytest.mark.parametrize(
    "change",
    [
        {"direction": [0.0] * 3},
        {"direction": "far"},
        {"direction": [True]},
        {"offset": None},
        {"offset": 1e7},
        {"limit": 1.0},
    ],
)
def test_a_domain_that_cannot_be_is_named_with_its_file(kept, small_heads, change):
    values = {"direction": [0.0] * load_model(small_heads).n_numbers, "offset": 0.0} | change
    with pytest.raises(ModelError, match=r"model\.json: domain"):
        kept(values)
    with pytest.raises(ModelError, match=r"model\.json: domain"):
        kept([1.0])
