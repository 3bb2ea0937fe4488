"""What each change does to a waveform, in numbers of its own unit; and how variants are named."""

import re
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.audio.perturb import changed
from ser_batch.config.variants import NUMBERED_CHANGES, PLAIN_CHANGES, VARIANT_SETS, changes, variant_names
from ser_batch.errors import UsageError

CODECS = ("g711", "gsm", "opus", "mp3")
RANDOM = ("noise10", "room", "loss20", "noise15+g711+loss50")
# every change at its extremes, and steps that follow each other
EVERY = (
    *VARIANT_SETS["robust"],
    *PLAIN_CHANGES,
    *(f"{name}{amount:g}" for name, limits in NUMBERED_CHANGES.items() for amount in limits),
    *("speed2+gsm", "speed0.5+opus", "gsm+opus+mp3"),
)


def made(
    variant: str, samples: np.ndarray, rate: int, *, seed: int = 0, content_hash: str = "a", place: str = ""
) -> tuple[np.ndarray, int]:
    return changed(samples.astype(np.float32), rate, variant, seed=seed, content_hash=content_hash, place=place)


def voice(duration_s: float, rate: int) -> np.ndarray:
    """Twelve harmonics of 150 Hz that swell and fade, and a breath of noise; float64, shape (n,)."""
    seconds = np.arange(round(duration_s * rate)) / rate
    tones = sum(np.sin(2 * np.pi * 150 * k * seconds + k) / k for k in range(1, 13))
    breath = np.random.default_rng(0).standard_normal(len(seconds))
    return (0.1 * tones + 0.005 * breath) * (1 + 0.5 * np.sin(2 * np.pi * 3 * seconds))


def tone(hz: float, duration_s: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(duration_s * rate)) / rate)


def energy(samples: np.ndarray, rate: int, low_hz: float = 0.0, high_hz: float = 1e6) -> float:
    powers = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / rate)
    return float(powers[(hz >= low_hz) & (hz <= high_hz)].sum())


def db(ratio: float) -> float:
    return float(10 * np.log10(ratio))


# ---- noise ----


def colour_of(noise: np.ndarray, rate: int) -> str:
    """By how it falls over three octaves; what was made of a voice between 1 and 2 kHz lies there."""
    if energy(noise, rate, 900, 2100) > 0.9 * energy(noise, rate):
        return "voice"
    densities = [energy(noise, rate, low, high) / (high - low) for low, high in ((300, 500), (2400, 4000))]
    octaves_a_power = db(densities[0] / densities[1]) / db(8)
    return {0: "white", 1: "pink", 2: "brown"}[round(octaves_a_power)]


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize("amount", [-10, 0, 20])
def test_noise_of_each_colour_has_the_ratio_asked_for_up_to_four_kilohertz(amount, rate):
    n = rate // 2 + 1  # no product of small primes: the transform is longer
    hz = np.fft.rfftfreq(n, 1 / rate)
    spectrum = np.where((hz > 1000) & (hz < 2000), np.exp(2j * np.pi * np.random.default_rng(1).random(len(hz))), 0)
    samples = np.fft.irfft(spectrum, n).astype(np.float32)
    colors = set()
    for content_hash in "abcdefghijklmnop":
        heard, _ = made(f"noise{amount}", samples, rate, content_hash=content_hash)
        noise = heard.astype(np.float64) - samples
        assert db(energy(samples, rate, 0, 4000) / energy(noise, rate, 0, 4000)) == pytest.approx(amount, abs=0.01)
        colors.add(colour_of(noise, rate))
    assert colors == {"white", "pink", "brown", "voice"}


def test_noise_is_as_loud_where_nobody_speaks_and_at_both_ends():
    n = 2039  # a prime, so that the transform is longer
    samples = np.concatenate([np.zeros(n - 1000), voice(1, 1000)]).astype(np.float32)
    noises = [made("noise5", samples, 8000, content_hash=str(i))[0] - samples for i in range(300)]
    powers = np.mean([noise**2 / np.mean(noise**2) for noise in noises], axis=0)

    for stretch in (slice(0, 100), slice(500, 600), slice(-100, None)):
        assert powers[stretch].mean() == pytest.approx(1, abs=0.1)


def test_noise_leaves_the_speech_itself_as_it_is():
    samples = voice(1, 16000).astype(np.float32)
    heard, rate = made("noise60", samples, 16000)

    assert rate == 16000
    np.testing.assert_allclose(heard, samples, atol=0.01)
    assert np.corrcoef(heard - samples, samples)[0, 1] == pytest.approx(0, abs=0.05)


# ---- what is drawn ----


@pytest.mark.parametrize("variant", RANDOM)
def test_draws_follow_from_seed_recording_place_and_variant_and_from_nothing_else(variant):
    samples = voice(1, 8000)
    first, _ = made(variant, samples, 8000)
    np.random.default_rng().random()

    np.testing.assert_array_equal(made(variant, samples, 8000)[0], first)
    for other in ({"seed": 1}, {"content_hash": "b"}, {"place": "0/1"}):
        assert not np.array_equal(made(variant, samples, 8000, **other)[0], first), other


def test_two_variants_of_a_segment_draw_other_noise():
    samples = voice(1, 8000).astype(np.float32)
    noises = [made(variant, samples, 8000)[0] - samples for variant in ("noise10", "noise20")]

    assert abs(np.asarray(np.corrcoef(noises))[0, 1]) < 0.2


@pytest.mark.parametrize("variant", ["speed0.9", "level-20", "clip12", "telephone", *CODECS])
def test_where_nothing_is_drawn_the_seed_means_nothing(variant):
    samples = voice(0.5, 16000)

    np.testing.assert_array_equal(
        made(variant, samples, 16000)[0], made(variant, samples, 16000, seed=1, content_hash="b", place="1/2")[0]
    )


# ---- speed, level, clipping ----


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_speed_changes_length_and_pitch_by_its_factor(factor, rate):
    heard, same_rate = made(f"speed{factor:g}", tone(440, 2, rate), rate)

    assert same_rate == rate
    assert len(heard) == pytest.approx(2 * rate / factor, abs=5)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.fft.rfftfreq(len(heard), 1 / rate)[spectrum.argmax()] == pytest.approx(440 * factor, abs=1)


@pytest.mark.parametrize("gain_db", [-60, -20, 0, 6.5, 20])
def test_level_is_a_gain_in_decibels(gain_db):
    samples = voice(0.1, 8000)
    heard, _ = made(f"level{gain_db:g}", samples, 8000)

    np.testing.assert_allclose(heard, samples * 10 ** (gain_db / 20), rtol=1e-5)


@pytest.mark.parametrize("excess_db", [1, 12, 40])
def test_clipping_cuts_off_the_peaks_and_nothing_else(excess_db):
    samples = voice(0.5, 8000).astype(np.float32)
    heard, _ = made(f"clip{excess_db}", samples, 8000)

    ceiling = np.abs(samples).max() / 10 ** (excess_db / 20)
    is_below = np.abs(samples) < 0.999 * ceiling
    assert np.abs(heard).max() == pytest.approx(ceiling, rel=1e-5)
    np.testing.assert_array_equal(heard[is_below], samples[is_below])
    np.testing.assert_allclose(np.abs(heard[~is_below]), ceiling, rtol=2e-3)


# ---- telephones and codecs ----


@pytest.mark.parametrize(
    ("hz", "least_db", "most_db"),
    [(100, -200, -40), (190, -200, -40), (320, -0.1, 0.1), (1000, -0.1, 0.1), (3380, -0.1, 0.1), (3700, -200, -40)],
)
def test_the_telephone_carries_300_to_3400_hz(hz, least_db, most_db):
    heard, rate = made("telephone", tone(hz, 2, 16000), 16000)

    assert rate == 8000
    middle = heard[rate // 2 : -rate // 2]
    assert least_db <= db(np.mean(middle**2) / (0.5**2 / 2) + 1e-20) <= most_db


def test_what_rings_on_at_the_telephones_end_does_not_come_round_to_its_beginning():
    click = np.zeros(8000)
    click[-1] = 1

    assert np.abs(made("telephone", click, 8000)[0][:4000]).max() < 1e-3


@pytest.mark.parametrize("variant", CODECS)
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("duration_s", [0.28, 1.0, 1.77])
def test_codecs_keep_length_place_and_level(variant, rate, duration_s):
    heard, heard_rate = made(variant, voice(duration_s, rate), rate)
    samples = voice(duration_s, heard_rate)

    assert len(heard) == pytest.approx(len(samples), abs=1)
    n = min(len(heard), len(samples))
    heard, samples = heard[:n], samples[:n]
    padded = [np.fft.rfft(part, 2 * n) for part in (heard, samples)]
    correlation = np.fft.irfft(padded[0] * padded[1].conj()) / np.sqrt((heard**2).sum() * (samples**2).sum())
    assert correlation.argmax() == 0
    assert correlation[0] > 0.95
    assert db((heard**2).sum() / (samples**2).sum()) == pytest.approx(0, abs=1)
    end = slice(-heard_rate // 100, None)
    assert np.corrcoef(heard[end], samples[end])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("variant", "rate", "expected"),
    [
        *((codec, 48000, 8000) for codec in ("telephone", "g711", "gsm")),
        *((codec, rate, 16000) for codec in ("opus", "mp3") for rate in (16000, 48000)),
        # below what a wideband codec has
        *((codec, rate, 8000) for codec in (*CODECS, "telephone") for rate in (6000, 8000, 11025)),
        *((variant, 22050, 22050) for variant in ("noise10", "room", "speed0.9", "level-20", "clip12", "loss5")),
        ("opus+gsm", 48000, 8000),
        ("gsm+opus", 48000, 8000),  # what is gone does not come back
        ("noise10+opus+loss5", 48000, 16000),
    ],
)
def test_the_rate_is_that_of_the_last_codec(variant, rate, expected):
    assert made(variant, voice(0.1, rate), rate)[1] == expected


def test_what_exceeds_full_scale_is_clipped_by_a_codec():
    assert np.abs(made("level20+g711", tone(440, 0.2, 8000), 8000)[0]).max() == pytest.approx(1, abs=0.02)


# ---- packets ----


@pytest.mark.parametrize("percent", [1, 5, 20, 50])
def test_packets_of_20_ms_are_lost_in_bursts_of_two_on_average(percent):
    packet, n_packets = 20, 50_000  # at 1000 Hz
    samples = np.ones(packet * n_packets - 7)  # the last one is not full
    heard, rate = made(f"loss{percent}", samples, 1000)

    assert (len(heard), rate) == (len(samples), 1000)
    packets = np.append(heard, np.full(7, heard[-1])).reshape(n_packets, packet)
    is_lost = ~np.asarray(packets.any(axis=1))
    np.testing.assert_array_equal(packets[~is_lost], 1)
    assert 100 * is_lost.mean() == pytest.approx(percent, rel=0.1)
    bursts = [len(list(run)) for lost, run in groupby(is_lost) if lost]
    assert np.mean(bursts) == pytest.approx(2, abs=0.15)


# ---- rooms ----


def test_a_room_answers_a_click_with_the_click_a_pause_and_sound_that_dies_away():
    rate = 16000
    click = np.zeros(round(1.5 * rate))
    click[0] = 0.5
    found = []
    for content_hash in "abcdefghijkl":
        heard, _ = made("room", click, rate, content_hash=content_hash)
        assert len(heard) == len(click)
        assert heard[0] == pytest.approx(0.5, abs=1e-5)
        is_heard = np.abs(heard) > 1e-5
        begin_s = is_heard[1:].argmax() / rate
        end_s = is_heard.nonzero()[0][-1] / rate
        direct_db = db(0.5**2 / (heard[1:] ** 2).sum())
        assert 0.0019 <= begin_s <= 0.0201
        assert 0.19 <= end_s <= 0.83
        assert -3.1 <= direct_db <= 9.1
        halves = np.split(heard[round(begin_s * rate) + 1 :][: round(0.18 * rate)], 2)
        assert (halves[0] ** 2).sum() > 2 * (halves[1] ** 2).sum()
        found.append((begin_s, end_s, direct_db))
    for values in zip(*found, strict=True):
        assert max(values) > 1.5 * min(values)  # no two rooms are alike


def test_a_room_holds_what_was_said_at_its_place():
    samples = np.random.default_rng(0).standard_normal(8000)
    heard, _ = made("room", samples, 8000)

    correlation = np.fft.irfft(np.fft.rfft(heard, 16000) * np.fft.rfft(samples, 16000).conj())
    assert correlation.argmax() == 0


# ---- any segment ----


def expected_length(variant: str, n: int, rate: int) -> int:
    """Of speed and codecs one after the other, each rounded up."""
    for change in changes(variant):
        if change.name == "speed":
            n = int(np.ceil(n * round(rate / change.amount) / rate))
        elif change.name in {"telephone", *CODECS}:
            wanted = 16000 if change.name in ("opus", "mp3") and rate >= 16000 else 8000
            n, rate = int(np.ceil(n * wanted / rate)), wanted
    return n


@pytest.mark.parametrize("variant", dict.fromkeys(EVERY))
def test_any_short_segment_at_any_rate_becomes_finite_samples_of_the_right_number(variant):
    for rate in (1000, 6000, 8000, 11025, 16000, 22050, 44100, 48000, 96000):
        for n in (1, 2, 10, 161, 577):
            heard, heard_rate = made(variant, voice(n / rate, rate), rate)
            assert heard.dtype == np.float32
            assert heard.shape == (expected_length(variant, n, rate),), (rate, n)
            assert np.isfinite(heard).all(), (rate, n)
            assert heard_rate in (rate, 8000, 16000)


@pytest.mark.parametrize("variant", dict.fromkeys(EVERY))
@pytest.mark.parametrize("n", [1, 333, 12_000])
def test_silence_stays_silent(variant, n):
    heard, _ = made(variant, np.zeros(n), 16000)

    # GSM's decoder and Opus's leave a few steps of 16 bits
    assert np.abs(heard).max() <= (0.001 if "gsm" in variant or "opus" in variant else 0)


@pytest.mark.parametrize("variant", ["noise10", "room+noise15", "telephone+clip12", "noise15+g711+loss5", *CODECS])
@pytest.mark.parametrize("loudest", [1e-25, 2.0**31])
def test_absurd_levels_stay_finite(variant, loudest):
    for content_hash in "abcdefgh":  # noise of every color
        heard, _ = made(variant, loudest * voice(0.2, 16000), 16000, content_hash=content_hash)
        assert np.isfinite(heard).all()


# ---- one step after the other ----


@pytest.mark.parametrize(
    "steps", [("level-20", "gsm"), ("clip12", "telephone", "level20"), ("speed0.9", "opus", "g711")]
)
def test_steps_follow_each_other_in_their_order(steps):
    samples, rate = voice(0.3, 22050), 22050
    together = made("+".join(steps), samples, rate)
    for step in steps:
        samples, rate = made(step, samples, rate)

    np.testing.assert_array_equal(together[0], samples)
    assert together[1] == rate


def test_noise_before_a_codec_goes_through_it_and_noise_behind_does_not():
    samples = voice(1, 8000)

    assert len(np.unique(made("noise15+g711", samples, 8000)[0])) <= 256
    assert len(np.unique(made("g711+noise15", samples, 8000)[0])) > 1000


# ---- names ----


def test_sets_are_written_out_and_no_name_stands_twice():
    robust = VARIANT_SETS["robust"]

    assert variant_names("clean") == ("clean",)
    assert variant_names("noise10, robust,room+gsm,clean,room+gsm") == (
        "noise10",
        *(name for name in robust if name != "noise10"),
        "room+gsm",
    )
    assert len(set(robust)) == len(robust)
    assert robust[0] == "clean"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("noise10.0", "write noise10,"),
        ("noise010", "write noise10,"),
        ("level-20.50", "write level-20.5,"),
        ("level-0", "write level0,"),
        ("noise\u0661\u0660", "write noise10,"),  # digits, but others
        ("noise61", "from -10 to 60 after noise"),
        ("noise-11", "from -10 to 60 after noise"),
        ("speed0", "from 0.5 to 2 after speed"),
        ("loss51", "from 1 to 50 after loss"),
        ("g711+clip41", "from 1 to 40 after clip"),
        *((name, "expected clean, g711, .*noiseN.*or the set robust") for name in ("", "nois10", "noise", "gsm2")),
        *((name, "expected clean, g711") for name in ("robust+gsm", "clean+gsm", "gsm+", "Noise10", "noise1e1")),
    ],
)
def test_other_spellings_are_refused_with_what_was_expected(name, said):
    step = name.split("+")[-1]
    with pytest.raises(UsageError, match=said) as caught:
        variant_names(f"clean,{name}")
    assert repr(step) in str(caught.value) or name in ("robust+gsm", "clean+gsm")


@st.composite
def spelled_steps(draw: st.DrawFn) -> tuple[str, str]:
    """A step, perhaps with needless zeros, and its name."""
    change = draw(st.sampled_from([*PLAIN_CHANGES, *NUMBERED_CHANGES]))
    if change in PLAIN_CHANGES:
        return change, change
    least, most = NUMBERED_CHANGES[change]
    amount = draw(st.integers(round(100 * least), round(100 * most))) / 100
    spelling = draw(st.sampled_from(["g", "g", "g", ".2f", ".3f", "06.2f"]))
    return f"{change}{amount:{spelling}}", f"{change}{amount:g}"


@settings(deadline=None)
@given(steps=st.lists(spelled_steps(), min_size=1, max_size=4))
def test_every_variant_has_one_name(steps):
    spelled, name = ("+".join(parts) for parts in zip(*steps, strict=True))
    numbers = [f"{change.amount:g}" if change.name in NUMBERED_CHANGES else "" for change in changes(name)]

    assert variant_names(f"{name},{name}") == (name,)
    assert name == "+".join(change.name + number for change, number in zip(changes(name), numbers, strict=True))
    if spelled != name:
        with pytest.raises(UsageError, match="write "):
            changes(spelled)


# ---- the document ----


def test_tables_md_lists_every_change_with_its_range_and_every_set():
    text = (Path(__file__).parent.parent / "docs" / "tables.md").read_text(encoding="utf-8")
    section = re.search(r"^## Variants\n(.*?)^## ", text, flags=re.DOTALL | re.MULTILINE)
    assert section
    rows = re.findall(r"^\| `([a-z0-9]+)(N?)` \| .* \| (.*) \|$", section[1], flags=re.MULTILINE)
    documented = {name: tuple(map(float, limits.split(" to "))) if n else () for name, n, limits in rows}
    sets = re.findall(r"^The set `(\w+)` is (.*?)\.\n", section[1], flags=re.DOTALL | re.MULTILINE)

    assert documented == {**dict.fromkeys(PLAIN_CHANGES, ()), **NUMBERED_CHANGES}
    assert {name: tuple(re.findall(r"`(.*?)`", names)) for name, names in sets} == VARIANT_SETS
