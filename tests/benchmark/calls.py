"""Score an archive in one run: many short recordings and one of hours; then again, with nothing and little new.

python tests/benchmark/calls.py --files 10000 --hours 5 --scratch FOLDER

All recordings are made by the program, 8 kHz mu-law WAV, no two alike: short ones of 2 to 6 s, a long one in stereo.
Memory and open files are looked at in a run of its own, because looking costs time. Speed is that beyond start-up, the
time that 2 files take, beside the same for an archive of a tenth.
"""

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import soundfile
from harness import (
    CALL_RATE,
    Bar,
    Measurement,
    Program,
    Row,
    argument_parser,
    digits,
    interleave,
    make_once,
    measure,
    open_files,
    remove,
    scratch_folder,
    ser_batch,
    show,
)

from ser_batch.config.options import ScoreOptions
from ser_batch.scoring.run import score

MODEL = "research"
N_START_UP = 2  # files: one for each of two workers
SHORT_S = (2.0, 6.0)
FILES_A_FOLDER = 500
MEMORY_BAR = Bar("at most", 500)  # MB a process
WORKER_FILES_BAR = Bar("at most", 64)
SPEED_BAR = Bar("at most", 10)  # % slower than the small archive
NOTHING_NEW_BAR = Bar("at most", 5)  # % of the first run's time
LITTLE_NEW_BAR = Bar("at most", 10)

Samples = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Archive:
    """A folder of recordings, and what it should come to."""

    folder: Path
    n_files: int
    audio_s: float  # channels counted apart


def spoken_line() -> Samples:
    """Return 2 min of made-up voices over a noisy line, shape (n,)."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import calls_corpus

    random = np.random.default_rng(0)
    clips = calls_corpus.made_up_clips(actors=4)
    spoken = np.concatenate([clip.samples * np.float32(calls_corpus.gain(clip, -22)) for clip in clips])
    return np.clip(spoken + calls_corpus.noise(len(spoken), -52, "white", random), -1, 1)


def write_short(folder: Path, numbers: Sequence[int], line: Samples) -> None:
    """Write one short recording for each number, which says where in the line it begins and how long it is."""
    for number in numbers:
        random = np.random.default_rng(number)
        start = random.integers(len(line))
        places = np.arange(start, start + round(random.uniform(*SHORT_S) * CALL_RATE))
        file = folder / f"{number // FILES_A_FOLDER:04d}" / f"{number:06d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, line.take(places, mode="wrap"), CALL_RATE, subtype="ULAW")


def write_long(file: Path, hours: float, line: Samples) -> None:
    """Write a stereo recording minute by minute; its second channel is the first half a line later, fainter."""
    both = np.stack((line, 0.5 * np.roll(line, len(line) // 2)), axis=1)
    minute = 60 * CALL_RATE
    with soundfile.SoundFile(file, "w", CALL_RATE, 2, "ULAW", format="WAV") as stream:
        for start in range(0, round(hours * 3600 * CALL_RATE), minute):
            stream.write(both.take(np.arange(start, start + minute), axis=0, mode="wrap"))


def archive(scratch: Path, n_files: int, hours: float, line: Samples) -> Archive:
    """Make an archive of `n_files` short recordings and one of some hours, or of short ones alone for 0 hours."""

    def fill(folder: Path) -> None:
        write_short(folder, range(n_files), line)
        if hours:
            write_long(folder / "long.wav", hours, line)

    folder = make_once(scratch / f"archive-{n_files}-{hours:g}h", fill)
    headers = [soundfile.info(file) for file in folder.rglob("*.wav")]
    return Archive(folder, len(headers), sum(header.duration * header.channels for header in headers))


def open_files_here(archives: Sequence[Archive], scratch: Path) -> tuple[int, int]:
    """Return how many files this process has open before and after it scores the last archive itself, `jobs` 1.

    The first one is scored before: it loads the libraries, and those may keep something open.
    """
    out = scratch / "here" / "preds.parquet"
    before = 0
    for each in archives:
        before = open_files()
        remove(out.parent)
        score(each.folder, ScoreOptions(out=out, model=MODEL, jobs=1))
    return before, open_files()


def speed(run: Measurement, start_up: Measurement, of: Archive) -> float:
    """Return seconds of sound a second beyond start-up."""
    return of.audio_s / (run.wall_s - start_up.wall_s)


def median(runs: Sequence[Measurement]) -> Measurement:
    """Return the run with the median time."""
    return sorted(runs, key=lambda run: run.wall_s)[len(runs) // 2]


def measure_all(arguments: argparse.Namespace, scratch: Path) -> tuple[list[Row], list[Row]]:
    """Return the rows of the runs and those of the bars."""
    line = spoken_line()
    whole = archive(scratch, arguments.files, arguments.hours, line)
    small = archive(scratch, arguments.files // 10, arguments.hours / 10, line)
    start_up = archive(scratch, N_START_UP, 0, line)
    out = scratch / "archive-preds" / "preds.parquet"
    programs = {
        name: Program(
            name, ser_batch("score", of.folder, "--model", MODEL, "--out", out, "--jobs", arguments.jobs), [out.parent]
        )
        for name, of in {"start-up, 2 files": start_up, "a tenth": small, "all": whole}.items()
    }
    watched = measure(programs["all"], memory=True)
    measured = {
        name: median(runs) for name, runs in interleave(list(programs.values()), arguments.runs, warm_up=False).items()
    }
    of_start_up, of_small, first = measured.values()
    # the last of these was the whole archive, and its output is there
    calls = pl.read_parquet(out.with_suffix(".calls.parquet"), columns=["path"])["path"].n_unique()
    rejects = len(pl.read_parquet(out.with_suffix(".rejects.parquet")))
    again = measure(dataclasses.replace(programs["all"], fresh=()))
    n_new = max(1, arguments.files // 100)
    new = whole.folder / "new"
    try:
        write_short(new, range(arguments.files, arguments.files + n_new), line)
        little = measure(dataclasses.replace(programs["all"], fresh=()))
    finally:
        shutil.rmtree(new)
    before, after = open_files_here([start_up, small], scratch)

    runs = {**measured, "again, nothing new": again, f"again, {n_new} new": little}
    run_rows = [
        {"run": name, "wall s": digits(run.wall_s), "CPU s": digits(run.cpu_s)}
        | ({"files": str(of.n_files), "hours of sound": digits(of.audio_s / 3600)} if of else {})
        for (name, run), of in zip(runs.items(), (start_up, small, whole, None, None), strict=True)
    ]
    slower = 100 * (1 - speed(first, of_start_up, whole) / speed(of_small, of_start_up, small))
    figures = (
        ("recordings in neither calls nor rejects", whole.n_files - calls - rejects, Bar("at most", 0)),
        ("main process, MB", watched.main_mib * 1.048576, MEMORY_BAR),
        ("largest worker, MB", watched.worker_mib * 1.048576, MEMORY_BAR),
        ("most files open in a worker", watched.worker_files, WORKER_FILES_BAR),
        ("files left open by a run in this process", after - before, Bar("at most", 0)),
        ("hours of sound a second beyond start-up, % below those of a tenth", slower, SPEED_BAR),
        ("nothing new, % of the first run's time", 100 * again.wall_s / first.wall_s, NOTHING_NEW_BAR),
        (f"{n_new} new, % of the first run's time", 100 * little.wall_s / first.wall_s, LITTLE_NEW_BAR),
    )
    return run_rows, [{"figure": name, "value": f"{value:.4g}", **bar.judge(value)} for name, value, bar in figures]


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argument_parser(__doc__, "--runs", "--scratch")
    parser.set_defaults(runs=1)
    parser.add_argument("--files", type=int, default=10_000, help="short recordings (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=5, help="of the long one (default: %(default)g)")
    parser.add_argument("--jobs", type=int, default=2, help="workers, at least 2 (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.jobs < 2 or arguments.files < 100 or arguments.hours <= 0:
        parser.error("--jobs has to be at least 2, --files at least 100, and --hours above 0")
    with scratch_folder(arguments.scratch) as scratch:
        run_rows, figure_rows = measure_all(arguments, scratch)
    title = f"Score {arguments.files} short recordings and one of {arguments.hours:g} h, {arguments.jobs} jobs"
    show(title, run_rows, arguments.markdown)
    show("What it has to keep to", figure_rows, arguments.markdown)


if __name__ == "__main__":
    main()
