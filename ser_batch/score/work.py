"""What a worker of score does with a recording: segments to predictions, and sums over its channels."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch import bundle
from ser_batch.bundle import Bundle, Predictor
from ser_batch.config import Segmentation
from ser_batch.corpus import Recording, emotion_of
from ser_batch.errors import BundleError
from ser_batch.parallel import MAIN, Rows, Work
from ser_batch.tables import calls_schema, predictions_schema

if TYPE_CHECKING:
    from ser_batch.audio import Sound
    from ser_batch.featurize.cutting import Segment

CALLS = "calls"
SEGMENTS_A_BATCH = 64

# all that a recording and channel can have as status
STATUS_OK = "ok"
STATUS_SILENT = "silent"  # digital silence from end to end, nothing to score
STATUS_NO_SPEECH = "no_speech"  # it holds sound, and no segment with enough speech to be scored
STATUS_SAME_SOUND = "same_sound"  # the very sound of a lower channel, which is scored instead
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
    min_confidence: float = 0.0
    min_speech: float = 0.0

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:  # type: ignore[override]  # made in the worker: a schema is not sent
        """Segments, and one row a recording and channel."""
        return {MAIN: predictions_schema(self.labels), CALLS: calls_schema(self.labels)}

    def rows(self, recording: Recording, content_hash: str) -> Rows:
        """Yield rows of the predictions a batch at a time, the calls last."""
        from ser_batch.featurize.cutting import activity_of, channels_of, segments  # loaded by workers only

        loaded, predict = _model(self.model, self.model_id)
        activity = activity_of(recording, self.segmentation)
        sound = activity.sound
        assert sound is not None  # `scan` has opened it
        calls: dict[int, _Call] = {}
        for channel in channels_of(recording, self.segmentation, sound.n_channels):
            # the one channel of a mono recording is nobody's, or everybody's
            role = self.role_of_channel.get(channel) if sound.n_channels > 1 else None
            if not self.wanted_roles or role in self.wanted_roles:
                calls[channel] = _Call(sound, role, self.labels)
        # a label names the channel that somebody listened to
        copies = activity.repeated(calls) if self.segmentation.mode != "labels" else frozenset()
        left_out = copies | (activity.frames.keys() - calls.keys())
        batch: list[tuple[Sound, Segment]] = []
        for pair in segments(recording, loaded.spec, self.segmentation, activity=activity, left_out=left_out):
            batch.append(pair)
            if len(batch) == SEGMENTS_A_BATCH:
                yield from self._predictions(recording, content_hash, batch, loaded, predict, calls)
                batch = []
        if batch:
            yield from self._predictions(recording, content_hash, batch, loaded, predict, calls)
        for channel, call in sorted(calls.items()):
            row = call.row(loaded.lowest_rate)
            if channel in copies:
                row["status"] = STATUS_SAME_SOUND
            elif row["predicted"] is None:
                row["status"] = STATUS_SILENT if channel in activity.silent else STATUS_NO_SPEECH
            known = {"path": recording.path, "content_hash": content_hash, "channel": channel}
            speech = {"speech_s": activity.speech_s(channel), "overlap_s": activity.overlap_s(channel)}
            yield CALLS, known | {"model_id": self.model_id, **row, **speech}

    def _predictions(
        self,
        recording: Recording,
        content_hash: str,
        batch: Sequence[tuple["Sound", "Segment"]],
        loaded: Bundle,
        predict: Predictor,
        calls: Mapping[int, "_Call"],
    ) -> Rows:
        """Predict a batch; silent segments and those with too little speech keep their row without a prediction."""
        heard = [
            i
            for i, (_, segment) in enumerate(batch)
            if segment.rms_dbfs is not None and (segment.speech_ratio or 0.0) >= self.min_speech
        ]
        spec = loaded.spec
        mfcc = np.zeros((len(heard), spec.n_frames, spec.n_mfcc), dtype=np.float32)
        n_frames = np.array([len(batch[i][1].mfcc) for i in heard], dtype=np.int64)
        for place, i in enumerate(heard):
            mfcc[place, : n_frames[place]] = batch[i][1].mfcc
        try:
            probabilities = predict(mfcc, n_frames) if heard else np.empty((0, len(self.labels)))
        except Exception as error:  # whatever the network's libraries raise, it is not the recording's fault
            raise BundleError(f"{self.model}: the network failed ({type(error).__name__}: {error})") from error
        columns_of = _prediction_columns(probabilities, self.labels, self.min_confidence)
        scored = dict(zip(heard, columns_of, strict=True))
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
                "speech_ratio": segment.speech_ratio,
                "rms_dbfs": segment.rms_dbfs,
                "clipped_ratio": segment.clipped_ratio,
                "model_id": self.model_id,
                "emotion": truth,
            }
            own, columns = scored.get(i, (None, {}))
            calls[segment.channel].add(segment, own, truth, abstained=columns.get("abstained", True))
            yield MAIN, row | columns


def _prediction_columns(
    probabilities: npt.NDArray[np.float64], labels: Sequence[str], min_confidence: float
) -> Iterator[tuple[npt.NDArray[np.float64], dict[str, Any]]]:
    """Yield the probabilities of each segment, and what its prediction columns hold."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    margin = ranked[:, 0] - (ranked[:, 1] if len(labels) > 1 else 0.0)
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    entropy = -(probabilities * logs).sum(axis=1)
    columns = zip(order[:, 0].tolist(), ranked[:, 0].tolist(), entropy.tolist(), margin.tolist(), strict=True)
    names = [f"p_{label}" for label in labels]
    for own, (best, confidence, nats, lead) in zip(probabilities, columns, strict=True):
        yield (
            own,
            {
                "predicted": labels[best],
                "abstained": confidence < min_confidence,
                "confidence": confidence,
                "entropy": nats,
                "margin": lead,
                **dict(zip(names, own.tolist(), strict=True)),
            },
        )


class _Call:
    """One channel of a recording while its segments come in; holds sums, not segments."""

    def __init__(self, sound: "Sound", role: str | None, labels: Sequence[str]) -> None:
        self.role = role
        self._sound, self._labels = sound, labels
        self._n_segments = 0
        self._scored_s = 0.0
        self._duration_s = 0.0
        self._weighted = np.zeros(len(labels))
        self._won: Counter[str] = Counter()
        self._truths: set[str | None] = set()

    def add(
        self,
        segment: "Segment",
        probabilities: npt.NDArray[np.float64] | None,
        truth: str | None,
        *,
        abstained: bool,
    ) -> None:
        """Count one segment; it weighs as much as it is long, and its label counts unless the model abstained."""
        self._n_segments += 1
        self._duration_s = max(self._duration_s, segment.end_s)
        self._truths.add(truth)
        if probabilities is not None:
            length_s = segment.end_s - segment.start_s
            self._scored_s += length_s
            self._weighted += probabilities * length_s
            if not abstained:
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
            return row | {"predicted": None}
        mean = self._weighted / self._scored_s
        scored = sum(self._won.values())
        return row | {
            "predicted": self._labels[int(mean.argmax())],
            **{f"p_{label}": float(p) for label, p in zip(self._labels, mean, strict=True)},
            **{f"share_{label}": self._won[label] / scored if scored else None for label in self._labels},
        }


@functools.lru_cache(maxsize=1)
def _model(folder: Path, model_id: str) -> tuple[Bundle, Predictor]:
    """Load the model once a process; `model_id` is the one that the run was started with."""
    loaded = bundle.load(folder)
    if loaded.model_id != model_id:
        raise BundleError(f"{folder}: became another model while it was used; run the same command again")
    return loaded, loaded.predictor()
