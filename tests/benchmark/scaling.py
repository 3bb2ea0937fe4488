"""How seconds and peak memory of featurize grow with the number of files: time a file has to stay, memory too.

python tests/benchmark/scaling.py --files 500 2000 8000 --scratch FOLDER

Start-up is the time that 2 files take. Memory is looked at in a run of its own, the warm-up, because looking costs
time; the marks are Linux's own, of each process by itself.
"""

import argparse
import os
import statistics
from pathlib import Path

from harness import (
    Bar,
    Measurement,
    Program,
    Row,
    argument_parser,
    corpus_folder,
    digits,
    interleave,
    measure,
    ravdess_wav,
    scratch_folder,
    ser_batch,
    show,
)

N_START_UP = 2  # files: one for each of two workers
DEVIATION_BAR = Bar("at most", 10)  # %
GROWTH_BAR = Bar("at most", 10)  # %
WORKER_BAR = Bar("at most", 350)  # MiB


def measure_counts(
    arguments: argparse.Namespace, source: Path, scratch: Path
) -> tuple[dict[int, list[float]], dict[int, Measurement]]:
    """Return, by number of files, the seconds of each run and the run whose memory was watched."""
    out = scratch / "features"
    programs = {}
    for count in (N_START_UP, *arguments.files):
        wavs = ravdess_wav(source, scratch, count)
        command = ser_batch("featurize", wavs, "--out", out, "--jobs", arguments.jobs)
        programs[count] = Program(f"{count} files", command, [out])
    watched = {count: measure(program, memory=True) for count, program in programs.items()}
    measured = interleave(list(programs.values()), arguments.runs, warm_up=False)
    wall_s = {count: [run.wall_s for run in measured[program.name]] for count, program in programs.items()}
    return wall_s, watched


def milliseconds_a_file(wall_s: dict[int, list[float]]) -> dict[int, float]:
    """Return the time that each file beyond those of the start-up run takes, by number of files."""
    medians_s = {count: statistics.median(values) for count, values in wall_s.items()}
    start_up_s = medians_s.pop(N_START_UP)
    return {count: 1000 * (median_s - start_up_s) / (count - N_START_UP) for count, median_s in medians_s.items()}


def count_rows(
    wall_s: dict[int, list[float]], watched: dict[int, Measurement], a_file_ms: dict[int, float]
) -> list[Row]:
    """Return a row for each number of files."""
    return [
        {
            "files": str(count),
            "median s": digits(statistics.median(values)),
            "min..max s": f"{digits(min(values))}..{digits(max(values))}",
            "ms a file": digits(a_file_ms[count]) if count in a_file_ms else "start-up",
            "main MiB": f"{watched[count].main_mib:.0f}",
            "largest worker MiB": f"{watched[count].worker_mib:.0f}",
        }
        for count, values in wall_s.items()
    ]


def figure_rows(watched: dict[int, Measurement], a_file_ms: dict[int, float]) -> list[Row]:
    """Return a row for each bar."""
    mean_ms = statistics.mean(a_file_ms.values())
    deviation = 100 * max(abs(value - mean_ms) for value in a_file_ms.values()) / mean_ms
    runs = [watched[count] for count in a_file_ms]
    main_growth = 100 * (runs[-1].main_mib / runs[0].main_mib - 1)
    worker_growth = 100 * (runs[-1].worker_mib / runs[0].worker_mib - 1)
    worker_mib = max(run.worker_mib for run in runs)
    figures = (
        ("ms a file, largest deviation from their mean, %", deviation, DEVIATION_BAR),
        ("main process, growth from first to last, %", main_growth, GROWTH_BAR),
        ("largest worker, growth from first to last, %", worker_growth, GROWTH_BAR),
        ("largest worker, MiB", worker_mib, WORKER_BAR),
    )
    return [{"figure": name, "value": f"{value:.1f}", **bar.judge(value)} for name, value, bar in figures]


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argument_parser(__doc__, "--runs", "--audio", "--scratch")
    parser.set_defaults(runs=3)
    parser.add_argument(
        "--files",
        type=int,
        nargs="+",
        default=[500, 2000, 8000],
        help="numbers of recordings, from few to many (default: 500 2000 8000)",
    )
    parser.add_argument(
        "--jobs", type=int, default=max(2, os.cpu_count() or 2), help="workers, at least 2 (default: all cores)"
    )
    arguments = parser.parse_args()
    if arguments.jobs < 2 or min(arguments.files) <= N_START_UP:
        parser.error(f"--jobs has to be at least 2, and --files more than {N_START_UP} each")
    source = corpus_folder(arguments.audio, "ravdess")
    with scratch_folder(arguments.scratch) as scratch:
        wall_s, watched = measure_counts(arguments, source, scratch)
    a_file_ms = milliseconds_a_file(wall_s)
    title = f"Featurize RAVDESS, 16-bit WAV, {arguments.jobs} jobs"
    show(title, count_rows(wall_s, watched, a_file_ms), arguments.markdown)
    show("What it has to keep to", figure_rows(watched, a_file_ms), arguments.markdown)


if __name__ == "__main__":
    main()
