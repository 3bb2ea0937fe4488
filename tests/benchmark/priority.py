"""How well the priority of calls finds angry customers, and `listen_at_s` the anger.

python tests/benchmark/priority.py CORPUS... [--model open] [--calls 96] [--seed 0] [--scratch DIR]

Calls are composed of the recordings of each corpus: in stereo, at 8 kHz as G.711 mu-law, 110 s long. The agent
(channel 0) and the customer (channel 1) are two speakers and take turns in neutral speech. In two of eight calls the
customer is angry for 15 s, in two happy, in one sad, in three neither. All clips have one level, so that loudness is
no clue. Give corpora that the model was not trained on; the figures of others flatter.
"""

import argparse
import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import soundfile
import soxr

from ser_batch import score
from ser_batch.corpus.walk import walk

RATE = 8000  # Hz
LEVEL = 0.06  # root mean square of every clip
CALL_S, STRETCH_S = 110.0, 15.0
KINDS = ("none", "angry", "none", "happy", "sad", "angry", "none", "happy")
N_RANKED, N_ANGRY, N_DRAWS = 100, 10, 2000
BEFORE_S = 3.0  # where to listen may lie as long before the stretch

Samples = npt.NDArray[np.float32]
Clips = dict[str, dict[str, list[Path]]]  # files by speaker and emotion


@dataclasses.dataclass(frozen=True)
class Call:
    """A composed call, and where its customer is not neutral."""

    name: str
    kind: str
    start_s: float | None
    end_s: float | None


def clips_of(corpus: Path) -> Clips:
    """Return the speech of the speakers who have all that a call needs; calm counts as neutral."""
    clips: Clips = defaultdict(lambda: defaultdict(list))
    for recording in walk(corpus).recordings:
        known = recording.metadata
        if known is not None and known.speaker and known.emotion and known.vocal_channel != "song":
            emotion = "neutral" if known.emotion == "calm" else known.emotion
            clips[known.speaker][emotion].append(corpus / recording.path)
    return {speaker: own for speaker, own in sorted(clips.items()) if {"neutral", *KINDS[1:]} - {"none"} <= own.keys()}


def spoken(file: Path) -> Samples:
    """Return a clip at 8 kHz and the level of all."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, RATE)
    return np.asarray(mono * (LEVEL / max(1e-4, float(np.sqrt((mono**2).mean())))), dtype=np.float32)


def composed(clips: Clips, number: int, seed: int, out: Path) -> Call:
    """Write one call."""
    random = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    agent, customer = random.choice(list(clips), 2, replace=False)
    channels: tuple[list[Samples], list[Samples]] = ([], [])
    begins_after_s, now_s = random.uniform(25, 70), 0.0
    start_s = end_s = None

    def say(channel: int, speaker: str, emotion: str) -> float:
        """Let somebody say one clip and pause; return the time after it."""
        files = clips[speaker][emotion]
        pause = np.zeros(int(RATE * random.uniform(0.2, 0.7)), dtype=np.float32)
        samples = np.concatenate([spoken(files[random.integers(len(files))]), pause])
        channels[channel].append(samples)
        channels[1 - channel].append(np.zeros_like(samples))
        return now_s + len(samples) / RATE

    while now_s < CALL_S:
        for _ in range(random.integers(1, 4)):
            now_s = say(0, agent, "neutral")
        if kind != "none" and start_s is None and now_s >= begins_after_s:
            start_s = now_s
            while now_s - start_s < STRETCH_S:
                now_s = say(1, customer, kind)
            end_s = now_s
        else:
            for _ in range(random.integers(1, 4)):
                now_s = say(1, customer, "neutral")
    call = np.stack([np.concatenate(own) for own in channels], axis=1)
    call += random.normal(0, 3e-4, call.shape).astype(np.float32)
    name = f"call-{number:04d}.wav"
    soundfile.write(out / name, np.clip(call, -1, 1), RATE, subtype="ULAW")
    return Call(name, kind, start_s, end_s)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return how often one of the positive is above one of the negative."""
    one, other = np.array(positive)[:, None], np.array(negative)[None, :]
    return float(((one > other) + 0.5 * (one == other)).mean())


def right_at_the_top(angry: Sequence[float], others: Sequence[float], seed: int) -> float:
    """Return how many of the first ten of a hundred customers are angry, where ten are."""
    random = np.random.default_rng(seed)
    holds = np.arange(N_RANKED) < N_ANGRY
    counts = []
    for _ in range(N_DRAWS):
        drawn = [random.choice(angry, N_ANGRY), random.choice(others, N_RANKED - N_ANGRY)]
        first = np.argsort(-np.concatenate(drawn) + random.uniform(0, 1e-9, N_RANKED))[:N_ANGRY]
        counts.append(holds[first].sum())
    return float(np.mean(counts))


def figures(calls: Sequence[Call], table: pl.DataFrame, seed: int) -> dict[str, float]:
    """Return the figures of a corpus."""
    of_channel = {(row["path"], row["channel"]): row for row in table.iter_rows(named=True)}

    def priorities(*kinds: str, channel: int = 1) -> list[float]:
        rows = [of_channel[call.name, channel] for call in calls if call.kind in kinds]
        return [-1.0 if row["priority"] is None else row["priority"] for row in rows]

    angry = priorities("angry")
    found = []
    for call in calls:
        at_s = of_channel[call.name, 1]["listen_at_s"]
        if call.kind == "angry":
            assert call.start_s is not None
            assert call.end_s is not None
            found.append(at_s is not None and call.start_s - BEFORE_S <= at_s <= call.end_s)
    return {
        "AUC, none": auc(angry, priorities("none")),
        "AUC, happy": auc(angry, priorities("happy")),
        "AUC, sad": auc(angry, priorities("sad")),
        "AUC, agents": auc(angry, priorities(*KINDS, channel=0)),
        "listen_at_s right": float(np.mean(found)),
        "of the first 10": right_at_the_top(angry, priorities("none", "happy", "sad"), seed),
    }


def main() -> None:
    """Compose, score and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", type=Path, metavar="CORPUS")
    parser.add_argument("--model", default="open")
    parser.add_argument("--calls", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        for corpus in options.corpora:
            audio = scratch / f"{corpus.name}-{options.seed}"
            audio.mkdir(parents=True, exist_ok=True)
            clips = clips_of(corpus)
            calls = [composed(clips, number, options.seed, audio) for number in range(options.calls)]
            scored = score(audio, out=scratch / f"{audio.name}-{Path(options.model).name}.parquet", model=options.model)
            rows.append({"corpus": corpus.name, **figures(calls, scored.calls, options.seed)})
    with pl.Config(tbl_cols=-1, float_precision=3, tbl_hide_dataframe_shape=True, tbl_width_chars=140):
        print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
