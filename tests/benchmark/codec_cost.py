"""What a codec costs: how many windows of speech keep the label that they have in the WAV that was encoded.

RAVDESS clips, one after the other on a line of 8 kHz with noise, are written in each format and scored. Formats that
FFmpeg encodes need the extra `av`.

    python tests/benchmark/codec_cost.py RAVDESS --model open --model research
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))

import calls_corpus
from test_audio_av import encode
from test_calls_corpus import line_of

from ser_batch.config.options import ScoreOptions
from ser_batch.scoring.run import score

N_CLIPS = 64
SOURCE = "pcm16"
SAME_SAMPLES = {"raw gsm", "au", "au mulaw", "au g721", "aiff", "flac24", "pcm32", "double"}  # as one of the others
OF_FFMPEG = {  # suffix: container, encoder, rate
    "m4a": ("ipod", "aac", 16000),
    "mp4": ("mp4", "aac", 16000),
    "aac": ("adts", "aac", 16000),
    "amr": ("amr", "libopencore_amrnb", 8000),
    "webm": ("webm", "libopus", 48000),
    "wma": ("asf", "wmav2", 16000),
}


def write_all(clips: list[calls_corpus.Clip], folder: Path) -> None:
    """Write the same call in all formats."""
    spoken = calls_corpus.in_16_bits(line_of(clips)[:, None])
    for name, encoding in calls_corpus.ENCODINGS.items():
        if name not in SAME_SAMPLES:
            calls_corpus.write(folder / f"{name}{encoding.suffix}", spoken, encoding)
    for suffix, (container, codec, rate) in OF_FFMPEG.items():
        # PyAV's resampler brings the samples to the codec's rate
        encode(folder / f"ffmpeg.{suffix}", container, codec, spoken.T, calls_corpus.RATE, to_rate=rate)


def main() -> None:
    """Print a line a format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ravdess", type=Path)
    parser.add_argument("--model", action="append", required=True, metavar="DIR|NAME")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        calls = Path(scratch, "calls")
        calls.mkdir()
        write_all(calls_corpus.recorded_clips(arguments.ravdess, at_most=N_CLIPS), calls)
        for model in arguments.model:
            out = Path(scratch, "preds.parquet")
            score(calls, ScoreOptions(out=out, model=model, min_speech=0.0, overwrite=True))
            labels = {
                path: rows.sort("segment")["predicted"].to_numpy()
                for (path,), rows in pl.read_parquet(out).partition_by("path", as_dict=True).items()
            }
            source = labels[f"{SOURCE}.wav"]
            print(f"{model}: {len(source)} windows, same label as in 16-bit WAV")
            for path, own in sorted(labels.items()):
                n = min(len(own), len(source))  # a codec's last frame may be filled up
                print(f"  {path:<16}{np.mean(own[:n] == source[:n]):6.2f}")


if __name__ == "__main__":
    main()
