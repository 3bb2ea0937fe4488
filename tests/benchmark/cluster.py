"""What a cluster costs: work per worker-second, overhead per shard, bytes over the wire per hour of audio.

A scheduler and 1, 2 and 4 workers on this machine, over TCP; audio is made up. Wall times mean something as long as
there are as many cores as workers; processor seconds and bytes mean something anyway.

    python tests/benchmark/cluster.py [--calls 96] [--seconds 120] [--workers 1,2,4]
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from ser_batch.config.options import ScoreOptions
from ser_batch.scoring.run import score

TESTS = Path(__file__).parents[1]


def make_calls(folder: Path, n: int, seconds: float) -> float:
    """Write stereo calls of mu-law at 8 kHz: made-up voices in turns; return the hours of audio."""
    from ser_batch.synth import synth

    clips = sorted(synth(folder / "voices", repetitions=1, sampling_rate=8000).out.rglob("*.wav"))
    voice = np.concatenate([soundfile.read(clip)[0] for clip in clips])
    wanted = int(seconds * 8000)
    (folder / "calls").mkdir()
    for number in range(n):
        start = number * 7919
        sides = [
            np.take(voice, np.arange(start + shift, start + shift + wanted), mode="wrap") for shift in (0, 400_000)
        ]
        turns = (np.arange(wanted) // 40_000) % 2  # 5 s each
        stereo = np.stack((sides[0] * (turns == 0), sides[1] * (turns == 1)), axis=1)
        soundfile.write(folder / "calls" / f"{number:04d}.wav", stereo, 8000, subtype="ULAW")
    return n * seconds / 3600


class CountingProxy:
    """Stands before the scheduler, for its workers and for the run, and counts what goes through, both ways."""

    def __init__(self, address: str) -> None:
        self._target = ("127.0.0.1", int(address.rpartition(":")[2]))
        self.n_bytes = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(*self._target)
        await asyncio.gather(self._copy(reader, other_writer), self._copy(other_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.n_bytes += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()


def cpu_of(root: psutil.Process) -> float:
    """Processor seconds of a process and all below it, ended ones among them."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_of(processes: list[psutil.Process]) -> float:
    """The most memory that one worker and its child have had, MB."""
    most = 0.0
    for process in processes:
        below = [process, *process.children(recursive=True)]
        status = [Path(f"/proc/{one.pid}/status").read_text() for one in below]
        most = max(most, sum(int(text.split("VmHWM:")[1].split()[0]) for text in status) / 1024)
    return most


def measure(folder: Path, n_workers: int, hours: float, shard_size: int) -> dict[str, float]:
    """Score all calls on a cluster of so many workers, after a run that starts their processes."""
    from dask_cluster import dask_cluster

    name = f"{n_workers}-{shard_size}"
    with dask_cluster(folder / name, n_workers=0) as cluster:
        with cluster.client():  # it is there now
            proxy = CountingProxy(cluster.address)
        cluster.address = proxy.address
        for _ in range(n_workers):
            cluster.worker()
        with cluster.client() as client:
            client.wait_for_workers(n_workers, timeout=180)
        options: dict[str, Any] = {
            "backend": "dask",
            "scheduler": cluster.address,
            "model": "open",
            "shard_size": shard_size,
        }
        scheduler, *workers = (psutil.Process(process.pid) for process in cluster.processes)
        score(folder / "few", ScoreOptions(out=folder / name / "warm", **options))
        # what a cluster does when there is nothing to do: heartbeats
        resume_from, idle_bytes, idle_scheduler = time.monotonic(), proxy.n_bytes, cpu_of(scheduler)
        idle_workers = sum(map(cpu_of, workers))
        time.sleep(10)
        idle_s = time.monotonic() - resume_from
        idle = (proxy.n_bytes - idle_bytes) / idle_s
        idle_scheduler = (cpu_of(scheduler) - idle_scheduler) / idle_s
        idle_workers = (sum(map(cpu_of, workers)) - idle_workers) / idle_s
        cpu, scheduler_cpu, bytes_before = sum(map(cpu_of, workers)), cpu_of(scheduler), proxy.n_bytes
        here = time.process_time()
        started = time.monotonic()
        score(folder / "calls", ScoreOptions(out=folder / name / "out", **options))
        wall = time.monotonic() - started
        n_shards = len(list((folder / name / "out/_meta/ledger").glob("*.json")))
        ledgers = [json.loads(path.read_text()) for path in (folder / name / "out/_meta/ledger").glob("*.json")]
        worker_cpu = sum(map(cpu_of, workers)) - cpu - idle_workers * wall
        scheduler_cpu = cpu_of(scheduler) - scheduler_cpu - idle_scheduler * wall
        return {
            "workers": n_workers,
            "shards": n_shards,
            "wall_s": wall,
            "worker_cpu_s": worker_cpu,
            "shard_s": sum(ledger["seconds"] for ledger in ledgers),
            "scheduler_cpu_ms_a_shard": 1000 * scheduler_cpu / n_shards,
            "driver_cpu_s": time.process_time() - here,
            "audio_s_a_worker_cpu_s": hours * 3600 / worker_cpu,
            "audio_h_an_hour": hours * 3600 / wall,
            "wire_kb_a_shard": (proxy.n_bytes - bytes_before - idle * wall) / n_shards / 1e3,
            "wire_kb_an_audio_hour": (proxy.n_bytes - bytes_before - idle * wall) / hours / 1e3,
            "idle_kb_s": idle / 1e3,
            "idle_worker_cpu": idle_workers / n_workers,
            "idle_scheduler_cpu": idle_scheduler,
            "worker_peak_mb": peak_of(workers),
            "out_mb_an_audio_hour": sum(f.stat().st_size for f in (folder / name / "out").rglob("part-*.parquet"))
            / hours
            / 1e6,
        }


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=96, help="how many")
    parser.add_argument("--seconds", type=float, default=120, help="of each call")
    parser.add_argument("--workers", default="1,2,4", help="how many, one run each")
    parser.add_argument("--shard-size", type=int, default=4, help="calls a shard")
    parser.add_argument(
        "--small-shards", type=int, default=1, help="calls a shard in a run with the first number of workers"
    )
    arguments = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        hours = make_calls(folder, arguments.calls, arguments.seconds)
        (folder / "few").mkdir()
        for call in sorted((folder / "calls").iterdir())[:8]:
            (folder / "few" / call.name).symlink_to(call)
        print(f"{arguments.calls} stereo calls, {hours:.2f} h", flush=True)
        counts = [int(count) for count in arguments.workers.split(",")]
        runs = [(count, arguments.shard_size) for count in counts] + [(counts[0], arguments.small_shards)]
        for count, shard_size in runs:
            (folder / f"{count}-{shard_size}").mkdir()
            found = measure(folder, count, hours, shard_size)
            print("  ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
