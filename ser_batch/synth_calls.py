"""Made-up telephone calls: stereo, an agent and a customer, some of whom get angry, with labels and dates.

The voices are those of `synth`, so nobody speaks here either.
"""

import csv
import dataclasses
import datetime
import io
from pathlib import Path

import numpy as np

from ser_batch.arrays import Array
from ser_batch.errors import UsageError
from ser_batch.storage.atomic import write_text
from ser_batch.synth import Clip, SynthSummary, refuse_files, say, write_wav

LABELS_FILE = "labels.csv"
RATE = 8000  # Hz
CALL_S, STRETCH_S = 60.0, 15.0
PAUSE_S = (0.15, 0.4)  # between two clips
LINE_NOISE = 10.0  # of 32768
TURN_S = (2.0, 8.0)
AGENTS, CUSTOMERS = (1, 2, 3, 4), tuple(range(5, 25))  # actors of `synth`
# what a customer becomes, call by call: RAVDESS's codes
NEUTRAL, HAPPY, SAD, ANGRY = 1, 3, 4, 5
COURSES = (NEUTRAL, ANGRY, NEUTRAL, HAPPY, NEUTRAL, SAD, NEUTRAL, ANGRY)
NAMES = {NEUTRAL: "neutral", HAPPY: "happy", SAD: "sad", ANGRY: "angry"}
FIRST_DAY, N_DAYS = datetime.date(2026, 3, 2), 5  # a Monday
MAX_CALLS = 10_000


@dataclasses.dataclass
class _Call:
    """One call while it is made: samples of both channels, and who says what from when to when."""

    random: np.random.Generator
    seed: int
    speakers: tuple[int, int]
    channels: tuple[list[Array], list[Array]] = dataclasses.field(default_factory=lambda: ([], []))
    now_s: float = 0.0
    stretches: list[tuple[int, float, float, str]] = dataclasses.field(default_factory=list)

    def turn(self, channel: int, emotion: int, lasts_s: float) -> None:
        """Let one side talk for some seconds."""
        start_s, n_samples = self.now_s, 0
        while n_samples / RATE < lasts_s:
            intensity = 1 if emotion == NEUTRAL else 2
            clip = Clip(self.speakers[channel], emotion, intensity, *self.random.integers(1, 3, 2).tolist())
            pause = np.zeros(int(RATE * self.random.uniform(*PAUSE_S)), dtype=np.int16)
            samples = np.concatenate([say(clip, RATE, self.seed), pause])
            self.channels[channel].append(samples)
            self.channels[1 - channel].append(np.zeros_like(samples))
            n_samples += len(samples)
        self.now_s += n_samples / RATE
        self.stretches.append((channel, start_s, self.now_s, NAMES[emotion]))

    def write(self, path: Path) -> None:
        """Write both channels as G.711 mu-law, with the faint noise of a line."""
        samples = np.stack([np.concatenate(own) for own in self.channels], axis=1).astype(np.float64)
        samples += LINE_NOISE * self.random.standard_normal(samples.shape)
        write_wav(path, np.rint(samples).clip(-32768, 32767).astype(np.int16), RATE, "ULAW")


def synth_calls(folder: Path, *, calls: int, seed: int = 0, overwrite: bool = False) -> SynthSummary:
    """Write made-up calls: stereo WAV files of about a minute, 8 kHz mu-law, the agent on channel 0.

    A quarter of the customers are angry for 15 s, an eighth happy, an eighth sad. The same arguments give the same
    bytes on the same machine, and a call does not depend on how many others there are, but for its date.

    Parameters
    ----------
    folder
        Where ``2026-03-02/call-0001.wav`` and so on go, and ``labels.csv``, which says who is of which emotion from
        when to when, for ``--labels``; made where it is not there.
    calls
        1 to 10,000.
    seed
        0 to 2**32 - 1; another seed makes other voices.
    overwrite
        Write into a folder that holds files; only those of the same names are replaced.

    Raises
    ------
    UsageError
        A number is out of its range.
    OutputError
        The folder holds files and `overwrite` is False, or it cannot be written.
    """
    for name, value, lowest, highest in (("calls", calls, 1, MAX_CALLS), ("seed", seed, 0, 2**32 - 1)):
        if not lowest <= value <= highest:
            raise UsageError(f"{name} is out of range; expected a whole number up to {highest}")
    refuse_files(folder, overwrite=overwrite)
    rows: list[list[str]] = []
    audio_s = 0.0
    for number in range(calls):
        day = FIRST_DAY + datetime.timedelta(days=number * N_DAYS // calls)
        path = f"{day.isoformat()}/call-{number + 1:04d}.wav"
        call = _made(number, seed)
        call.write(folder / path)
        rows += [
            [path, str(channel), f"{start:.3f}", f"{end:.3f}", name] for channel, start, end, name in call.stretches
        ]
        audio_s += call.now_s
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["path", "channel", "start_s", "end_s", "emotion"], *rows])
    write_text(folder / LABELS_FILE, text.getvalue())
    return SynthSummary(out=folder, n_recordings=calls, audio_s=audio_s)


def _made(number: int, seed: int) -> _Call:
    """Return a call of alternating turns; the customer's stretch begins in its second quarter."""
    random = np.random.default_rng([seed, number])
    call = _Call(random, seed, (int(random.choice(AGENTS)), int(random.choice(CUSTOMERS))))
    course, begins_after_s = COURSES[number % len(COURSES)], random.uniform(CALL_S / 4, CALL_S / 2)
    while call.now_s < CALL_S:
        call.turn(0, NEUTRAL, random.uniform(*TURN_S))
        if course != NEUTRAL and call.now_s >= begins_after_s:
            call.turn(1, course, STRETCH_S)
            course = NEUTRAL
        else:
            call.turn(1, NEUTRAL, random.uniform(*TURN_S))
    return call
