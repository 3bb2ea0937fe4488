"""The third stage: recordings to predictions, one row a segment, and tables of calls and labels beside them."""

import dataclasses
import functools
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ser_batch import bundle
from ser_batch.audio import Sound
from ser_batch.bundle import Bundle, Predictor
from ser_batch.config import ScoreOptions, Segmentation
from ser_batch.corpus import Recording, Reject, utf8, walk
from ser_batch.errors import BundleError, OutputError
from ser_batch.featurize import Segment, emotion_of, labelled, nothing_done, segments
from ser_batch.parallel import MAIN, Rows, Store, Work, run_shards, worker_count
from ser_batch.report import predictions_report, side_tables
from ser_batch.tables import (
    REJECTS,
    calls_schema,
    make_folder,
    merge_parts,
    predictions_schema,
    rows_table,
    write_frame,
    write_table,
)

CALLS = "calls"
SEGMENTS_A_BATCH = 64

# all that a recording and channel can have as status
STATUS_OK = "ok"
STATUS_SILENT = "silent"  # digital silence from end to end, nothing to score
STATUS_LOW_RATE = "low_rate"  # sampled below what the model was trained with: the upper mel bands are empty


@dataclasses.dataclass(frozen=True)
class ScoreWork(Work):
    """What a worker of score does with a recording."""

    folder: Path
    model: Path
    labels: tuple[str, ...]
    model_id: str
    segmentation: Segmentation
    role_of_channel: Mapping[int, str]
    wanted_roles: frozenset[str]

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:  # type: ignore[override]  # made in the worker: a schema is not sent
        """Segments, and one row a recording and channel."""
        return {MAIN: predictions_schema(self.labels), CALLS: calls_schema(self.labels)}

    def rows(self, recording: Recording, content_hash: str) -> Rows:
        """Yield rows of the predictions a batch at a time, the calls last."""
        loaded, predict = _model(self.model, self.model_id)
        calls: dict[int, _Call] = {}
        batch: list[tuple[Sound, Segment]] = []
        for sound, segment in segments(recording, loaded.spec, self.segmentation):
            # the one channel of a mono recording is nobody's, or everybody's
            role = self.role_of_channel.get(segment.channel) if sound.n_channels > 1 else None
            if self.wanted_roles and role not in self.wanted_roles:
                continue
            calls.setdefault(segment.channel, _Call(sound, role, self.labels))
            batch.append((sound, segment))
            if len(batch) == SEGMENTS_A_BATCH:
                yield from self._predictions(recording, content_hash, batch, loaded, predict, calls)
                batch = []
        if batch:
            yield from self._predictions(recording, content_hash, batch, loaded, predict, calls)
        for channel, call in sorted(calls.items()):
            known = {"path": recording.path, "content_hash": content_hash, "channel": channel}
            yield CALLS, known | {"model_id": self.model_id, **call.row(loaded.lowest_rate)}

    def _predictions(
        self,
        recording: Recording,
        content_hash: str,
        batch: Sequence[tuple[Sound, Segment]],
        loaded: Bundle,
        predict: Predictor,
        calls: Mapping[int, "_Call"],
    ) -> Rows:
        """Predict a batch; silent segments keep their row without a prediction."""
        heard = [i for i, (_, segment) in enumerate(batch) if segment.rms_dbfs is not None]
        spec = loaded.spec
        mfcc = np.zeros((len(heard), spec.n_frames, spec.n_mfcc), dtype=np.float32)
        n_frames = np.array([len(batch[i][1].mfcc) for i in heard], dtype=np.int64)
        for place, i in enumerate(heard):
            mfcc[place, : n_frames[place]] = batch[i][1].mfcc
        try:
            probabilities = predict(mfcc, n_frames) if heard else ()
        except Exception as error:  # whatever the network's libraries raise, it is not the recording's fault
            raise BundleError(f"{self.model}: the network failed ({type(error).__name__}: {error})") from error
        scored = dict(zip(heard, probabilities, strict=True))
        for i, (_, segment) in enumerate(batch):
            truth = emotion_of(recording, segment.label)
            row: dict[str, Any] = {
                "path": recording.path,
                "content_hash": content_hash,
                "channel": segment.channel,
                "role": calls[segment.channel].role,
                "segment": segment.index,
                "start_s": segment.start_s,
                "end_s": segment.end_s,
                "rms_dbfs": segment.rms_dbfs,
                "clipped_ratio": segment.clipped_ratio,
                "model_id": self.model_id,
                "emotion": truth,
            }
            if i in scored:
                row |= _prediction(scored[i], self.labels)
            calls[segment.channel].add(segment, scored.get(i), truth)
            yield MAIN, row


def _prediction(probabilities: npt.NDArray[np.float64], labels: Sequence[str]) -> dict[str, Any]:
    """Return what the prediction columns of one segment hold."""
    order = np.argsort(-probabilities, kind="stable")
    second = probabilities[order[1]] if len(order) > 1 else 0.0
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return {
        "predicted": labels[order[0]],
        "abstained": False,
        "confidence": float(probabilities[order[0]]),
        "entropy": float(-(probabilities * logs).sum()),
        "margin": float(probabilities[order[0]] - second),
        **{f"p_{label}": float(p) for label, p in zip(labels, probabilities, strict=True)},
    }


class _Call:
    """One channel of a recording while its segments come in; holds sums, not segments."""

    def __init__(self, sound: Sound, role: str | None, labels: Sequence[str]) -> None:
        self.role = role
        self._sound, self._labels = sound, labels
        self._n_segments = 0
        self._scored_s = 0.0
        self._duration_s = 0.0
        self._weighted = np.zeros(len(labels))
        self._won: Counter[str] = Counter()
        self._truths: set[str | None] = set()

    def add(self, segment: Segment, probabilities: npt.NDArray[np.float64] | None, truth: str | None) -> None:
        """Count one segment; it weighs as much as it is long."""
        self._n_segments += 1
        self._duration_s = max(self._duration_s, segment.end_s)
        self._truths.add(truth)
        if probabilities is not None:
            length_s = segment.end_s - segment.start_s
            self._scored_s += length_s
            self._weighted += probabilities * length_s
            self._won[self._labels[int(probabilities.argmax())]] += 1

    def row(self, lowest_rate: int) -> dict[str, Any]:
        """Return the columns of the call table that are known."""
        row: dict[str, Any] = {
            "role": self.role,
            "duration_s": self._sound.n_samples / self._sound.sampling_rate,
            "n_segments": self._n_segments,
            "emotion": next(iter(self._truths)) if len(self._truths) == 1 else None,
            "status": STATUS_OK if self._sound.sampling_rate >= lowest_rate else STATUS_LOW_RATE,
        }
        if not self._scored_s:
            return row | {"status": STATUS_SILENT}
        mean = self._weighted / self._scored_s
        scored = sum(self._won.values())
        return row | {
            "predicted": self._labels[int(mean.argmax())],
            **{f"p_{label}": float(p) for label, p in zip(self._labels, mean, strict=True)},
            **{f"share_{label}": self._won[label] / scored for label in self._labels},
        }


@functools.lru_cache(maxsize=1)
def _model(folder: Path, model_id: str) -> tuple[Bundle, Predictor]:
    """Load the model once a process; `model_id` is the one that the run was started with."""
    if multiprocessing.parent_process() is not None:
        # one thread for each of the workers, or they get in each other's way
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        )
    loaded = bundle.load(folder)
    if loaded.model_id != model_id:
        raise BundleError(f"{folder}: became another model while it was used; run the same command again")
    return loaded, loaded.predictor()


@dataclasses.dataclass(frozen=True)
class ScoreSummary:
    """What `score` did.

    Parameters
    ----------
    out
        preds.parquet; the side tables lie beside it.
    model
        The one used.
    n_done, n_already, n_vanished
        Recordings scored by this call, scored before, and no longer there.
    n_recordings, n_calls, n_segments, audio_s
        Of all tables: recordings, recordings and channels, segments, seconds of sound.
    report
        The frame of preds.report.parquet.
    rejects
        Recordings that could not be used.
    warnings
        Sentences to tell.
    passed_over
        Other files seen by the walk, by suffix.
    seconds
        Time this call took.
    """

    out: Path
    model: Bundle
    n_done: int
    n_already: int
    n_vanished: int
    n_recordings: int
    n_calls: int
    n_segments: int
    audio_s: float
    report: pl.DataFrame
    rejects: tuple[Reject, ...]
    warnings: tuple[str, ...]
    passed_over: Mapping[str, int]
    seconds: float


def score(audio: Path, options: ScoreOptions | None = None) -> ScoreSummary:
    """Score a folder of recordings; go on where an earlier call stopped.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording.
    options
        Those of ``ser-batch score``. ``out`` that ends in .parquet is one file with side tables of the same stem
        beside it, and a folder ``<stem>.parts`` that remembers what is done; another name is a folder of parts.

    Raises
    ------
    UsageError
        `audio` or the model is not there, or options do not go together.
    InputError
        Nothing could be scored, or the labels file cannot be used.
    BundleError
        The model folder is incomplete or altered.
    OutputError
        The output cannot be written, or belongs to another run.
    """
    options = options or ScoreOptions()
    started = time.monotonic()
    segmentation = options.segmentation
    model = bundle.find(options.model)
    segmentation.check_window(model.spec)
    manifest = walk(audio)
    recordings, warnings = labelled(manifest.recordings, options.labels, segmentation)
    identity = {
        "root": utf8(manifest.root),
        "model_id": model.model_id,
        "segmentation": segmentation.decisive(),
        "channel_roles": options.channel_roles,
        "roles": options.roles,
    }
    one_file = options.out.suffix == ".parquet"
    if one_file and options.out.is_dir():
        raise OutputError(f"{options.out}: is a folder; choose another --out, or remove it")
    folder = options.out.with_suffix(".parts") if one_file else options.out
    store = Store(folder, identity, overwrite=options.overwrite)
    plan = store.plan(recordings, there={recording.path for recording in manifest.recordings}, prune=options.prune)
    # truth is part of the rows here: predictions are quick to make anew, so changed labels are simply scored again
    store.drop({recording.path for recording in plan.relabel})
    todo = (*plan.todo, *plan.relabel)
    work = ScoreWork(
        folder.absolute(),  # loky keeps its workers for the next call, in the working directory of the first
        model.folder.resolve(),
        model.labels,
        model.model_id,
        segmentation,
        options.role_of_channel,
        options.wanted_roles,
    )
    run_shards(work, store.shards(todo, options), jobs=worker_count(options), title="score")
    held = store.finish(manifest.rejects)
    if not held.n_rows:
        raise nothing_done(audio, "scored", store, held)
    tables = _write_tables(store, options, model, held.rejects)
    return ScoreSummary(
        out=options.out,
        model=model,
        n_done=len(todo),
        n_already=plan.n_done - len(plan.relabel),
        n_vanished=plan.n_vanished,
        n_recordings=held.n_recordings,
        n_calls=len(tables.calls),
        n_segments=held.n_rows,
        audio_s=held.audio_s,
        report=tables.report,
        rejects=held.rejects,
        warnings=(*warnings, *_warnings(tables.calls, model, held.n_without_rows)),
        passed_over=manifest.passed_over,
        seconds=time.monotonic() - started,
    )


@dataclasses.dataclass(frozen=True)
class _Tables:
    calls: pl.DataFrame
    report: pl.DataFrame


def _write_tables(store: Store, options: ScoreOptions, model: Bundle, rejects: Sequence[Reject]) -> _Tables:
    """Merge the parts into the tables that users read."""
    out = options.out
    if out.suffix == ".parquet":
        make_folder(out.parent)
        merge_parts(store.parts(), out, predictions_schema(model.labels))
    else:
        make_folder(out / "_tables")
    side = side_tables(out)
    merge_parts(store.parts(CALLS), side[CALLS], calls_schema(model.labels))
    calls = pl.read_parquet(side[CALLS])
    columns = ["role", "predicted", "confidence", "emotion"]
    predicted = pl.concat([pl.read_parquet(part, columns=columns) for part in store.parts()])
    report = predictions_report(predicted, calls, model.labels, timed=options.segments == "labels")
    write_frame(report, side["report"])
    rows = [dataclasses.asdict(reject) for reject in rejects]
    write_table(side["rejects"], rows_table(rows, REJECTS))
    return _Tables(calls, report)


def _warnings(calls: pl.DataFrame, model: Bundle, n_without_rows: int) -> Iterator[str]:
    if n_without_rows:
        yield (
            f"{n_without_rows} recordings have none of the channels or roles that were asked for and are not scored "
            "(a mono recording has channel 0 and no role)"
        )
    n = calls.filter(pl.col("status") == STATUS_LOW_RATE)["path"].n_unique()
    if n:
        yield (
            f"{n} recordings are sampled below the {model.lowest_rate} Hz that the model was trained with: it hears "
            "nothing in the upper bands, so expect worse figures; a model trained on features of "
            "`featurize --preset telephone` suits them"
        )
