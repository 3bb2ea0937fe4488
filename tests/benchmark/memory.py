"""Peak memory of featurize, by number of files: each process's own high-water mark, as Linux keeps it.

python tests/benchmark/memory.py FOLDER --files 500 2036
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, and itself."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def peak_mib(pid: int) -> float:
    """High-water mark of resident memory, MiB; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(marks[0]) / 1024 if marks else 0.0


def measure(files: list[Path], jobs: int) -> tuple[float, float, float]:
    """Featurize some files; return the peaks of the main process and of the largest worker (MiB), and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder, "audio")
        audio.mkdir()
        for number, file in enumerate(files):
            (audio / f"{number:06d}{file.suffix}").symlink_to(file.resolve())
        command = [sys.executable, "-m", "ser_batch", "featurize", str(audio), "--out", f"{folder}/out"]
        started = time.monotonic()
        process = subprocess.Popen([*command, "--jobs", str(jobs)], stdout=subprocess.DEVNULL)
        peaks: dict[int, float] = {}
        while process.poll() is None:
            for pid in descendants(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mib(pid))
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"featurize failed with status {process.returncode}")
        main = peaks.pop(process.pid)
        return main, max(peaks.values(), default=0.0), time.monotonic() - started


def main() -> None:
    """Print a row for each number of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, nargs="+", default=[500, 2036])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix in {".wav", ".flac"})
    print(f"{'files':>8}{'main MiB':>12}{'worker MiB':>12}{'seconds':>10}")
    for count in arguments.files:
        repeated = (files * (count // len(files) + 1))[:count]
        main_mib, worker_mib, seconds = measure(repeated, arguments.jobs)
        print(f"{count:>8}{main_mib:>12.0f}{worker_mib:>12.0f}{seconds:>10.1f}")


if __name__ == "__main__":
    main()
