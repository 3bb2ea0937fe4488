"""The numeric kernel against librosa, which defines it: signals, lengths, chunks, and whole files of every kind."""

import functools
import random
from pathlib import Path

import librosa
import msgspec
import numpy as np
import pytest
import scipy.fft
import soundfile
from helpers import reader_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.config.features import PRESETS, FeatureSpec
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.walk import walk
from ser_batch.mfcc import kernel, mel_filterbank
from ser_batch.segments.front_ends import front_end
from ser_batch.segments.segmenter import segments

ALLOWED = 1e-2  # what the project promises; the kernel alone stays within a tenth of it
SPECS = pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in PRESETS.items()])
quick = settings(max_examples=12, deadline=None)

pytestmark = [
    # librosa says so of clips shorter than a frame; the numbers are right all the same
    pytest.mark.filterwarnings("ignore:n_fft=.* is too large for input signal"),
]


def librosa_mfcc(samples: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """MFCCs by librosa, frames first, cut as a segment is."""
    mel = librosa.feature.melspectrogram(
        y=samples,
        sr=spec.sampling_rate,
        n_fft=spec.n_fft,
        win_length=spec.win_length,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
    )
    reference, amin = (np.max, 1e-20) if spec.level == "peak" else (1.0, 1e-10)
    decibels = librosa.power_to_db(mel, ref=reference, amin=amin, top_db=spec.top_db)
    coefficients = librosa.feature.mfcc(S=decibels, n_mfcc=spec.n_mfcc)
    return coefficients.T[: spec.n_frames]


def noise(n: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(n).standard_normal(n)).astype(np.float32)


def sine(n: int) -> np.ndarray:
    return (0.5 * np.sin(0.1 * np.arange(n))).astype(np.float32)


def silence(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.float32)


def impulse(n: int) -> np.ndarray:
    samples = silence(n)
    samples[n // 3] = 1
    return samples


def loud_end(n: int) -> np.ndarray:
    """Nearly silent but for its last tenth: in long clips the peak, and so the floor, lies past the kept frames."""
    samples = 1e-4 * noise(n)
    samples[-(n // 10 + 1) :] += sine(n // 10 + 1)
    return samples


SIGNALS = [noise, sine, silence, impulse, loud_end]


@SPECS
def test_the_mel_filterbank_is_librosas(spec):
    expected = librosa.filters.mel(sr=spec.sampling_rate, n_fft=spec.n_fft, n_mels=spec.n_mels)

    assert mel_filterbank(spec).shape == expected.shape == (spec.n_mels, spec.n_fft // 2 + 1)
    np.testing.assert_allclose(mel_filterbank(spec), expected, rtol=1e-6, atol=1e-9)


@SPECS
@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.__name__)
@pytest.mark.parametrize("length", [1, 2, 511, 512, 2047, 2048, 2049, 1.0, 4.04, 20.0])
def test_mfccs_of_any_length_are_librosas(spec, signal, length):
    samples = signal(round(length * spec.sampling_rate) if isinstance(length, float) else length)

    mfcc, expected = kernel(spec).mfcc(samples), librosa_mfcc(samples, spec)

    assert mfcc.dtype == np.float32
    assert mfcc.shape == expected.shape
    assert np.abs(mfcc - expected).max() <= ALLOWED / 5


@SPECS
def test_mfccs_of_ten_minutes_are_librosas(spec):
    samples = loud_end(600 * spec.sampling_rate)
    assert np.abs(kernel(spec).mfcc(samples) - librosa_mfcc(samples, spec)).max() <= ALLOWED / 5


@pytest.mark.parametrize("level", ["absolute", "peak"])
@pytest.mark.parametrize("top_db", [20.0, 80.0])
def test_each_level_is_librosas_reference(level, top_db):
    spec = msgspec.structs.replace(PRESETS["wideband"], level=level, top_db=top_db)
    samples = loud_end(60_000)
    assert np.abs(kernel(spec).mfcc(samples) - librosa_mfcc(samples, spec)).max() <= ALLOWED / 5


@quick
@given(gain_db=st.floats(-80, 20))
def test_gain_changes_nothing_relative_to_the_peak(gain_db):
    absolute = PRESETS["wideband"]
    peak = msgspec.structs.replace(absolute, level="peak")
    samples = sine(40_000) + noise(40_000)
    louder = samples * np.float32(10 ** (gain_db / 20))

    np.testing.assert_allclose(kernel(peak).mfcc(louder), kernel(peak).mfcc(samples), atol=ALLOWED)

    if gain_db < -40:  # librosa's own least power is reached
        return
    difference = kernel(absolute).mfcc(louder) - kernel(absolute).mfcc(samples)
    np.testing.assert_allclose(difference[:, 0], gain_db * absolute.n_mels**0.5, atol=ALLOWED)
    np.testing.assert_allclose(difference[:, 1:], 0, atol=ALLOWED)


def test_the_loudest_point_is_0_db_even_past_the_kept_frames():
    spec = msgspec.structs.replace(PRESETS["wideband"], level="peak", n_mfcc=128)
    samples = loud_end(400 * spec.hop_length)
    kept = kernel(msgspec.structs.replace(spec, n_frames=174)).mfcc(samples)
    everything = kernel(msgspec.structs.replace(spec, n_frames=401)).mfcc(samples)
    assert scipy.fft.idct(everything, norm="ortho", axis=1).max() == pytest.approx(0, abs=1e-3)
    # a product of other rows may differ in the last bits; coefficients reach 900
    np.testing.assert_allclose(kept, everything[:174], rtol=0, atol=2e-3)


# ---- recordings sampled so low that every second sample of a wideband spec tells all ----

WIDE = PRESETS["wideband"]
CALL_RATE = 8000


def sweep(n: int) -> np.ndarray:
    """From 0 Hz to the Nyquist frequency of a call."""
    return (0.5 * np.sin(np.pi * np.arange(n) ** 2 / (2 * n))).astype(np.float32)


def clipped(n: int) -> np.ndarray:
    return (0.99 * np.sign(np.sin(0.167 * np.arange(n)))).astype(np.float32)


def nyquist(n: int) -> np.ndarray:
    return (0.9 * np.cos(np.pi * 0.999 * np.arange(n))).astype(np.float32)


def faint(n: int) -> np.ndarray:
    return np.float32(1e-4) * noise(n)


@functools.cache
def calls(rate: int) -> list[np.ndarray]:
    return [
        librosa.resample(signal(9 * rate), orig_sr=rate, target_sr=WIDE.sampling_rate)
        for signal in (*SIGNALS, sweep, clipped, nyquist, faint)
    ]


@pytest.mark.parametrize(
    ("spec", "rate"),
    [(WIDE, 1000), (WIDE, 6000), (WIDE, CALL_RATE), (FeatureSpec(hop_length=600), CALL_RATE)],
)
def test_narrow_recordings_have_librosas_mfccs_wherever_they_are_cut(spec, rate):
    narrow = kernel(spec, rate)
    assert narrow is not kernel(spec), "nothing would be tested"
    for samples in calls(rate):
        # odd and even beginnings, whole windows and shorter ones than a frame
        for start, n in ((0, 89_082), (44_541, 89_082), (3001, 30_000), (7000, 2049), (7001, 1)):
            cut = samples[start : start + n]
            assert np.abs(narrow.mfcc(cut) - librosa_mfcc(cut, spec)).max() <= ALLOWED


def test_real_calls_have_librosas_mfccs_in_every_window(shared):
    narrow = kernel(WIDE, CALL_RATE)
    for file in sorted((shared / "calls").glob("*.wav")):
        samples, _ = librosa.load(file, sr=WIDE.sampling_rate, duration=60)
        for start in range(0, len(samples) - 89_082, 44_541):
            window = samples[start : start + 89_082]
            assert np.abs(narrow.mfcc(window) - librosa_mfcc(window, WIDE)).max() <= ALLOWED / 5


@pytest.mark.parametrize(("spec", "rate"), [("wideband", 11_025), ("wideband", 48_000), ("telephone", 8000)])
def test_recordings_that_are_not_narrow_are_taken_whole(spec, rate):
    assert kernel(PRESETS[spec], rate) is kernel(PRESETS[spec])


@pytest.mark.parametrize(("spec", "rate"), [*((spec, None) for spec in PRESETS.values()), (WIDE, CALL_RATE)])
@quick
@given(st.data())
def test_chunks_of_any_size_give_the_same_bits(spec, rate, data):
    # many more frames than a segment keeps, the loudest after these
    samples = loud_end(250 * spec.hop_length + 77) if rate is None else calls(rate)[data.draw(st.integers(0, 8))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(samples)), max_size=12)))
    segment = kernel(spec, rate).segment()
    for chunk in np.split(samples, cuts):  # empty ones among them
        segment.feed(chunk)
    np.testing.assert_array_equal(segment.finish(), kernel(spec, rate).mfcc(samples))


@SPECS
@quick
@given(n=st.integers(1, 100_000))
def test_a_segment_has_a_frame_each_hop_up_to_the_specs_number(spec, n):
    assert kernel(spec).mfcc(silence(n)).shape == (min(1 + n // spec.hop_length, spec.n_frames), spec.n_mfcc)


# ---- from the file on: what featurize does with a recording against librosa.load and librosa.feature.mfcc ----


def clip_mfcc(file: Path, spec: FeatureSpec) -> np.ndarray:
    (recording,) = walk(file).recordings
    with reader_of(file) as reader:
        (segment,) = segments(reader, recording, front_end(spec), Segmentation())
    assert segment.features is not None
    return segment.features


def difference(file: Path, spec: FeatureSpec) -> float:
    """Largest absolute difference to librosa's numbers for the very same file."""
    if soundfile.info(file).subtype == "GSM610":  # librosa.load wants to seek, which GSM cannot
        with soundfile.SoundFile(file) as stream:
            native = stream.read(stream.frames, dtype="float32")
        samples = librosa.resample(native, orig_sr=stream.samplerate, target_sr=spec.sampling_rate)
    else:
        samples, _ = librosa.load(file, sr=spec.sampling_rate)
    mfcc, expected = clip_mfcc(file, spec), librosa_mfcc(samples, spec)
    assert mfcc.shape == expected.shape
    return float(np.abs(mfcc - expected).max())


@pytest.fixture(scope="module")
def real(shared: Path) -> list[Path]:
    """Twenty recordings of RAVDESS drawn at random, and all that are stereo."""
    files = sorted((shared / "ravdess").rglob("*.flac"))
    stereo = [file for file in files if soundfile.info(file).channels > 1]
    assert len(stereo) == 5
    return [*random.Random(7).sample(files, 20), *stereo]


@SPECS
def test_real_recordings_have_librosas_mfccs(spec, real):
    assert max(difference(file, spec) for file in real) <= ALLOWED


def voice(sampling_rate: int, duration_s: float = 2.5) -> np.ndarray:
    """Something like speech, stereo: harmonics that come and go over a noise floor, silence before and after."""
    time_s = np.arange(round(duration_s * sampling_rate)) / sampling_rate
    phase = 2 * np.pi * (120 * time_s + 6 * np.sin(2 * np.pi * 0.9 * time_s))
    tones = sum(np.sin(number * phase) / number for number in range(1, 12))
    envelope = np.clip(np.sin(2 * np.pi * 1.7 * time_s), 0, None) * (time_s > 0.4) * (time_s < duration_s - 0.4)
    left = 0.2 * tones * envelope + 3e-4 * np.random.default_rng(sampling_rate).standard_normal(len(time_s))
    return np.stack([left, 0.3 * np.roll(left, sampling_rate // 50)], axis=1)


@SPECS
@pytest.mark.parametrize("sampling_rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
def test_recordings_of_any_rate_have_librosas_mfccs(spec, sampling_rate, tmp_path):
    file = tmp_path / "voice.wav"
    soundfile.write(file, voice(sampling_rate), sampling_rate)

    assert difference(file, spec) <= ALLOWED


FORMATS = [
    *(("wav", "WAV", subtype, 44100) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *(("wav", "WAV", subtype, 8000) for subtype in ("ULAW", "ALAW", "GSM610", "IMA_ADPCM", "MS_ADPCM")),
    ("flac", "FLAC", "PCM_16", 44100),
    ("mp3", "MP3", "MPEG_LAYER_III", 44100),
    ("ogg", "OGG", "VORBIS", 44100),
    ("opus", "OGG", "OPUS", 48000),
    ("au", "AU", "PCM_16", 44100),
    ("aiff", "AIFF", "PCM_16", 44100),
]


@SPECS
@pytest.mark.parametrize(("suffix", "container", "subtype", "sampling_rate"), FORMATS)
def test_recordings_of_any_format_have_librosas_mfccs(spec, suffix, container, subtype, sampling_rate, tmp_path):
    file = tmp_path / f"voice.{suffix}"
    samples = voice(sampling_rate)
    if subtype == "GSM610":
        samples = samples[:, 0]  # knows no stereo
    soundfile.write(file, samples, sampling_rate, format=container, subtype=subtype)

    assert difference(file, spec) <= ALLOWED
