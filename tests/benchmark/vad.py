"""Speech or not: our rule beside webrtcvad, on real calls and on mixes whose truth is known.

pip install webrtcvad-wheels
python tests/benchmark/vad.py --clips 40

Clips of RAVDESS and CREMA-D are laid on a time line, each 22 to 30 dB below full scale, with 0.5 to 5 s between them;
noise, tones and G.711 come on top. Speech is what the clean clip holds within 35 dB of its loudest 10 ms and 7 dB over
its quietest tenth; pauses below 0.25 s belong to it; only clips 45 dB over their own noise are taken. Of the real calls
30 s to 70 s were looked at by hand, on a spectrogram. All are frames of 30 ms, none left out at the edges.
"""

import io
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import webrtcvad
from harness import Row, argument_parser, corpus_folder, show

from ser_batch.vad.activity import runs
from ser_batch.vad.frames import FRAME_SAMPLES, VAD_RATE, Features, features, speech

Samples = npt.NDArray[np.float32]
Frames = npt.NDArray[np.bool_]
Track = tuple[Samples, Frames, Frames]  # sound, truth by frame, frames that count

SEED = 1
BATCH = 250 * FRAME_SAMPLES
# start and end of each stretch of speech, seconds
BY_HAND = {
    "call_40_agent": [(44.81, 50.85), (56.95, 58.0), (65.57, 65.97), (66.95, 70.0)],
    "call_40_caller": [
        *((30.0, 31.05), (31.77, 32.2), (32.93, 36.77), (37.47, 42.65), (51.77, 52.5), (53.53, 54.97)),
        *((55.33, 56.0), (59.47, 60.57), (61.6, 62.37), (63.22, 63.77), (64.05, 64.3)),
    ],
    "other_call_agent": [(30.0, 32.1), (41.9, 47.65), (55.53, 60.2), (62.47, 65.5), (69.35, 69.87)],
}
BY_HAND_S = (30.0, 70.0)


def load(path: Path) -> Samples:
    """Return a recording at 8 kHz, mono."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, VAD_RATE), dtype=np.float32)


def levels(samples: Samples, n: int) -> npt.NDArray[np.float64]:
    """Return the level of every n samples, dB."""
    whole = samples[: len(samples) // n * n].reshape(-1, n).astype(np.float64)
    return np.asarray(10 * np.log10(np.square(whole).mean(axis=1) + 1e-12))


def closed(frames: Frames, gap: int, burst: int) -> Frames:
    """Fill gaps of up to `gap` frames, drop bursts of fewer than `burst`."""
    frames = frames.copy()
    for start, end in zip(*runs(~frames), strict=True):
        if start > 0 and end < len(frames) and end - start <= gap:
            frames[start:end] = True
    for start, end in zip(*runs(frames), strict=True):
        if end - start < burst:
            frames[start:end] = False
    return frames


def clean_clips(files: Sequence[Path], n: int, random: np.random.Generator) -> list[tuple[Samples, Frames]]:
    """Return clips with little noise of their own, and where they speak, by 10 ms."""
    clips: list[tuple[Samples, Frames]] = []
    for i in random.permutation(len(files)):
        clip = load(files[i])
        level = levels(clip, 80)
        if level.max() - np.percentile(level, 10) >= 45:
            truth = closed(level > max(level.max() - 35, np.percentile(level, 10) + 7), 25, 4)
            clip = clip[: len(truth) * 80]
            power = np.square(clip[np.repeat(truth, 80)]).mean()
            clips.append((clip * np.float32(10 ** (random.uniform(-30, -22) / 20) / np.sqrt(power)), truth))
        if len(clips) == n:
            break
    return clips


def track(clips: Sequence[tuple[Samples, Frames]], random: np.random.Generator, sound: str = "") -> Track:
    """Lay clips on a time line with silence, or some other sound, between them."""
    parts: list[Samples] = []
    truths: list[Frames] = []
    for clip, truth in clips:
        gap = round(random.uniform(0.5, 5) * 100) * 80
        parts += [BETWEEN[sound](gap, random).astype(np.float32) if sound else np.zeros(gap, np.float32), clip]
        truths += [np.zeros(gap // 80, np.bool_), truth]
    samples = np.concatenate(parts)
    n = len(samples) // FRAME_SAMPLES
    is_speech = np.concatenate(truths)[: n * 3].reshape(n, 3).mean(axis=1) > 0.5
    return samples[: n * FRAME_SAMPLES], is_speech, np.ones(n, dtype=np.bool_)


def noise(n: int, color: str, random: np.random.Generator) -> Samples:
    """Return white or pink noise of unit power."""
    samples = random.standard_normal(n)
    if color == "pink":
        spectrum = np.fft.rfft(samples)
        samples = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), n * 50 / VAD_RATE)), n)
    return np.asarray(samples / np.sqrt(np.square(samples).mean()), dtype=np.float32)


def sines(n: int, *hertz: float, on_s: float = 1e9, period_s: float = 1e9) -> npt.NDArray[np.float64]:
    """Return tones of the same height, on for `on_s` of every `period_s`."""
    times_s = np.arange(n) / VAD_RATE
    tone = sum(np.sin(2 * np.pi * frequency * times_s) for frequency in hertz)
    return np.asarray(0.1 * tone * (times_s % period_s < on_s))


def keys(n: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return DTMF: 0.1 s each, 0.1 s apart."""
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477)
    one = VAD_RATE // 5
    pressed = [sines(one, random.choice(rows), random.choice(columns), on_s=0.1) for _ in range(n // one + 1)]
    return np.concatenate(pressed)[:n]


def music(n: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return plucked notes of six harmonics, four a second."""
    out = np.zeros(n + VAD_RATE)
    times_s = np.arange(VAD_RATE) / VAD_RATE
    for start in range(0, n, VAD_RATE // 4):
        hertz = 220 * 2 ** (random.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
        tones = sum(np.sin(2 * np.pi * hertz * k * times_s) / k for k in range(1, 7))
        out[start : start + VAD_RATE] += 0.05 * tones * np.exp(-4 * times_s)
    return out[:n]


BETWEEN: dict[str, Callable[[int, np.random.Generator], npt.NDArray[np.float64]]] = {
    "dial tone, 425 Hz": lambda n, _: sines(n, 425),
    "ringing, 425 Hz, 1 s of 5": lambda n, _: sines(n, 425, on_s=1, period_s=5),
    "ringing, 440 and 480 Hz, 2 s of 6": lambda n, _: sines(n, 440, 480, on_s=2, period_s=6),
    "busy, 480 and 620 Hz": lambda n, _: sines(n, 480, 620, on_s=0.5, period_s=1),
    "keys (DTMF)": keys,
    "music": music,
}


def g711(samples: Samples) -> Samples:
    """Encode as mu-law and decode."""
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1, 1), VAD_RATE, "ULAW", format="WAV")
    stream.seek(0)
    return np.asarray(soundfile.read(stream, dtype="float32")[0])


def mixes(clips: Sequence[tuple[Samples, Frames]]) -> dict[str, Track]:
    """Return the tracks of one corpus."""
    random = np.random.default_rng(SEED)
    samples, truth, counted = track(clips, random)
    speech_power = float(np.square(samples.reshape(-1, FRAME_SAMPLES)[truth]).mean())
    made = {"silence": (samples, truth, counted), "silence, G.711": (g711(samples), truth, counted)}
    for color, ratio_db in itertools.product(("white", "pink"), (30, 20, 10)):
        height = np.float32(np.sqrt(speech_power) * 10 ** (-ratio_db / 20))
        noisy = samples + height * noise(len(samples), color, random)
        made[f"{color} noise, {ratio_db} dB, G.711"] = (g711(noisy), truth, counted)
    for sound in BETWEEN:
        samples, truth, counted = track(clips, random, sound)
        line = samples + np.float32(10 ** (-70 / 20)) * noise(len(samples), "white", random)
        made[f"{sound}, G.711"] = (g711(line), truth, counted)
    return made


def real_calls(folder: Path) -> dict[str, Track]:
    """Return the calls that were looked at."""
    tracks = {}
    for name, stretches in BY_HAND.items():
        samples = load(folder / f"{name}.wav")
        n = len(samples) // FRAME_SAMPLES
        middles_s = (np.arange(n) + 0.5) * FRAME_SAMPLES / VAD_RATE
        truth = np.zeros(n, dtype=np.bool_)
        for start_s, end_s in stretches:
            truth |= (middles_s >= start_s) & (middles_s < end_s)
        counted = (middles_s >= BY_HAND_S[0]) & (middles_s < BY_HAND_S[1])
        tracks[name] = (samples[: n * FRAME_SAMPLES], truth, counted)
    return tracks


def by_ours(samples: Samples) -> Frames:
    """Return what we say."""
    return speech(Features.join([features(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)]))


def by_webrtcvad(mode: int, frame_ms: int) -> Callable[[Samples], Frames]:
    """Return what webrtcvad says, smoothed as ours is, by 30 ms."""

    def detect(samples: Samples) -> Frames:
        size = frame_ms * VAD_RATE // 1000
        data = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        vad = webrtcvad.Vad(mode)
        starts = range(0, len(data) - 2 * size + 1, 2 * size)
        said = np.array([vad.is_speech(data[i : i + 2 * size], VAD_RATE, size) for i in starts])
        # to 10 ms, then three of them decide
        tens = np.resize(np.repeat(said, frame_ms // 10), len(samples) // FRAME_SAMPLES * 3)
        return closed(tens.reshape(-1, 3).sum(axis=1) >= 2, 6, 3)

    return detect


DETECTORS: dict[str, Callable[[Samples], Frames]] = {
    "ours": by_ours,
    **{f"webrtcvad {mode}, {ms} ms": by_webrtcvad(mode, ms) for mode, ms in ((0, 30), (1, 30), (2, 30), (3, 30))},
    **{f"webrtcvad {mode}, {ms} ms": by_webrtcvad(mode, ms) for mode, ms in ((3, 20), (3, 10))},
}


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "--audio")
    parser.add_argument("--clips", type=int, default=40, help="clips of each corpus (default: %(default)s)")
    arguments = parser.parse_args()
    tracks: dict[str, Track] = real_calls(corpus_folder(arguments.audio, "calls"))
    for name, pattern in (("ravdess", "*/03-01-*"), ("crema-d", "*.opus")):
        files = sorted(corpus_folder(arguments.audio, name).glob(pattern))
        clips = clean_clips(files, arguments.clips, np.random.default_rng(SEED))
        tracks |= {f"{name}, {kind}": made for kind, made in mixes(clips).items()}
    rows: list[Row] = []
    seconds: dict[str, float] = dict.fromkeys(DETECTORS, 0.0)
    for name, (samples, truth, counted) in tracks.items():
        row: dict[str, Any] = {"recall / precision": name}
        for detector, detect in DETECTORS.items():
            started = time.process_time()
            found = detect(samples)
            seconds[detector] += time.process_time() - started
            right = int((found & truth & counted).sum())
            row[detector] = f"{right / (truth & counted).sum():.3f} / {right / max(1, (found & counted).sum()):.3f}"
        rows.append(row)
    hours = sum(len(samples) for samples, *_ in tracks.values()) / VAD_RATE / 3600
    cost = {detector: f"{spent / hours:.2f}" for detector, spent in seconds.items()}
    rows.append({"recall / precision": "seconds of one core for an hour", **cost})
    show(f"Frames of 30 ms, {hours:.2f} h", rows, arguments.markdown)


if __name__ == "__main__":
    main()
