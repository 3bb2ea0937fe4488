"""What the encoder costs: encoding, a whole score, the first result, memory, and training heads on embeddings.

python tests/benchmark/encoder.py --model DIR

Seconds are processor seconds of user and system, unless they are called wall time. Ours and what it is compared with
take turns.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported, and for all processes below

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import soundfile
import soxr
from harness import (
    CALL_RATE,
    Bar,
    Program,
    Row,
    argument_parser,
    corpus_folder,
    digits,
    interleave,
    make_once,
    measure,
    scratch_folder,
    ser_batch,
    show,
    stereo_calls,
)
from matrix_products import products

from ser_batch.config.features import EncoderSpec
from ser_batch.config.segmentation import Segmentation
from ser_batch.encoder.model import Encoder, find_encoder, load_encoder, read_encoder_spec
from ser_batch.encoder.pooling import Embedding
from ser_batch.model.folder import find_model
from ser_batch.storage.atomic import write_json
from ser_batch.tables.parquet import part_writer, rows_table
from ser_batch.tables.schemas import features_schema

Samples = npt.NDArray[np.float32]

PARTS = ("encoding", "score", "first", "memory", "train")
WINDOW_S = 4.04
ENCODING_BAR = Bar("at most", 1.3)
SCORE_BAR = Bar("at most", 1.4)
FIRST_BAR = Bar("at most", 1.5)
MEMORY_BAR = Bar("at most", 500)
GROWTH_BAR = Bar("at most", 10)
TRAIN_BAR = Bar("at most", 180)
LABELS = ("angry", "disgust", "fearful", "happy", "neutral", "sad")
VARIANTS = ("clean", "g711", "noise10")
SHORT_S = 600


def cpu_s(work: Callable[[], object]) -> float:
    """Return the processor seconds of a piece of work in this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def embed(loaded: Encoder, samples: Samples) -> Embedding:
    """Encode one segment as score does."""
    segment = loaded.segment()
    segment.feed(samples)
    return segment.finish()


def ratio_row(name: str, ours: Sequence[float], peer: Sequence[float], bar: Bar) -> Row:
    """Compare runs that took turns: medians, and the median ratio of neighbors."""
    ratio = statistics.median(own / other for own, other in zip(ours, peer, strict=True))
    return {
        "ours": name,
        "median s": digits(statistics.median(ours)),
        "compared with, s": digits(statistics.median(peer)),
        "ratio": digits(ratio),
        **bar.judge(ratio),
    }


# ----------------------------------------------------------------------------------------------------- encoding


def encoding(place: str, speech: Samples, runs: int) -> Row:
    """Encode windows of speech by turns with the encoder's own matrix products, one thread, float32."""
    loaded = load_encoder(find_encoder(place))
    size = round(WINDOW_S * loaded.spec.sampling_rate)
    n_tokens = math.ceil(WINDOW_S / loaded.spec.seconds_per_token)
    multiply = products(loaded.spec, n_tokens)
    windows = [speech.take(np.arange(i * size, (i + 1) * size), mode="wrap") for i in range(runs)]
    embed(loaded, windows[0])
    multiply()
    pairs = [(cpu_s(lambda own=own: embed(loaded, own)), cpu_s(multiply)) for own in windows]  # type: ignore[misc]
    ours, peer = zip(*pairs, strict=True)
    return ratio_row(f"a window of {WINDOW_S} s, {loaded.spec.encoder}", ours, peer, ENCODING_BAR)


# -------------------------------------------------------------------------------------------------------- score


def scored_segments(calls: Path, predictions: Path, rate: int) -> list[Samples]:
    """Return the samples of all segments that score gave a label."""
    scored = pl.read_parquet(predictions).filter(pl.col("predicted").is_not_null())
    found = []
    for (path,), rows in scored.group_by(["path"], maintain_order=True):
        samples, own_rate = soundfile.read(calls / str(path), dtype="float32")
        samples = soxr.resample(samples, own_rate, rate)
        for channel, start_s, end_s in rows.select("channel", "start_s", "end_s").iter_rows():
            found.append(samples[round(start_s * rate) : round(end_s * rate), channel].copy())
    return found


def score(model: Path, place: str, calls: Path, scratch: Path, runs: int) -> Row:
    """Score calls with one job by turns with the encoding of the segments that were scored."""
    out = scratch / "encoder-score"
    program = score_program("score", calls, str(model), out)
    measure(program)
    loaded = load_encoder(find_encoder(place))
    segments = scored_segments(calls, out / "preds.parquet", loaded.spec.sampling_rate)
    ours, peer = [], []
    for _ in range(runs):
        ours.append(measure(program).cpu_s)
        peer.append(cpu_s(lambda: [embed(loaded, own) for own in segments]))
    return ratio_row(f"score, {len(segments)} scored segments", ours, peer, SCORE_BAR)


def score_program(name: str, audio: Path, model: str, out: Path) -> Program:
    """Return a run of score with one job, from nothing."""
    return Program(
        name, ser_batch("score", audio, "--model", model, "--out", out / "preds.parquet", "--jobs", 1), [out]
    )


def first_result(model: Path, fast: str, speech: Samples, scratch: Path, runs: int) -> Row:
    """Score one clip of 4 s, whole processes, with the model and with a network on MFCCs."""
    clip = scratch / "encoder-clip" / "clip.wav"
    clip.parent.mkdir(exist_ok=True)
    soundfile.write(clip, speech[: 4 * CALL_RATE], CALL_RATE, subtype="ULAW")
    programs = [score_program(name, clip, name, scratch / "encoder-first") for name in (str(model), fast)]
    measured = interleave(programs, runs)
    ours, peer = ([run.wall_s for run in measured[program.name]] for program in programs)
    return ratio_row(f"first result of a clip, wall time, beside {fast}", ours, peer, FIRST_BAR)


# ------------------------------------------------------------------------------------------------------- memory


def memory(model: Path, speech: Samples, scratch: Path, lengths: int, hours: float) -> list[Row]:
    """Score recordings of many lengths, whole, and one long one; compare peaks with those of shorter work."""
    many = scratch / "encoder-lengths"
    programs = []
    for name, n in (("few", lengths // 8), ("many", lengths)):
        folder = make_once(many.with_name(f"encoder-lengths-{n}"), lambda to, n=n: write_lengths(to, speech, n))  # type: ignore[misc]
        command = score_program(name, folder, str(model), scratch / "encoder-memory")
        programs.append(Program(name, [*command.command, "--segments", "clip", "--reference", "none"], command.fresh))
    peaks = {program.name: peak_mib(program) for program in programs}
    for name, seconds in (("short", SHORT_S), ("long", round(hours * 3600))):
        folder = make_once(scratch / f"encoder-{seconds}s", lambda to, s=seconds: write_long(to, speech, s))  # type: ignore[misc]
        peaks[name] = peak_mib(score_program(name, folder, str(model), scratch / "encoder-memory"))
    return [
        growth_row(
            f"{lengths} recordings of 0.05 to 90 s as clips, beside {lengths // 8}", peaks["many"], peaks["few"]
        ),
        growth_row(f"a recording of {hours:g} h in windows, beside {SHORT_S // 60} min", peaks["long"], peaks["short"]),
    ]


def growth_row(name: str, peak: float, less: float) -> Row:
    """Return a peak, its bar, and how much it is above that of less work."""
    growth = 100 * (peak / less - 1)
    bar = MEMORY_BAR.judge(peak * 1.048576)
    return {"what": name, "peak, MB": digits(peak * 1.048576), **bar, "growth, %": f"{growth:.1f}"} | {
        f"growth {key}": value for key, value in GROWTH_BAR.judge(growth).items()
    }


def peak_mib(program: Program) -> float:
    """Return the peak of the process that computes: with one job that is the only one."""
    measured = measure(program, memory=True)
    return max(measured.main_mib, measured.worker_mib)


def write_lengths(folder: Path, speech: Samples, n: int) -> None:
    """Write recordings of speech of many lengths."""
    lengths_s = np.exp(np.random.default_rng(0).uniform(np.log(0.05), np.log(90), n))
    for number, seconds in enumerate([90.0, *lengths_s[1:]]):
        places = np.arange(round(seconds * CALL_RATE)) + number * CALL_RATE
        soundfile.write(folder / f"{number:04d}.wav", speech.take(places, mode="wrap"), CALL_RATE, subtype="ULAW")


def write_long(folder: Path, speech: Samples, seconds: int) -> None:
    """Write one recording of speech, over and over."""
    with soundfile.SoundFile(folder / "long.wav", "w", CALL_RATE, 1, "ULAW") as file:
        for first in range(0, seconds, 60):
            file.write(speech.take(np.arange(first * CALL_RATE, (first + 60) * CALL_RATE), mode="wrap"))


# ----------------------------------------------------------------------------------------------------- training


def make_features(folder: Path, spec: EncoderSpec, n_segments: int) -> None:
    """Write embeddings of three variants, with labels, speakers and a corpus, at random."""
    random = np.random.default_rng(0)
    schema = features_schema(spec)
    size = spec.embedding_size
    of_label, of_speaker = random.normal(size=(len(LABELS), size)), random.normal(size=(90, size))
    with part_writer(folder / "part-000001.parquet", schema) as writer:
        for first in range(0, n_segments, 500):
            rows = []
            for number in range(first, min(first + 500, n_segments)):
                label, speaker = number % len(LABELS), number // len(LABELS) % len(of_speaker)
                values = 0.2 * of_label[label] + of_speaker[speaker] + random.normal(size=size)
                rows += [
                    {
                        "dataset": "made", "path": f"{number:06d}.wav", "content_hash": f"{number:06d}", "channel": 0,
                        "segment": 0, "variant": variant, "sampling_rate": spec.sampling_rate, "n_tokens": 150,
                        "emotion": LABELS[label], "speaker": f"{speaker}",
                        "embedding": (values + 0.1 * random.normal(size=size)).astype(np.float32),
                    }
                    for variant in VARIANTS
                ]  # fmt: skip
            writer.write_table(rows_table(rows, schema))
    segmentation = Segmentation(mode="clip").to_dict()
    write_json(folder / "spec.json", {"feature_spec": spec.to_dict(), "segmentation": segmentation})


def training(place: str, scratch: Path, n_segments: int) -> Row:
    """Train the heads on made-up embeddings without holding anything out."""
    spec = read_encoder_spec(find_encoder(place))
    features = make_once(scratch / f"embeddings-{n_segments}", lambda to: make_features(to, spec, n_segments))
    out = scratch / "encoder-model"
    measured = measure(Program("train", ser_batch("train", features, "--split", "none", "--out", out), [out]))
    return {
        "what": f"{n_segments} segments in {len(VARIANTS)} variants, wall s",
        "s": digits(measured.wall_s),
        **TRAIN_BAR.judge(measured.wall_s),
        "CPU s": digits(measured.cpu_s),
    }


def speech_of(calls: Path) -> Samples:
    """Return one party of a call without its pauses, at 8 kHz."""
    samples, rate = soundfile.read(calls / "call_40_agent.wav", dtype="float32")
    frames = samples[: len(samples) // 800 * 800].reshape(-1, 800)
    level = np.square(frames).mean(axis=1)
    if rate != CALL_RATE or not level.any():
        raise SystemExit(f"{calls}: expected speech at {CALL_RATE} Hz")
    return np.asarray(frames[level > level.max() / 1000].reshape(-1))


def measure_all(arguments: argparse.Namespace, source: Path, scratch: Path) -> None:
    """Measure what was asked for and print the tables."""
    model, runs, speech = find_model(arguments.model), arguments.runs, speech_of(source)
    if not model.is_head_model:
        raise SystemExit(f"{arguments.model}: not a model of heads on embeddings; name one with --model")
    place = model.encoder_place()
    rows = []
    if "encoding" in arguments.only:
        rows.append(encoding(place, soxr.resample(speech, CALL_RATE, model.feature_spec.sampling_rate), 10 * runs))
    if "score" in arguments.only:
        calls = stereo_calls(source, scratch, arguments.calls, arguments.seconds)
        rows.append(score(model.folder, place, calls, scratch, runs))
    if "first" in arguments.only:
        rows.append(first_result(model.folder, arguments.fast, speech, scratch, runs))
    if rows:
        show("What the encoder costs", rows, arguments.markdown)
    if "memory" in arguments.only:
        rows = memory(model.folder, speech, scratch, arguments.lengths, arguments.hours)
        show("Memory of the process that scores", rows, arguments.markdown)
    if "train" in arguments.only:
        show("Training heads", [training(place, scratch, arguments.segments)], arguments.markdown)


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "--runs", "--audio", "--scratch")
    parser.add_argument("--model", default="open", help="model of heads, a folder or a name (default: %(default)s)")
    parser.add_argument("--fast", default="fast", help="model on MFCCs to compare with (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--calls", type=int, default=12, help="calls to score (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="length of a call (default: %(default)s)")
    parser.add_argument("--lengths", type=int, default=80, help="recordings of many lengths (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=0.25, help="the long recording, hours (default: %(default)s)")
    parser.add_argument(
        "--segments", type=int, default=900, help="to train on; the bar is for 9000 (default: %(default)s)"
    )
    arguments = parser.parse_args()
    source = corpus_folder(arguments.audio, "calls")
    with scratch_folder(arguments.scratch) as scratch:
        measure_all(arguments, source, scratch)


if __name__ == "__main__":
    main()
