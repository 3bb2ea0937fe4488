"""A small made-up corpus with RAVDESS's names, so that everything runs offline.

Nobody speaks here: glottal pulses and breath noise pass through the moving formants of a few syllables, and
pitch, level, rate and voice quality go where the literature says that acted emotions take them. A figure
measured on it says that the chain works, nothing about people.

References
----------
Banse & Scherer 1996, J. Personality and Social Psychology 70(3):614-636: disgust; weak and strong emotions.
Juslin & Laukka 2003, Psychological Bulletin 129(5):770-814: cues of angry, fearful, happy and sad voices.
Klatt 1980, J. Acoustical Society of America 67(3):971-995: resonators in cascade, bandwidths, F4 and F5.
Livingstone & Russo 2018, PLoS ONE 13(5):e0196391: RAVDESS, its design and file names.
Peterson & Barney 1952, J. Acoustical Society of America 24(2):175-184: the formants of vowels.
"""

import io
import itertools
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import soundfile
from msgspec import Meta
from numpy.typing import NDArray

from ser_batch.errors import OutputError, UsageError
from ser_batch.storage.atomic import atomic_path, make_folder
from ser_batch.summary import Summary

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cues:
    """The acoustic cues of an emotion."""

    pitch_st: float  # mean pitch, semitones above the actor's own
    range_st: float  # deviation of the pitch from syllable to syllable, semitones
    slope_st: float  # rise of the pitch over the statement, semitones
    level_dbfs: float  # root mean square between first and last syllable
    rate: float  # speaking rate; 1 is 1 / SYLLABLE_S syllables a second
    tilt_db: float  # slope of the source's spectrum above 100 Hz, dB an octave
    jitter: float  # deviation of a glottal pulse in time, as a share of its period
    shimmer: float  # deviation of a pulse's height, as a share of it
    breath_db: float  # noise relative to the pulses, both before the formants
    creak: float  # how much lower every second pulse is, as a share


# By RAVDESS's code. Every figure is a choice; only its direction away from neutral has a source.
EMOTIONS = {  # pitch range slope level rate tilt jitter shimmer breath creak
    1: Cues(+0.0, 1.2, -2.0, -27.0, 1.00, -8.0, 0.006, 0.04, -27.0, 0.00),  # neutral
    2: Cues(-1.0, 0.8, -1.5, -33.0, 0.84, -9.5, 0.005, 0.04, -19.0, 0.00),  # calm: soft, slow
    3: Cues(+4.5, 4.0, +0.5, -21.0, 1.12, -6.0, 0.008, 0.06, -28.0, 0.00),  # happy: high, wide
    4: Cues(-2.0, 1.0, -4.0, -36.0, 0.74, -12.0, 0.012, 0.07, -20.0, 0.10),  # sad: low, slow, soft, dull
    5: Cues(+4.0, 3.0, -3.5, -16.0, 1.22, -4.0, 0.020, 0.12, -31.0, 0.00),  # angry: loud, fast, bright
    6: Cues(+7.0, 1.5, +0.0, -25.0, 1.25, -7.5, 0.035, 0.15, -16.0, 0.00),  # fearful: high, fast, rough
    7: Cues(-3.0, 2.0, -3.5, -27.0, 0.86, -6.5, 0.030, 0.15, -23.0, 0.55),  # disgust: low, slow, creaky
    8: Cues(+6.0, 3.0, +8.0, -23.0, 0.95, -6.5, 0.008, 0.06, -24.0, 0.00),  # surprised: high, rising
}
# Standard deviations, so that emotions overlap and no classifier is always right: what an actor's habits add
# to all their clips, and what one clip adds.
ACTOR_SPREAD = Cues(0.0, 0.2, 0.3, 1.5, 0.03, 0.5, 0.001, 0.01, 1.5, 0.02)
CLIP_SPREAD = Cues(1.2, 0.5, 1.0, 2.0, 0.06, 0.8, 0.003, 0.02, 2.0, 0.06)
LOWEST = Cues(-12.0, 0.0, -12.0, -50.0, 0.68, -18.0, 0.0, 0.0, -40.0, 0.0)
HIGHEST = Cues(12.0, 8.0, 12.0, -14.0, 1.33, -2.0, 0.06, 0.3, -8.0, 0.9)
EXAGGERATION = {1: 0.9, 2: 1.3}  # by intensity: how far from neutral an emotion goes

# F1 to F3 in Hz of men (Peterson & Barney 1952, table II); F4, F5 and the bandwidths follow Klatt 1980.
VOWELS_HZ = {
    "IH": (390.0, 1990.0, 2550.0),
    "AA": (730.0, 1090.0, 2440.0),
    "AO": (570.0, 840.0, 2410.0),
    "AH": (640.0, 1190.0, 2390.0),
    "ER": (490.0, 1350.0, 1690.0),
}
HIGHER_FORMANTS_HZ = (3300.0, 3750.0)
BANDWIDTHS_HZ = (70.0, 90.0, 150.0, 250.0, 200.0)
# Kids are talking by the door; dogs are sitting by the door: each syllable's first consonant and vowel.
STATEMENTS = {1: "K-IH -ER T-AO K-IH B-AA DH-AH D-AO", 2: "D-AO -ER S-IH T-IH B-AA DH-AH D-AO"}
HISSES = {"": 0.0, "B": 0.1, "D": 0.3, "DH": 0.2, "K": 0.7, "S": 1.0, "T": 0.8}
WEIGHTS = np.array([1.1, 0.7, 1.2, 0.8, 1.1, 0.6, 1.5])  # relative durations: long ones carry the stress
SYLLABLE_S = 0.19
SILENCE_S = 0.1  # before the first and after the last syllable
NOISE_FLOOR_DBFS = -72.0  # a room, so that nothing is digital silence


class SynthSummary(Summary, frozen=True, kw_only=True):
    """What `synth` made."""

    out: Annotated[Path, Meta(description="the folder")]
    n_recordings: Annotated[int, Meta(description="recordings made")]
    audio_s: Annotated[float, Meta(description="their duration, s")]


class Clip(NamedTuple):
    """One recording, by RAVDESS's codes."""

    actor: int
    emotion: int
    intensity: int
    statement: int
    repetition: int

    def path(self) -> Path:
        """Return its path in the corpus; modality 03 is audio only, vocal channel 01 is speech."""
        codes = (3, 1, self.emotion, self.intensity, self.statement, self.repetition, self.actor)
        return Path(f"Actor_{self.actor:02d}", "-".join(f"{code:02d}" for code in codes) + ".wav")


def synth(
    folder: Path,
    *,
    actors: int = 4,
    repetitions: int = 2,
    sampling_rate: int = 16000,
    seed: int = 0,
    overwrite: bool = False,
) -> SynthSummary:
    """Write a made-up corpus: mono 16-bit WAV files of 1.2 to 2.2 s, named like RAVDESS's speech.

    The same arguments give the same bytes on the same machine, and a clip does not depend on how many others
    there are: its random numbers come from `seed` and its own codes.

    Parameters
    ----------
    folder
        Where ``Actor_01/03-01-05-02-01-02-01.wav`` and so on go; made where it is not there.
    actors
        1 to 24; odd ones have a male voice, even ones a female one. Each has 30 clips a repetition.
    repetitions
        1 or 2 of each emotion, intensity (neutral has only one) and statement.
    sampling_rate
        In Hz, 8000 to 96000.
    seed
        0 to 2**32 - 1; another seed makes other actors and other clips.
    overwrite
        Write into a folder that holds files. Only files of the same names are replaced; nothing is deleted,
        so those of an earlier corpus with more actors or repetitions stay.

    Returns
    -------
    SynthSummary

    Raises
    ------
    UsageError
        When a number is out of its range.
    OutputError
        When the folder holds files and `overwrite` is False, or when it cannot be written.
    """
    for name, value, lowest, highest in (
        ("actors", actors, 1, 24),
        ("repetitions", repetitions, 1, 2),
        ("sampling_rate", sampling_rate, 8000, 96000),
        ("seed", seed, 0, 2**32 - 1),
    ):
        if not lowest <= value <= highest:
            raise UsageError(f"{name} is {value}: give a whole number from {lowest} to {highest}.")
    folder = Path(folder)
    refuse_files(folder, overwrite=overwrite)
    n_recordings = n_samples = 0
    for clip in _clips(actors, repetitions):
        samples = say(clip, sampling_rate, seed)
        write_wav(folder / clip.path(), samples, sampling_rate)
        n_recordings += 1
        n_samples += len(samples)
    return SynthSummary(out=folder, n_recordings=n_recordings, audio_s=n_samples / sampling_rate)


def _clips(actors: int, repetitions: int) -> Iterator[Clip]:
    """Yield the design of RAVDESS's speech, actor by actor."""
    axes = (range(1, actors + 1), EMOTIONS, EXAGGERATION, STATEMENTS, range(1, repetitions + 1))
    for clip in itertools.starmap(Clip, itertools.product(*axes)):
        if (clip.emotion, clip.intensity) != (1, 2):  # nobody is strongly neutral
            yield clip


def refuse_files(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds files, unless they may be replaced."""
    if not overwrite and any(path.is_file() for path in folder.rglob("*")):
        raise OutputError(
            f"{folder}: holds files; expected a new or an empty folder. Choose another one, or add --overwrite to "
            "replace files of the same names"
        )


def write_wav(path: Path, samples: NDArray[np.int16], sampling_rate: int, subtype: str = "PCM_16") -> None:
    """Write one WAV file, whole or not at all."""
    wav = io.BytesIO()  # not straight to the disk: a full one is then an OSError, not libsndfile's own error
    soundfile.write(wav, samples, sampling_rate, format="WAV", subtype=subtype)
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        temporary.write_bytes(wav.getvalue())


def _draw(clip: Clip, seed: int, random: np.random.Generator) -> tuple[Cues, float, float]:
    """Return a clip's cues, its actor's own pitch in Hz, and the scale of the actor's formants."""
    female = clip.actor % 2 == 0
    actor = np.random.default_rng(np.random.SeedSequence((seed, clip.actor)))
    pitch_hz = (208.0 if female else 112.0) * 2.0 ** (actor.uniform(-2.5, 2.5) / 12)
    formant_scale = (1.16 if female else 1.0) * actor.uniform(0.96, 1.04)
    expressiveness = actor.uniform(0.85, 1.15) * EXAGGERATION[clip.intensity]
    neutral, emotion = np.array(astuple(EMOTIONS[1])), np.array(astuple(EMOTIONS[clip.emotion]))
    values = neutral + expressiveness * (emotion - neutral)
    values += actor.normal(scale=astuple(ACTOR_SPREAD)) + random.normal(scale=astuple(CLIP_SPREAD))
    return Cues(*np.clip(values, astuple(LOWEST), astuple(HIGHEST)).tolist()), pitch_hz, formant_scale


def say(clip: Clip, sampling_rate: int, seed: int) -> NDArray[np.int16]:
    """Make the samples of one clip, shape (n,), from `seed` and its codes alone."""
    random = np.random.default_rng(np.random.SeedSequence((seed, *clip)))
    cues, actor_pitch_hz, formant_scale = _draw(clip, seed, random)
    syllables = [syllable.split("-") for syllable in STATEMENTS[clip.statement].split()]
    formants_hz = formant_scale * np.array([VOWELS_HZ[vowel] + HIGHER_FORMANTS_HZ for _, vowel in syllables])
    hisses = np.array([HISSES[consonant] for consonant, _ in syllables])
    durations_s = WEIGHTS * random.uniform(0.9, 1.1, len(WEIGHTS))
    durations_s *= SYLLABLE_S * len(WEIGHTS) / cues.rate / durations_s.sum()
    ends_s = SILENCE_S + np.cumsum(durations_s)
    middles_s = ends_s - durations_s / 2
    times_s = np.arange(round((ends_s[-1] + SILENCE_S) * sampling_rate)) / sampling_rate
    voiced = (times_s >= SILENCE_S) & (times_s < ends_s[-1])
    current = np.minimum(np.searchsorted(ends_s, times_s, side="right"), len(WEIGHTS) - 1)
    elapsed = np.clip(1 - (ends_s[current] - times_s) / durations_s[current], 0.0, 1.0)  # of its syllable

    accents = random.standard_normal(len(WEIGHTS))
    contour_st = cues.range_st * (accents - accents.mean())
    contour_st += cues.slope_st * np.linspace(-0.5, 0.5, len(WEIGHTS))
    pitch_hz = actor_pitch_hz * 2.0 ** ((cues.pitch_st + np.interp(times_s, middles_s, contour_st)) / 12)
    # A syllable swells fast, then fades.
    envelope = voiced * np.sqrt(WEIGHTS)[current] * np.sin(np.pi * elapsed**0.8) ** 0.7
    pulses = envelope * _pulses(pitch_hz, cues, sampling_rate, random)
    breath = envelope * random.standard_normal(len(times_s))
    voice = _resonate(pulses, breath, cues, sampling_rate, middles_s, formants_hz)
    voice /= np.sqrt(np.mean(voice[voiced] ** 2))
    # Friction arises past the formants, at the teeth; differences of white noise rise by 6 dB an octave.
    hiss = np.diff(random.standard_normal(len(times_s) + 1)) * hisses[current] * voiced
    voice += 0.5 * hiss * np.exp(-((elapsed / 0.15) ** 2))
    voice *= min(10.0 ** (cues.level_dbfs / 20), 0.9 / np.abs(voice).max())  # loud, but never clipped
    voice += 10.0 ** (NOISE_FLOOR_DBFS / 20) * random.standard_normal(len(voice))
    return np.rint(voice * 32767).astype(np.int16)


def _pulses(pitch_hz: Floats, cues: Cues, sampling_rate: int, random: np.random.Generator) -> Floats:
    """Return glottal pulses, shape (n,), one a period of `pitch_hz`, shape (n,)."""
    cycles = np.cumsum(pitch_hz) / sampling_rate
    samples = np.interp(np.arange(1, int(cycles[-1])), cycles, np.arange(len(cycles)))
    periods = sampling_rate / pitch_hz[samples.astype(int)]
    samples += cues.jitter * periods * random.standard_normal(len(samples))
    heights = 1 + cues.shimmer * random.standard_normal(len(samples))
    heights[::2] *= 1 - cues.creak
    # Shared between two neighbours: whole samples alone would add jitter of their own.
    whole = np.clip(samples.astype(int), 0, len(cycles) - 2)
    pulses = np.zeros(len(cycles))
    np.add.at(pulses, whole, heights * (1 - (samples - whole)))
    np.add.at(pulses, whole + 1, heights * (samples - whole))
    return pulses


def _resonate(
    pulses: Floats, breath: Floats, cues: Cues, sampling_rate: int, times_s: Floats, formants_hz: Floats
) -> Floats:
    """Return the voice, shape (n,): the two sources, shape (n,), through moving formants."""
    # `formants_hz`, shape (syllables, 5), hold at `times_s`, shape (syllables,). Frames of about 32 ms, half
    # overlapping, are filtered by Klatt's digital resonators in the frequency domain and added up.
    hop = 2 ** round(np.log2(0.016 * sampling_rate))
    n_samples, n_frames = len(pulses), len(pulses) // hop + 2
    n_fft = 4 * hop  # a frame is 2 hops; as much again is room for the resonators to ring
    hann = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * hop) / hop)
    sources = np.zeros((2, (n_frames + 1) * hop))
    sources[:, hop : hop + n_samples] = pulses, breath
    frames = np.lib.stride_tricks.sliding_window_view(sources, 2 * hop, axis=1)[:, ::hop]
    voice, noise = np.fft.rfft(frames * hann, n_fft)

    frequencies_hz = np.fft.rfftfreq(n_fft, 1 / sampling_rate)
    voice *= 10.0 ** (cues.tilt_db * np.log2(np.maximum(frequencies_hz, 100.0) / 100.0) / 20)
    noise /= 1 + frequencies_hz / 2000.0
    # Not numpy.linalg.norm: its BLAS adds up in another order, and very slowly here, with more threads.
    ratio = np.sqrt(np.mean(np.abs(voice) ** 2) / np.mean(np.abs(noise) ** 2))
    voice += 10.0 ** (cues.breath_db / 20) * ratio * noise
    voice[:, frequencies_hz < 50.0] = 0.0  # lips radiate no steady pressure

    frame_times_s = np.arange(n_frames) * hop / sampling_rate
    delay = np.exp(-2j * np.pi * frequencies_hz / sampling_rate)
    for targets_hz, bandwidth_hz in zip(formants_hz.T, BANDWIDTHS_HZ, strict=True):
        if targets_hz.max() > 0.47 * sampling_rate:
            break  # no room below half the sampling rate
        radius = np.exp(-np.pi * bandwidth_hz / sampling_rate)
        angles = 2 * np.pi * np.interp(frame_times_s, times_s, targets_hz)[:, None] / sampling_rate
        gains = 1 - 2 * radius * np.cos(angles) + radius**2
        voice *= gains / (1 - 2 * radius * np.cos(angles) * delay + radius**2 * delay**2)
    filtered = np.fft.irfft(voice, n_fft).reshape(n_frames, 4, hop)
    output = np.zeros((n_frames + 3, hop))
    for quarter in range(4):
        output[quarter : quarter + n_frames] += filtered[:, quarter]
    return output.ravel()[hop : hop + n_samples]
