"""Telephone calls made by a program, so that the truth is known to the sample.

python tests/calls_corpus.py OUT --calls 20 --seed 0 [--clips FOLDER] [--plain]

Clips of speech are laid on the time line of calls at 8 kHz, most of them in stereo with a party a channel, among
silence, tones of the line, bursts and beds of noise, changes of level, and codecs. Beside the calls lie the clips as
they were before all that. The clips are made up (`ser_batch.synth`), or those of RAVDESS in the folder given.

    OUT/calls/call_0000.wav ...   to be scored
    OUT/clips/03-01-....wav ...   each clip by itself, 8 kHz, 16 bits
    OUT/truth.parquet             each channel's time from start to end, without gaps: what is there
    OUT/labels.csv                where each clip lies, for --labels

The same arguments give the same samples, and a call does not depend on how many others there are.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import soundfile
import soxr

from ser_batch.corpus.known_corpora import parse_name
from ser_batch.synth import synth

Samples = npt.NDArray[np.float32]

RATE = 8000  # Hz
GRID = 320  # samples; every call is a whole number of them, so that no codec has to fill up its last frame

# what is where in a channel
SPEECH, TONE, NOISE, SILENCE = "speech", "tone", "noise", "silence"

# ---------------------------------------------------------------------------------------------------------- clips

FRAME = 80  # samples, 10 ms
# a frame is speech when it is that much above the clip's quietest tenth, and not that much below its loudest twentieth
OVER_FLOOR_DB, BELOW_LOUD_DB = 10.0, 32.0
LONGEST_GAP, SHORTEST_SOUND = 30, 8  # frames: a closure between syllables is speech, a click by itself is not


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip of one speaker.

    Parameters
    ----------
    name
        Of its file, without a suffix, as RAVDESS has it.
    samples
        Shape (n,), at 8 kHz; multiples of 1 / 32768, so that 16 bits hold them.
    speech
        Where in it someone speaks, as pairs of first sample and end.
    emotion, speaker
        As its name says.
    """

    name: str
    samples: Samples
    speech: tuple[tuple[int, int], ...]
    emotion: str
    speaker: str


def made_up_clips(*, actors: int = 4, seed: int = 0) -> list[Clip]:
    """Return the clips of `ser_batch.synth`, 30 an actor, in the order of their names."""
    with tempfile.TemporaryDirectory() as folder:
        synth(Path(folder), actors=actors, repetitions=1, sampling_rate=RATE, seed=seed)
        return [read_clip(path) for path in sorted(Path(folder).rglob("*.wav"))]


def recorded_clips(folder: Path, *, at_most: int = 240, seed: int = 0) -> list[Clip]:
    """Return clips of RAVDESS's speech drawn from a folder, at most as many of each emotion.

    Song is left out, and so are clips with more than one stretch of sound: the others are breaths and clicks, or words
    too soft for their edges to be told.
    """
    by_emotion: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("03-01-*.*")):
        by_emotion.setdefault(path.name.split("-")[2], []).append(path)
    if not by_emotion:
        raise SystemExit(f"{folder}: holds no recordings that are named like RAVDESS's speech")
    random = np.random.default_rng(seed)
    each = -(-at_most // len(by_emotion))
    chosen = [random.permutation(np.array(paths, dtype=object))[:each] for paths in by_emotion.values()]
    clips = (read_clip(path) for path in sorted(np.concatenate(chosen)))
    return [clip for clip in clips if len(clip.speech) == 1][:at_most]


def read_clip(path: Path) -> Clip:
    """Read a clip of RAVDESS, and find out where in it someone speaks."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    narrow = soxr.resample(samples.mean(axis=1), rate, RATE, quality="HQ")
    narrow = in_16_bits(np.clip(narrow, -1, 1))
    metadata = parse_name(path.name)
    if metadata is None or metadata.emotion is None or metadata.speaker is None:
        raise SystemExit(f"{path}: is not named like a recording of RAVDESS")
    return Clip(path.stem, narrow, speech_in(narrow), metadata.emotion, metadata.speaker)


def speech_in(samples: Samples) -> tuple[tuple[int, int], ...]:
    """Return the stretches of a clean clip, shape (n,), that hold speech, by its energy in frames of 10 ms.

    Pairs of first sample and end; pauses below 0.3 s are part of the speech.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    frames = frames - frames.mean()
    level_db = 10 * np.log10((frames**2).mean(axis=1) + 1e-10)
    floor_db, loud_db = np.quantile(level_db, (0.1, 0.95))
    # what begins and ends within the clip; the loudest part of a clip that is all speech has no floor to stand over
    threshold_db = max(loud_db - BELOW_LOUD_DB, min(floor_db + OVER_FLOOR_DB, loud_db - 15))
    edges = np.flatnonzero(np.diff(np.concatenate(([0], level_db > threshold_db, [0]))))
    joined: list[list[int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if joined and start - joined[-1][1] < LONGEST_GAP:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return tuple((start * FRAME, end * FRAME) for start, end in joined if end - start >= SHORTEST_SOUND)


def in_16_bits(samples: Samples) -> Samples:
    """Return the samples as 16 bits hold them."""
    return np.asarray(np.clip(np.rint(samples * 32768), -32768, 32767) / 32768, dtype=np.float32)


# ----------------------------------------------------------------------------------------------- how files are written


@dataclasses.dataclass(frozen=True)
class Encoding:
    """A way to write a recording; libsndfile's names, and whether it takes one channel only.

    `settings` are the compression level, 0 (best) to 1, and the bit rate mode, where the codec has them.
    """

    suffix: str
    container: str
    subtype: str
    is_mono: bool = False
    settings: tuple[float | None, str | None] = (None, None)


ENCODINGS = {
    "pcm16": Encoding(".wav", "WAV", "PCM_16"),
    "pcm8": Encoding(".wav", "WAV", "PCM_U8"),
    "pcm24": Encoding(".wav", "WAV", "PCM_24"),
    "pcm32": Encoding(".wav", "WAV", "PCM_32"),
    "float": Encoding(".wav", "WAV", "FLOAT"),
    "double": Encoding(".wav", "WAV", "DOUBLE"),
    "mulaw": Encoding(".wav", "WAV", "ULAW"),
    "alaw": Encoding(".wav", "WAV", "ALAW"),
    "gsm": Encoding(".wav", "WAV", "GSM610", is_mono=True),
    "raw gsm": Encoding(".gsm", "RAW", "GSM610", is_mono=True),
    "g721": Encoding(".wav", "WAV", "G721_32", is_mono=True),
    "ima adpcm": Encoding(".wav", "WAV", "IMA_ADPCM"),
    "ms adpcm": Encoding(".wav", "WAV", "MS_ADPCM"),
    "flac": Encoding(".flac", "FLAC", "PCM_16"),
    "flac24": Encoding(".flac", "FLAC", "PCM_24"),
    "mp3": Encoding(".mp3", "MP3", "MPEG_LAYER_III", settings=(0.6, "CONSTANT")),  # 32 kbit/s
    "mp3 vbr": Encoding(".mp3", "MP3", "MPEG_LAYER_III", settings=(0.3, "VARIABLE")),  # about 20
    "vorbis": Encoding(".ogg", "OGG", "VORBIS"),
    "opus": Encoding(".opus", "OGG", "OPUS"),
    "au": Encoding(".au", "AU", "PCM_16"),
    "au mulaw": Encoding(".au", "AU", "ULAW"),
    "au g721": Encoding(".au", "AU", "G721_32", is_mono=True),
    "aiff": Encoding(".aiff", "AIFF", "PCM_16"),
}
# those of which the calls are drawn, mono or stereo
OF_CALLS = ("pcm16", "mulaw", "mulaw", "alaw", "gsm", "mp3", "opus", "vorbis", "flac")


def write(file: Path, samples: Samples, encoding: Encoding) -> None:
    """Write a recording, shape (n, channels).

    An encoding of one channel only is a leg of the call: each party goes through it, what comes out is kept as
    16-bit WAV.
    """
    if encoding.is_mono and samples.shape[1] > 1:
        legs = []
        for leg in samples.T:
            write(file, leg[:, None], encoding)
            legs.append(soundfile.read(file, dtype="float32")[0][: len(samples)])
        samples, encoding = np.stack(legs, axis=1), ENCODINGS["pcm16"]
    compression, mode = encoding.settings
    with soundfile.SoundFile(
        file,
        "w",
        RATE,
        samples.shape[1],
        encoding.subtype,
        format=encoding.container,
        compression_level=compression,
        bitrate_mode=mode,
    ) as stream:
        for start in range(0, len(samples), RATE):  # libvorbis overflows its stack when it is given minutes at once
            stream.write(samples[start : start + RATE])


# ---------------------------------------------------------------------------------------------------------- sounds


def tone(hz: Sequence[float], n: int, dbfs: float) -> Samples:
    """Return sines of equal level, together `dbfs`, that begin and end within 5 ms."""
    times_s = np.arange(n) / RATE
    wave = sum(np.sin(2 * np.pi * f * times_s) for f in hz) * np.sqrt(2 / len(hz)) * 10 ** (dbfs / 20)
    ramp = np.minimum(1, np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) / (0.005 * RATE))
    return np.asarray(wave * ramp, dtype=np.float32)


def noise(n: int, dbfs: float, color: str, random: np.random.Generator) -> Samples:
    """Return white noise, or pink noise, whose power falls by 3 dB an octave above 50 Hz."""
    wave = random.standard_normal(n)
    if color == "pink":
        spectrum = np.fft.rfft(wave)
        spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(n, 1 / RATE), 50))
        wave = np.fft.irfft(spectrum, n)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)) * 10 ** (dbfs / 20), dtype=np.float32)


DTMF_HZ = {
    digit: (low, high)
    for low, row in zip((697, 770, 852, 941), ("123A", "456B", "789C", "*0#D"), strict=True)
    for high, digit in zip((1209, 1336, 1477, 1633), row, strict=True)
}
CALL_PROGRESS_HZ = 425  # ETSI TR 101 041: ringing 1 s on, 4 s off; busy 0.5 s on and off


# ----------------------------------------------------------------------------------------------------------- calls

GAPS_S = (0.3, 2.5)  # between turns
LEVELS_DBFS = (-18.0, -26.0, -34.0)  # of a party's speech; -26 is what ITU-T P.56 measures by
SNRS_DB = (None, None, 40.0, 30.0, 20.0, 10.0)  # of its channel; None stands for no noise at all


@dataclasses.dataclass
class _Part:
    """One sound on a channel's time line; `start` and `end` in samples."""

    start: int
    samples: Samples
    kind: str
    clip: Clip | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.samples)


@dataclasses.dataclass(frozen=True)
class Call:
    """A call before it is written.

    Parameters
    ----------
    name
        Of its file, with suffix.
    samples
        Shape (n, channels).
    encoding
        A name in `ENCODINGS`.
    truth, labels
        Rows of the two tables.
    """

    name: str
    samples: Samples
    encoding: str
    truth: list[dict[str, Any]]
    labels: list[dict[str, Any]]


def make_call(number: int, clips: Sequence[Clip], *, seed: int, turns: int, plain: bool) -> Call:
    """Make one call from (seed, number): its parties take turns, and speak at once now and then."""
    random = np.random.default_rng((seed, number))
    n_channels = 1 if random.random() < 0.25 else 2
    by_speaker: dict[str, list[Clip]] = {}
    for clip in clips:
        by_speaker.setdefault(clip.speaker, []).append(clip)
    parties = random.permutation(sorted(by_speaker))[:2].tolist()
    levels_dbfs = random.choice(LEVELS_DBFS, n_channels)
    lines: list[list[_Part]] = [[] for _ in range(n_channels)]
    at = _opening(lines[0], random, plain=plain)
    for turn in range(turns):
        party = turn % len(parties)
        own = by_speaker[parties[party]]
        clip = own[random.integers(len(own))]
        line = lines[party % n_channels]
        busy_until = max((part.end for part in line), default=0)
        start = max(busy_until, at + round(random.uniform(*GAPS_S) * RATE))
        if n_channels > 1 and turn and random.random() < 0.2:  # it begins before the other one is done
            start = max(busy_until, at - RATE)
        factor = 1.0 if plain else gain(clip, levels_dbfs[party % n_channels] + random.uniform(-2, 2))
        line.append(_Part(start, clip.samples * np.float32(factor), SPEECH, clip))
        at = max(at, line[-1].end)
        if not plain and random.random() < 0.25:
            other = lines[random.integers(n_channels)]
            start = max(at, max((part.end for part in other), default=0)) + RATE // 4
            other.append(_between_turns(start, float(levels_dbfs[0]), random))
            at = other[-1].end
    at = _closing(lines[0], at, random, plain=plain)
    n = -(-(at + round(random.uniform(0.5, 3.0) * RATE)) // GRID) * GRID
    encoding = "pcm16" if plain else str(random.choice(OF_CALLS))
    written = ENCODINGS["pcm16" if n_channels > 1 and ENCODINGS[encoding].is_mono else encoding]
    name = f"call_{number:04d}{written.suffix}"
    samples = np.zeros((n, n_channels), dtype=np.float32)
    truth, labels = [], []
    for channel, line in enumerate(lines):
        for part in line:
            samples[part.start : part.end, channel] += part.samples
        about = {"path": name, "channel": channel, "encoding": encoding}
        conditions: dict[str, Any] = {"noise": None, "snr_db": None}
        if not plain:
            conditions = _change_channel(samples[:, channel], float(levels_dbfs[channel]), random)
        truth += [about | stretch | conditions for stretch in _stretches(line, n)]
        labels += [
            {
                "path": name,
                "channel": channel,
                "start_s": part.start / RATE,
                "end_s": part.end / RATE,
                "emotion": part.clip.emotion,
                "speaker": part.clip.speaker,
            }
            for part in line
            if part.clip
        ]
    return Call(name, np.clip(samples, -1, 32767 / 32768), encoding, truth, labels)


def gain(clip: Clip, dbfs: float) -> float:
    """Return the factor that brings a clip's speech to a level, less where its peaks would be clipped."""
    spoken = np.concatenate([clip.samples[start:end] for start, end in clip.speech])
    return float(min(10 ** (dbfs / 20) / np.sqrt(np.mean(spoken**2)), 0.9 / np.abs(clip.samples).max()))


def _opening(line: list[_Part], random: np.random.Generator, *, plain: bool) -> int:
    """Put what comes before the first word; return where it ends."""
    at = round(random.uniform(0.2, 2.0) * RATE)
    opening = "nothing" if plain else random.choice(["nothing", "ringing", "dialling"])
    if opening == "ringing":
        for _ in range(random.integers(1, 3)):
            line.append(_Part(at, tone([CALL_PROGRESS_HZ], RATE, random.uniform(-25, -12)), TONE))
            at = line[-1].end + 4 * RATE
        at -= round(random.uniform(0.0, 3.5) * RATE)  # somebody answers
    elif opening == "dialling":
        for digit in random.choice(list(DTMF_HZ), random.integers(1, 8)):
            line.append(_Part(at, tone(DTMF_HZ[str(digit)], RATE // 10, random.uniform(-20, -9)), TONE))
            at = line[-1].end + RATE // 10
    return at


def _between_turns(start: int, level_dbfs: float, random: np.random.Generator) -> _Part:
    """Return a key pressed, or a burst of noise that is softer than speech."""
    if random.random() < 0.5:
        digit = random.choice(list(DTMF_HZ))
        return _Part(start, tone(DTMF_HZ[str(digit)], round(random.uniform(0.1, 0.6) * RATE), -15), TONE)
    n = round(random.uniform(0.3, 3.0) * RATE)
    dbfs = level_dbfs - random.uniform(5, 20)
    return _Part(start, noise(n, dbfs, str(random.choice(["white", "pink"])), random), NOISE)


def _closing(line: list[_Part], at: int, random: np.random.Generator, *, plain: bool) -> int:
    """Put the busy tone after some calls; return where it ends."""
    if plain or random.random() < 0.5:
        return at
    dbfs = random.uniform(-25, -12)
    for _ in range(random.integers(2, 9)):
        line.append(_Part(at + RATE // 2, tone([CALL_PROGRESS_HZ], RATE // 2, dbfs), TONE))
        at = line[-1].end
    return at


def _change_channel(samples: Samples, level_dbfs: float, random: np.random.Generator) -> dict[str, Any]:
    """Change a channel's samples, shape (n,), in place: a bed of noise, and perhaps another level from some moment."""
    snr_db = SNRS_DB[random.integers(len(SNRS_DB))]
    color = None
    if snr_db is not None:
        color = str(random.choice(["white", "pink"]))
        samples += noise(len(samples), level_dbfs - snr_db, color, random)
    if random.random() < 0.3:
        samples[random.integers(len(samples)) :] *= np.float32(10 ** (random.choice([-10, -6, 6]) / 20))
    return {"noise": color, "snr_db": snr_db}


def _stretches(line: Sequence[_Part], n: int) -> Iterator[dict[str, Any]]:
    """Yield a channel's time from 0 to its end: what was put there, and silence for all the rest."""
    at = 0
    for part in line:
        spoken = part.clip.speech if part.clip else [(0, len(part.samples))]
        for start, end in spoken:
            if part.start + start > at:
                yield _stretch(at, part.start + start, SILENCE, None)
            at = part.start + end
            yield _stretch(part.start + start, at, part.kind, part.clip)
    if n > at:
        yield _stretch(at, n, SILENCE, None)


def _stretch(start: int, end: int, kind: str, clip: Clip | None) -> dict[str, Any]:
    return {
        "start_s": start / RATE,
        "end_s": end / RATE,
        "emotion": clip.emotion if clip else None,
        "speaker": clip.speaker if clip else None,
        "kind": kind,
        "clip": clip.name if clip else None,
    }


# ---------------------------------------------------------------------------------------------------------- corpus

TRUTH = {
    "path": pl.String,
    "channel": pl.Int16,
    "start_s": pl.Float64,
    "end_s": pl.Float64,
    "emotion": pl.String,
    "speaker": pl.String,
    "kind": pl.String,
    "clip": pl.String,  # the name of the clip
    "encoding": pl.String,  # what the call went through, a name in ENCODINGS
    "noise": pl.String,  # color of the noise under all of the channel, null for none
    "snr_db": pl.Float64,  # level of its speech over that noise
}


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Where everything is."""

    calls: Path
    clips: Path
    truth: Path
    labels: Path


def make_corpus(
    out: Path, clips: Sequence[Clip], *, calls: int = 20, seed: int = 0, turns: int = 10, plain: bool = False
) -> Corpus:
    """Write calls and what is known of them.

    Parameters
    ----------
    out
        A new or empty folder.
    clips
        What is said; at least two speakers.
    calls
        How many.
    seed
        Of all that is drawn at random.
    turns
        Clips a call.
    plain
        Leave the clips as they are: no codec, noise, tones, or changes of level, only silence around them.
    """
    corpus = Corpus(out / "calls", out / "clips", out / "truth.parquet", out / "labels.csv")
    corpus.calls.mkdir(parents=True)
    corpus.clips.mkdir()
    for clip in clips:
        soundfile.write(corpus.clips / f"{clip.name}.wav", clip.samples, RATE, "PCM_16")
    made = [make_call(number, clips, seed=seed, turns=turns, plain=plain) for number in range(calls)]
    for call in made:
        file = corpus.calls / call.name
        write(file, call.samples, ENCODINGS[call.encoding])
        decoded_s = len(soundfile.read(file)[0]) / RATE
        for row in call.truth:  # libsndfile ends some codecs with a frame of silence
            row["end_s"] = decoded_s if row["end_s"] == len(call.samples) / RATE else row["end_s"]
    pl.DataFrame([row for call in made for row in call.truth], schema=TRUTH).write_parquet(corpus.truth)
    pl.DataFrame([row for call in made for row in call.labels]).write_csv(corpus.labels)
    return corpus


def main() -> None:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--calls", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=10, help="clips a call (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: %(default)s)")
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="RAVDESS (default: voices are made up)")
    parser.add_argument("--plain", action="store_true", help="nothing but the clips and silence between them")
    arguments = parser.parse_args()
    clips = recorded_clips(arguments.clips, seed=arguments.seed) if arguments.clips else made_up_clips()
    corpus = make_corpus(
        arguments.out,
        clips,
        calls=arguments.calls,
        seed=arguments.seed,
        turns=arguments.turns,
        plain=arguments.plain,
    )
    truth = pl.read_parquet(corpus.truth)
    seconds = truth.group_by("kind").agg((pl.col("end_s") - pl.col("start_s")).sum()).sort("kind").rows()
    print(f"{corpus.calls}: {arguments.calls} calls, " + ", ".join(f"{kind} {s:.0f} s" for kind, s in seconds))


if __name__ == "__main__":
    main()
