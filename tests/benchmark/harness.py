"""What the benchmarks share: run programs by turns, compare their seconds, print tables, make the audio.

Not run by itself; run its neighbours, such as `python tests/benchmark/startup.py`.
"""

import argparse
import contextlib
import dataclasses
import math
import operator
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile

FOLDER = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("SER_BATCH_SHARED", FOLDER.parents[1].parent / "shared"))
N_RAVDESS = 2036  # recordings of the 20 actors
CALL_RATE = 8000  # Hz
CALL_S = 300

Row = dict[str, str]


# ---------------------------------------------------------------------------------------------------- arguments

_OPTIONS: dict[str, dict[str, Any]] = {
    "--runs": {"type": int, "default": 5, "help": "timed runs of each program (default: %(default)s)"},
    "--audio": {
        "type": Path,
        "default": SHARED,
        "metavar": "FOLDER",
        "help": "where ravdess/ and calls/ lie (default: SER_BATCH_SHARED, else shared beside the repository)",
    },
    "--scratch": {
        "type": Path,
        "metavar": "FOLDER",
        "help": "keep the audio made for the benchmark here, up to 1 GB (default: a temporary folder)",
    },
}


def argument_parser(doc: str, *options: str) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring and has --markdown and those of the shared `options`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in options:
        parser.add_argument(option, **_OPTIONS[option])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="append the tables to this file as well")
    return parser


def corpus_folder(audio: Path, name: str) -> Path:
    """Return a corpus below the --audio folder; end the program, as nothing is wrong, where there is none."""
    folder = audio / name
    if not folder.is_dir():
        print(f"skipped: {folder} is not there; give --audio or SER_BATCH_SHARED the folder that holds {name}/")
        raise SystemExit(0)
    return folder.resolve()


@contextlib.contextmanager
def scratch_folder(given: Path | None) -> Iterator[Path]:
    """Give the --scratch folder, or a temporary one."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="ser-batch-benchmark-") as folder:
            yield Path(folder)
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()


# ----------------------------------------------------------------------------------------------------- programs


@dataclasses.dataclass(frozen=True)
class Program:
    """A command to measure; the paths in `fresh` are removed before each run."""

    name: str
    command: Sequence[str]
    fresh: Sequence[Path] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One whole process with those below it; peaks and open files are 0 where memory was not asked for."""

    wall_s: float
    cpu_s: float  # user and system
    main_mib: float  # peak resident memory of the process itself
    worker_mib: float  # and of the largest process below it
    worker_files: int  # the most that a process below it had open at once
    output: str


def ser_batch(*arguments: object) -> list[str]:
    """Return a command of ser-batch."""
    return [sys.executable, "-m", "ser_batch", *map(str, arguments)]


def script(path: str, *arguments: object, python: Path | str = sys.executable) -> list[str]:
    """Return the command of a program in this folder, such as peers/librosa_loop.py."""
    return [str(python), str(FOLDER / path), *map(str, arguments)]


def measure(program: Program, *, memory: bool = False) -> Measurement:
    """Run a program once, from its start to its end; end the benchmark if it fails.

    Looking at memory costs time of its own: take no seconds from such a run.
    """
    for path in program.fresh:
        remove(path)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        started = time.perf_counter()
        process = subprocess.Popen(
            program.command, stdout=output, stderr=messages, env={**os.environ, **program.environment}
        )
        main_mib, worker_mib, worker_files = _watch(process.pid) if memory else (0.0, 0.0, 0)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        messages.seek(0)
        if process.returncode:
            last_lines = "".join(messages.readlines()[-20:])
            raise SystemExit(f"{program.name} failed with status {process.returncode}:\n{last_lines}")
        cpu_s = usage.ru_utime + usage.ru_stime
        return Measurement(wall_s, cpu_s, main_mib, worker_mib, worker_files, output.read())


def interleave(programs: Sequence[Program], runs: int, *, warm_up: bool = True) -> dict[str, list[Measurement]]:
    """Run programs by turns, so that a busy moment of the machine hits all of them.

    A warm-up run of each comes first and is not counted: the files, and what numba compiled, are then cached for all.
    """
    if warm_up:
        for program in programs:
            _tell(f"warm-up: {program.name}")
            measure(program)
    measured: dict[str, list[Measurement]] = {program.name: [] for program in programs}
    for run in range(1, runs + 1):
        for program in programs:
            measurement = measure(program)
            measured[program.name].append(measurement)
            _tell(f"run {run} of {runs}: {program.name} {digits(measurement.wall_s)} s")
    return measured


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _tell(line: str) -> None:
    """Show on stderr how far it is; the tables stand on stdout."""
    print(line, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------- memory


def _watch(pid: int) -> tuple[float, float, int]:
    """Watch a process until it ends; return its peak, that of the largest process below it, and their open files."""
    main_mib, worker_mib, worker_files = 0.0, 0.0, 0
    while mib := _high_water_mib(pid):
        main_mib = mib
        for worker in _descendants(pid):
            worker_mib = max(worker_mib, _high_water_mib(worker))
            worker_files = max(worker_files, open_files(worker))
        time.sleep(0.02)
    return main_mib, worker_mib, worker_files


def open_files(pid: int | str = "self") -> int:
    """Return how many files a process has open, pipes and sockets included; 0 for one that has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _high_water_mib(pid: int) -> float:
    """Return the high-water mark of resident memory, as Linux keeps it; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(marks[0]) / 1024 if marks else 0.0


def _descendants(pid: int) -> list[int]:
    """Return the processes below `pid`."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found = list(children.get(pid, ()))
    for parent in found:  # grows while it is walked
        found += children.get(parent, ())
    return found


# ------------------------------------------------------------------------------------------------------- tables

_COMPARISONS = {"at least": operator.ge, "at most": operator.le, "below": operator.lt}


@dataclasses.dataclass(frozen=True)
class Bar:
    """What a figure has to reach, or may not exceed."""

    kind: Literal["at least", "at most", "below"]
    limit: float

    def judge(self, value: float) -> Row:
        """Return the columns that say the bar and whether `value` meets it."""
        met = _COMPARISONS[self.kind](value, self.limit)
        return {"bar": f"{self.kind} {self.limit:g}", "result": "met" if met else "missed"}


def compare(seconds: Mapping[str, Sequence[float]], bars: Mapping[str, Bar]) -> list[Row]:
    """Return a row for each program; ours is the first, `bars` go by the names of peers.

    The ratio is how many times as fast ours is, or, where the bar is an upper one, how many times as long it takes.
    """
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours = next(iter(medians))
    rows = []
    for name, values in seconds.items():
        row = {
            "program": name,
            "median s": digits(medians[name]),
            "min..max s": f"{digits(min(values))}..{digits(max(values))}",
        }
        bar = bars.get(name)
        if bar and bar.kind != "at least":
            ratio = medians[ours] / medians[name]
            row |= {"ratio": f"ours/peer {digits(ratio)}", **bar.judge(ratio)}
        elif name != ours:
            ratio = medians[name] / medians[ours]
            row |= {"ratio": f"peer/ours {digits(ratio)}"} | (bar.judge(ratio) if bar else {})
        rows.append(row)
    return rows


def compare_runs(measured: Mapping[str, Sequence[Measurement]], bars: Mapping[str, Bar]) -> list[Row]:
    """Compare whole runs; CPU seconds, user and system of all processes, stand beside."""
    rows = compare({name: [run.wall_s for run in runs] for name, runs in measured.items()}, bars)
    for row in rows:
        row["CPU s"] = digits(statistics.median(run.cpu_s for run in measured[row["program"]]))
    return rows


def digits(value: float) -> str:
    """Return a number with about three digits."""
    if abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def show(title: str, rows: Sequence[Row], markdown: Path | None) -> None:
    """Print a table as aligned text, and append it to a file as Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(f"\n{title}\n")
    for line in lines:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join((first, *others)).rstrip())
    if markdown:
        marked = ["| " + " | ".join(line) + " |" for line in lines]
        marked.insert(1, "|" + "---|" * len(columns))
        with markdown.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{title}\n\n" + "\n".join(marked) + "\n")


# -------------------------------------------------------------------------------------------------------- audio


def make_once(folder: Path, fill: Callable[[Path], object]) -> Path:
    """Return `folder`; if it is not there, `fill` makes it, whole or not at all."""
    if not folder.is_dir():
        _tell(f"making {folder.name}")
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        remove(unfinished)
        unfinished.mkdir(parents=True)
        fill(unfinished)
        unfinished.rename(folder)
    return folder


def ravdess_wav(source: Path, scratch: Path, n_files: int) -> Path:
    """Make a folder of `n_files` RAVDESS recordings as 16-bit WAV at their own rates.

    Fewer than there are: evenly spread over the corpus. More: the same files again, as hard links in other folders.
    """
    files = sorted(path for path in source.rglob("*") if path.suffix in {".flac", ".wav"})
    if not files:
        raise SystemExit(f"{source}: holds neither .flac nor .wav; expected RAVDESS")
    whole_rounds, rest = divmod(n_files, len(files))
    rounds = [*[files] * whole_rounds, [files[i * len(files) // rest] for i in range(rest)]]

    def fill(folder: Path) -> None:
        for number, chosen in enumerate(rounds, start=1):
            for file in chosen:
                name = file.relative_to(source).with_suffix(".wav")
                link = folder / f"round_{number}" / name
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(_as_wav(file, scratch / "ravdess-wav" / name), link)

    return make_once(scratch / f"ravdess-{n_files}", fill)


def _as_wav(file: Path, wav: Path) -> Path:
    """Write a recording as 16-bit WAV, if that is not done yet."""
    if not wav.exists():
        samples, rate = soundfile.read(file, dtype="int16")
        unfinished = wav.with_suffix(".unfinished")
        wav.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(unfinished, samples, rate, subtype="PCM_16", format="WAV")
        unfinished.rename(wav)
    return wav


def mulaw_calls(source: Path, scratch: Path, hours: float) -> Path:
    """Make a folder of telephone recordings, 8 kHz mono mu-law WAV of 5 min each, at least `hours` in all.

    The given calls follow each other end to end, over and over, so that each recording begins elsewhere in them.
    """

    def fill(folder: Path) -> None:
        sounds = [soundfile.read(path, dtype="int16") for path in sorted(source.glob("*.wav"))]
        if not sounds or any(rate != CALL_RATE or samples.ndim != 1 for samples, rate in sounds):
            raise SystemExit(f"{source}: expected WAV files of {CALL_RATE} Hz, mono")
        all_calls = np.concatenate([samples for samples, _ in sounds])
        n_samples = CALL_S * CALL_RATE
        for number in range(math.ceil(hours * 3600 / CALL_S)):
            places = np.arange(number * n_samples, (number + 1) * n_samples)
            samples = all_calls.take(places, mode="wrap")
            soundfile.write(folder / f"call_{number:04d}.wav", samples, CALL_RATE, subtype="ULAW")

    return make_once(scratch / f"calls-{hours:g}h", fill)


def stereo_calls(source: Path, scratch: Path, n: int, seconds: int) -> Path:
    """Make stereo calls, 8 kHz mu-law WAV, of both parties of the given one; each begins elsewhere in it."""

    def fill(folder: Path) -> None:
        parties = [soundfile.read(source / f"call_40_{party}.wav", dtype="int16") for party in ("agent", "caller")]
        if any(rate != CALL_RATE or samples.ndim != 1 for samples, rate in parties):
            raise SystemExit(f"{source}: expected WAV files of {CALL_RATE} Hz, mono")
        for number in range(n):
            places = np.arange(seconds * CALL_RATE) + number * seconds * CALL_RATE * 7 // 5
            both = np.stack([samples.take(places, mode="wrap") for samples, _ in parties], axis=1)
            soundfile.write(folder / f"call_{number:04d}.wav", both, CALL_RATE, subtype="ULAW")

    return make_once(scratch / f"stereo-{n}x{seconds}s", fill)
