"""Where there is speech: found in silence, noise and tones, the same whatever the blocks; the sums made of it."""

import itertools

import numpy as np
import pytest
import soundfile
from helpers import speech_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.errors import RecordingError
from ser_batch.synth import synth
from ser_batch.vad.activity import FRAME_S, PAUSE_S, Activity

RATE = 8000
VOICE_S = [(1.0, 2.0), (4.0, 5.0), (6.0, 7.0)]  # where `spoken` has a voice; no word is that long, so two of each


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """One second of a made-up voice at 8000 Hz, from its first syllable to its last."""
    folder = synth(tmp_path_factory.mktemp("voice") / "audio", actors=1, repetitions=1, sampling_rate=RATE).out
    samples, _ = soundfile.read(folder / "Actor_01" / "03-01-01-01-01-01-01.wav", dtype="float32")
    return samples[1000 : 1000 + RATE]


@pytest.fixture(scope="module")
def spoken(voice):
    """Nine seconds of silence with the voice at `VOICE_S`."""
    samples = np.zeros(9 * RATE, dtype=np.float32)
    for start_s, end_s in VOICE_S:
        samples[int(start_s * RATE) : int(end_s * RATE)] = voice
    return samples


@pytest.fixture
def scanned(tmp_path):
    """A function: samples, one or more channels, to their activity."""

    def run(*channels, rate=RATE, subtype="PCM_16", **options):
        soundfile.write(tmp_path / "call.wav", np.stack(channels, axis=1), rate, subtype=subtype)
        return speech_of(tmp_path / "call.wav", **options)

    return run


def truth(n, stretches=VOICE_S):
    middles_s = (np.arange(n) + 0.5) * FRAME_S
    return np.logical_or.reduce([(middles_s >= start_s) & (middles_s < end_s) for start_s, end_s in stretches])


def assert_found(frames, stretches=VOICE_S, *, recall=0.95, precision=0.9):
    is_speech = truth(len(frames), stretches)
    right = (frames & is_speech).sum()
    assert right / is_speech.sum() >= recall
    assert right / max(1, frames.sum()) >= precision


def white(n, dbfs, seed=0):
    return (10 ** (dbfs / 20) * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def tones(n, *hertz, on_s=1e9, period_s=1e9):
    times_s = np.arange(n) / RATE
    tone = sum(np.sin(2 * np.pi * frequency * times_s) for frequency in hertz)
    return (0.1 * tone * (times_s % period_s < on_s)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------- speech or not


def test_a_voice_in_silence_is_found(spoken, scanned):
    activity = scanned(spoken)
    assert activity.frames[0].shape == (300,)
    assert activity.duration_s == 9.0
    assert_found(activity.frames[0], recall=0.98)


@pytest.mark.parametrize("offset", [-0.3, 0.05])
def test_an_offset_hides_no_voice(offset, spoken, scanned):
    assert_found(scanned(spoken * 0.2 + np.float32(offset)).frames[0], recall=0.95)


@pytest.mark.parametrize("noise_db", [30, 20, 10])
def test_a_voice_in_noise_is_found(spoken, noise_db, scanned):
    level = 10 * np.log10(np.square(spoken[RATE : 2 * RATE]).mean())
    noisy = spoken + white(len(spoken), level - noise_db)
    # where noise hides soft ends up to four frames are added on each side of these 33, which are loud to their end
    assert_found(scanned(noisy, subtype="ULAW").frames[0], recall=0.9, precision=0.78)


@pytest.mark.parametrize(
    "hertz",
    [
        pytest.param({"hertz": (425,), "on_s": 1, "period_s": 2}, id="ringing"),
        pytest.param({"hertz": (480, 620), "on_s": 0.5, "period_s": 1}, id="busy"),
        pytest.param({"hertz": (770, 1336), "on_s": 0.1, "period_s": 0.2}, id="keys"),
    ],
)
def test_tones_between_are_none(spoken, hertz, scanned):
    near = np.ones(RATE // 2)  # 0.25 s on both sides
    is_voice = np.convolve(np.abs(spoken) > 0, near, "same") > 0.5
    hertz = dict(hertz)
    line = np.where(is_voice, spoken, tones(len(spoken), *hertz.pop("hertz"), **hertz)) + white(len(spoken), -75)
    assert_found(scanned(line, subtype="ULAW").frames[0], recall=0.9)


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(np.zeros(5 * RATE), id="silence"),
        pytest.param(np.full(5 * RATE, 0.3), id="offset"),
        pytest.param(white(5 * RATE, -30), id="noise"),
        pytest.param(white(5 * RATE, -72), id="a-line-without-a-voice"),
        pytest.param(tones(5 * RATE, 425), id="dial"),
        pytest.param(tones(5 * RATE, 425, on_s=1, period_s=5), id="ringing"),
        pytest.param(tones(5 * RATE, 440, 480, on_s=2, period_s=3), id="ringing-in-america"),
        pytest.param(tones(5 * RATE, 480, 620, on_s=0.5, period_s=1), id="busy"),
        pytest.param(tones(5 * RATE, 941, 1477, on_s=0.1, period_s=0.2), id="keys"),
        pytest.param(np.where(np.arange(5 * RATE) % RATE == 0, 0.9, 0.0), id="clicks"),
    ],
)
def test_what_is_no_voice_is_none(sound, scanned):
    activity = scanned(sound.astype(np.float32), subtype="ULAW")
    assert activity.speech_s(0) == 0
    assert activity.turns(0, longest_s=4.04) == []


def test_steady_noise_is_none_though_something_rumbles_below_it(scanned):
    noises = np.fft.rfft(np.random.default_rng(0).standard_normal((2, 9 * RATE)))
    hz = np.fft.rfftfreq(9 * RATE, 1 / RATE)
    rumble, hiss = np.fft.irfft(noises * np.stack([hz < 200, hz > 300]))
    times_s = np.arange(9 * RATE) / RATE
    is_on = (times_s > 2) & (times_s < 7)
    heard = np.where(is_on, 0.03 * (rumble / rumble.std() + hiss / hiss.std()), white(9 * RATE, -60))
    assert scanned(heard.astype(np.float32)).speech_s(0) < 1


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_other_rates_and_a_last_frame_that_is_not_whole(voice, rate, scanned):
    import soxr

    samples = soxr.resample(np.concatenate((np.zeros(RATE), voice, np.zeros(RATE + 37))), RATE, rate)
    activity = scanned(samples, rate=rate)
    assert len(activity.frames[0]) == -(-len(samples) * 8000 // (rate * 240))
    assert activity.duration_s == len(samples) / rate
    assert_found(activity.frames[0], [(1.0, 2.0)])


def test_the_level_of_a_recording_does_not_count(spoken, scanned):
    loud, quiet = (scanned(np.float32(gain) * spoken, subtype="FLOAT").frames[0] for gain in (2.0, 0.2))
    np.testing.assert_array_equal(loud, quiet)


def test_blocks_do_not_count(spoken, scanned, monkeypatch):
    sound = [np.tile(spoken, 3), np.roll(np.tile(spoken, 3), 5000)]
    expected = scanned(*sound, rate=11025)
    for block_s in (0.09, 7.5, 1000):
        monkeypatch.setattr("ser_batch.audio.sound.BLOCK_S", block_s)
        found = scanned(*sound, rate=11025)
        assert found.copies == expected.copies
        for channel, frames in expected.frames.items():
            np.testing.assert_array_equal(found.frames[channel], frames)
            np.testing.assert_array_equal(found.levels[channel], expected.levels[channel])


def test_real_calls(shared):
    """Looked at on a spectrogram, 30 s to 70 s."""
    stretches = [(30.0, 31.05), (31.77, 32.2), (32.93, 36.77), (37.47, 42.65), (51.77, 52.5), (53.53, 54.97)]
    stretches += [(55.33, 56.0), (59.47, 60.57), (61.6, 62.37), (63.22, 63.77), (64.05, 64.3)]
    first, last = round(30 / FRAME_S), round(70 / FRAME_S)
    frames = speech_of(shared / "calls" / "call_40_caller.wav").frames[0]
    is_counted = (np.arange(len(frames)) >= first) & (np.arange(len(frames)) < last)
    assert_found(frames & is_counted, stretches)


def test_a_broken_recording_says_so(tmp_path):
    (tmp_path / "call.wav").write_bytes(b"no sound at all")
    with pytest.raises(RecordingError, match=r"call\.wav"):
        speech_of(tmp_path / "call.wav")


# ------------------------------------------------------------------------------------------------------------ channels


def test_the_channels_that_are_asked_for(spoken, scanned):
    other = np.roll(spoken, RATE)
    assert set(scanned(spoken, other).frames) == {0, 1}
    assert set(scanned(spoken, other, channels=lambda n: (-1,)).frames) == {-1}
    # overlap is between channels, so the other one is listened to as well
    assert set(scanned(spoken, other, channels=lambda n: (1,)).frames) == {0, 1}
    assert scanned(spoken, other, channels=lambda n: ()).frames == {}


def test_copies(spoken, scanned):
    other = np.roll(spoken, RATE // 2)
    nothing = np.zeros_like(spoken)
    assert scanned(spoken, spoken, other, spoken).copies == {1: 0, 3: 0}
    assert scanned(spoken, nothing, nothing).copies == {}
    assert scanned(spoken, other).copies == {}
    # 46 dB and 34 dB below
    noise = white(len(spoken), 10 * np.log10(np.square(spoken).mean()))
    assert scanned(spoken, spoken + np.float32(10 ** (-46 / 20)) * noise).copies == {1: 0}
    assert scanned(spoken, spoken + np.float32(10 ** (-34 / 20)) * noise).copies == {}
    assert scanned(spoken, np.float32(0.5) * spoken).copies == {}


# ------------------------------------------------------------------------------------------------------- sums and turns


def made(text, *, duration_s=None, **options):
    """Frames written as text: # is speech, one line a channel."""
    frames = {i: np.array([c == "#" for c in line]) for i, line in enumerate(text.split())}
    return Activity(frames=frames, duration_s=duration_s or len(frames[0]) * FRAME_S, **options)


def test_speech_is_counted_by_the_part_of_a_frame():
    activity = made("..##..#.")
    assert activity.speech_s(0) == pytest.approx(0.09)
    assert activity.speech_s(0, 0.07, 0.1) == pytest.approx(0.03)
    assert activity.speech_s(0, 0.07, 5.0) == pytest.approx(0.08)
    assert activity.speech_s(0, 0.12, 0.18) == 0
    assert activity.speech_s(0, 0.2, 0.1) == 0
    assert activity.speech_s(0, 1.0, 2.0) == 0
    assert activity.speech_ratio(0, 0.06, 0.12) == pytest.approx(1)
    assert activity.speech_ratio(0, 0.06, 0.18) == pytest.approx(0.5)
    assert activity.speech_ratio(0, 0.18, 4.22) == pytest.approx(0.5)  # of the 0.06 s that there are
    assert activity.speech_ratio(0, 0.3, 0.4) == 0


def test_the_last_frame_ends_with_the_recording():
    activity = made("..##", duration_s=0.1)
    assert activity.speech_s(0) == pytest.approx(0.04)
    assert activity.turns(0, longest_s=1) == [(0.06, 0.1)]


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=200), st.tuples(*[st.floats(0, 7)] * 3))
def test_sums_add_up(frames, times_s):
    activity = Activity(frames={0: np.array(frames)}, duration_s=len(frames) * FRAME_S)
    first, middle, last = sorted(times_s)
    parts_s = activity.speech_s(0, first, middle) + activity.speech_s(0, middle, last)
    assert activity.speech_s(0, first, last) == pytest.approx(parts_s, abs=1e-9)
    assert 0 <= activity.speech_ratio(0, first, last) <= 1


def test_overlap():
    both = made("###..  .##.#")
    assert both.overlap_s(0) == both.overlap_s(1) == pytest.approx(0.06)
    three = made("###.. ###.. ..##.", copies={1: 0})
    assert three.overlap_s(0) == three.overlap_s(1) == pytest.approx(0.03)
    assert three.overlap_s(2) == pytest.approx(0.03)
    assert made("## ##", copies={1: 0}).overlap_s(1) == 0
    assert made("###").overlap_s(0) is None
    assert Activity(frames={-1: np.ones(3, dtype=bool)}, duration_s=0.09).overlap_s(-1) is None


def test_what_is_repeated_hangs_on_what_is_wanted():
    activity = made("# # # #", copies={1: 0, 3: 0})
    assert activity.repeated([0, 1, 2, 3]) == {1, 3}
    assert activity.repeated([1, 2]) == set()
    assert activity.repeated([1, 3]) == {3}


def test_turns_keep_short_pauses():
    short, long = round(PAUSE_S / FRAME_S) - 1, round(PAUSE_S / FRAME_S)
    activity = made("#" * 20 + "." * short + "#" * 20 + "." * long + "#" * 10)
    one, two = activity.turns(0, longest_s=4.04)
    assert one == (0.0, pytest.approx((40 + short) * FRAME_S))
    assert two[0] - one[1] == pytest.approx(PAUSE_S)
    assert two[1] == pytest.approx(activity.duration_s)


def test_long_turns_are_cut_at_the_longest_pause():
    activity = made("#" * 60 + "..." + "#" * 60 + "....." + "#" * 60)
    turns = activity.turns(0, longest_s=4.04)
    assert turns == [(0.0, pytest.approx(123 * FRAME_S)), (pytest.approx(128 * FRAME_S), pytest.approx(188 * FRAME_S))]
    # a pause at the edge would leave a turn that is too short to hear anything in
    assert len(made("#" * 4 + "....." + "#" * 160 + "..." + "#" * 100).turns(0, longest_s=6)) == 2


def test_turns_without_a_pause_are_cut_where_it_is_quietest_or_in_halves():
    frames = "#" * 160
    levels = np.full(160, -20, dtype=np.float16)
    levels[60:63] = -40
    levels[2] = -60  # not at the edge
    (one, two) = made(frames, levels={0: levels}).turns(0, longest_s=4.04)
    assert one[1] == two[0] == pytest.approx(61 * FRAME_S, abs=FRAME_S)
    assert made(frames).turns(0, longest_s=4.04) == [(0.0, 2.4), (2.4, 4.8)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 30)), max_size=5), st.floats(0.5, 6), st.booleans())
def test_turns_hold_all_speech_and_are_never_too_long(stretches, longest_s, has_levels):
    frames = np.array([value for speech, pause in stretches for value in [True] * speech + [False] * pause], dtype=bool)
    levels = {0: np.random.default_rng(len(frames)).normal(-30, 9, len(frames)).astype(np.float16)}
    activity = Activity(frames={0: frames}, duration_s=len(frames) * FRAME_S, levels=levels if has_levels else {})
    turns = activity.turns(0, longest_s=longest_s)
    assert turns == sorted(turns)
    assert all(start_s < end_s <= start_s + longest_s + 1e-6 for start_s, end_s in turns)
    assert all(end_s <= start_s for (_, end_s), (start_s, _) in itertools.pairwise(turns))
    held_s = sum(activity.speech_s(0, start_s, end_s) for start_s, end_s in turns)
    assert held_s == pytest.approx(activity.speech_s(0), abs=1e-4)


def test_turns_of_a_recording(spoken, scanned):
    turns = scanned(spoken).turns(0, longest_s=4.04)
    assert len(turns) == 3
    for (start_s, end_s), (first_s, last_s) in zip(turns, VOICE_S, strict=True):
        assert start_s == pytest.approx(first_s, abs=0.1)
        assert end_s == pytest.approx(last_s, abs=0.1)
