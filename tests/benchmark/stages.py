"""Where the time of featurize and score goes: one process, a stopwatch around each stage, milliseconds a segment.

python tests/benchmark/stages.py
"""

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness import N_RAVDESS, Row, argument_parser, corpus_folder, mulaw_calls, ravdess_wav, scratch_folder, show

from ser_batch.audio.reader import AudioReader
from ser_batch.audio.recording_file import RecordingFile
from ser_batch.audio.resampling import Resampler
from ser_batch.config.features import PRESETS
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.walk import walk
from ser_batch.featurization import FeaturizeWork
from ser_batch.mfcc import MfccKernel, SegmentMfcc
from ser_batch.model.folder import find_model
from ser_batch.network import numpy_inference
from ser_batch.network.cmvn import Scaler
from ser_batch.runs import part_writer, worker
from ser_batch.runs.ledger import Shard
from ser_batch.runs.worker import Work, do_shard
from ser_batch.scoring.worker import ScoreWork

INFERENCE_BAR = 0.30


class Stopwatch:
    """Seconds by stage; time in an inner stage is not counted in the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = 0.0

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        self._tick()
        self._stack.append(stage)

    def leave(self) -> None:
        """End it."""
        self._tick()
        self._stack.pop()

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._stack:
            stage = self._stack[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Count a function or method as a stage from now on."""
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def watched(*values: Any, **named: Any) -> Any:
            self.enter(stage)
            try:
                return original(*values, **named)
            finally:
                self.leave()

        setattr(owner, name, watched)

    def watch_iterator(self, owner: Any, name: str, stage: str) -> None:
        """Count what a generator method does, and not what is done with what it yields."""
        original: Callable[..., Iterator[Any]] = getattr(owner, name)

        @functools.wraps(original)
        def watched(*values: Any, **named: Any) -> Iterator[Any]:
            items = original(*values, **named)
            while True:
                self.enter(stage)
                try:
                    item = next(items, None)
                finally:
                    self.leave()
                if item is None:
                    return
                yield item

        setattr(owner, name, watched)


def watch_all(watch: Stopwatch) -> None:
    """Put the stopwatch around everything that belongs to a stage."""
    watch.watch(RecordingFile, "__init__", "read and hash")
    watch.watch(AudioReader, "__init__", "decode")
    watch.watch_iterator(AudioReader, "blocks", "decode")
    watch.watch(Resampler, "__init__", "features: resample")
    watch.watch(Resampler, "feed", "features: resample")
    for owner, name in ((SegmentMfcc, "feed"), (SegmentMfcc, "finish"), (MfccKernel, "segment")):
        watch.watch(owner, name, "features: MFCC")
    watch.watch(Scaler, "transform", "inference")
    watch.watch(numpy_inference.Network, "predict", "inference")
    watch.watch(worker, "write_ledger", "writing")
    watch.watch(part_writer, "rows_table", "writing")
    for name in ("_flush", "__exit__"):
        watch.watch(part_writer.Parts, name, "writing")


def profile(watch: Stopwatch, work: Work, recordings: tuple[Any, ...]) -> list[Row]:
    """Do one shard twice, the second time with the stopwatch; return milliseconds a segment by stage."""
    for name in ("part-000001", "part-000002"):
        watch.seconds.clear()
        watch.enter("the rest")
        summary = do_shard(work, Shard(name, recordings))
        watch.leave()
    total = sum(watch.seconds.values())
    rows = [
        {"stage": stage, "ms a segment": f"{1000 * seconds / summary.n_rows:.3f}", "share": f"{seconds / total:.1%}"}
        for stage, seconds in sorted(watch.seconds.items())
    ]
    return [*rows, {"stage": "all", "ms a segment": f"{1000 * total / summary.n_rows:.3f}", "share": "100 %"}]


def main() -> None:
    """Profile and print."""
    parser = argument_parser(__doc__, "--audio", "--scratch")
    parser.add_argument("--files", type=int, default=200, help="recordings of RAVDESS (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=0.25, help="calls, hours (default: %(default)s)")
    arguments = parser.parse_args()
    ravdess, calls = (corpus_folder(arguments.audio, name) for name in ("ravdess", "calls"))
    watch = Stopwatch()
    watch_all(watch)
    with scratch_folder(arguments.scratch) as scratch, tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder, name) for name in ("features", "predictions")]
        for out in outs:
            (out / "_meta" / "ledger").mkdir(parents=True)
        recordings = walk(ravdess_wav(ravdess, scratch, N_RAVDESS)).recordings
        spread = recordings[:: max(1, len(recordings) // arguments.files)]
        featurize = FeaturizeWork(outs[0], "ravdess", PRESETS["wideband"], Segmentation())
        show("featurize, clips of RAVDESS", profile(watch, featurize, spread), arguments.markdown)

        model = find_model("research")
        windows = Segmentation(mode="windows")
        score = ScoreWork(outs[1], model.folder, model.labels, model.model_id, windows)
        found = walk(mulaw_calls(calls, scratch, arguments.hours)).recordings
        show("score, windows of 8 kHz calls", profile(watch, score, found), arguments.markdown)
        share = watch.seconds["inference"] / sum(watch.seconds.values())
        verdict = "met" if share <= INFERENCE_BAR else "missed"
        print(f"\ninference is {share:.1%} of it; bar at most {INFERENCE_BAR:.0%}: {verdict}")


if __name__ == "__main__":
    main()
