"""Work on one recording: segments to predictions, and sums over its channels."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ser_batch.arrays import Flags, Floats
from ser_batch.audio.recording_file import RecordingFile
from ser_batch.config.option_values import ReaderSettings
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.manifest import Recording, emotion_of
from ser_batch.errors import ModelError
from ser_batch.model.folder import Model, load_model
from ser_batch.network.heads import log_prior_of
from ser_batch.runs.part_writer import MAIN, Rows
from ser_batch.runs.worker import Work
from ser_batch.scoring.call_summary import CallSums
from ser_batch.scoring.reference import Besides, read_encoded
from ser_batch.scoring.scorers import SEGMENTS_A_BATCH, Applied, Scorer, load_applied, make_scorer
from ser_batch.tables.schemas import calls_schema, predictions_schema, quarters_schema

if TYPE_CHECKING:
    from ser_batch.audio.reader import AudioReader
    from ser_batch.segments.segmenter import Segment
    from ser_batch.vad.activity import Activity

CALLS, QUARTERS = "calls", "quarters"


@dataclasses.dataclass(frozen=True, eq=False)
class ScannedRecording:
    """A recording to score, with its speech."""

    # what it is, and where it has speech
    recording: Recording
    reader: "AudioReader"
    activity: "Activity"
    roles: Mapping[int, str | None]  # role of each channel to score
    copies: frozenset[int]  # those of them whose very sound a lower one has; they are not cut
    is_low_rate: bool  # whether it is sampled below what the model was trained with
    warn: Callable[[str], None]  # gets what is wrong with it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringRules:
    """Which channels are scored, and what becomes of their predictions."""

    role_of_channel: Mapping[int, str] = dataclasses.field(default_factory=dict)
    scored_roles: frozenset[str] = frozenset()  # empty for all
    min_confidence: float = 0.0
    min_speech: float = 0.0
    prior: Mapping[str, float] = dataclasses.field(default_factory=dict)  # empty for balanced
    prioritized: frozenset[str] = frozenset()  # labels that the priority looks for


@dataclasses.dataclass(frozen=True)
class ScoreWork(Work):
    """What a worker of score does with a recording."""

    folder: Path
    model: Path
    labels: tuple[str, ...]
    model_id: str
    segmentation: Segmentation
    _: dataclasses.KW_ONLY
    rules: ScoringRules = dataclasses.field(default_factory=ScoringRules)
    reader_settings: ReaderSettings = dataclasses.field(default_factory=ReaderSettings)
    # mean embedding of the archive, for heads
    archive: tuple[float, ...] | None = None
    # segments that are encoded already, because the archive's reference is made of them
    sampled: Path | None = None

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        """Segments, recordings by channel, and their quarters."""
        return {
            MAIN: predictions_schema(self.labels),
            CALLS: calls_schema(self.labels),
            QUARTERS: quarters_schema(self.labels),
        }

    @property
    def cuts_at_labels(self) -> bool:
        """Whether segments follow the labels file."""
        return self.segmentation.follows_labels

    @property
    def joins_labels(self) -> bool:
        """Truth is part of the rows, and predictions are quick to make anew."""
        return False

    def prepare(self) -> None:
        """Load the model, and what decodes and computes."""
        from ser_batch.segments.segmenter import segments  # noqa: F401 - loaded by workers only

        loaded, _ = self.loaded()
        if loaded.takes_embeddings:
            _front_end(self.model, self.model_id)

    def loaded(self) -> tuple[Model, Applied]:
        """Return the model, loaded once per process."""
        return _model(self.model, self.model_id)

    def scorer(self, opened: ScannedRecording) -> Scorer[Any]:
        """Return what applies the model to a recording."""
        loaded, applied = self.loaded()
        archive = None if self.archive is None else np.asarray(self.archive, dtype=np.float32)
        # without the upper bands everything is out of domain; `low_sampling_rate` says why
        has_domain = not opened.is_low_rate
        log_prior = log_prior_of(self.labels, self.rules.prior)
        is_call = self.segmentation.mode in ("windows", "turns")
        return make_scorer(
            loaded, applied, log_prior=log_prior, archive=archive, is_call=is_call, has_domain=has_domain
        )

    @contextlib.contextmanager
    def opened(self, recording: Recording, file: RecordingFile) -> Iterator[ScannedRecording]:
        """Begin to decode a recording; find the channels that are scored, and their speech."""
        from ser_batch.audio.reader import AudioReader  # loaded by workers only

        with AudioReader(file, self.reader_settings) as reader:
            yield self._scanned(recording, reader, file.warn)

    def _scanned(self, recording: Recording, reader: "AudioReader", warn: Callable[[str], None]) -> ScannedRecording:
        from ser_batch.segments.boundaries import activity_of, channels_of  # loaded by workers only

        loaded, _ = self.loaded()
        activity = activity_of(reader, recording, self.segmentation)
        sound = reader.sound
        roles: dict[int, str | None] = {}
        for channel in channels_of(recording, self.segmentation, sound.n_channels):
            # the one channel of a mono recording is nobody's, or everybody's
            role = self.rules.role_of_channel.get(channel) if sound.n_channels > 1 else None
            if not self.rules.scored_roles or role in self.rules.scored_roles:
                roles[channel] = role
        # a label names the channel that somebody listened to
        copies = frozenset() if self.cuts_at_labels else activity.repeated(roles)
        is_low_rate = sound.sampling_rate < loaded.lowest_rate
        return ScannedRecording(recording, reader, activity, roles, copies, is_low_rate, warn)

    def segments(
        self, opened: ScannedRecording, only: Container[tuple[int, int]] | None = None
    ) -> "Iterator[Segment[Any]]":
        """Yield the segments of a recording by time; `only` some, by channel and number, have features then."""
        from ser_batch.segments.segmenter import Selection, segments  # loaded by workers only

        unwanted = opened.activity.frames.keys() - opened.roles.keys()
        return segments(
            opened.reader,
            opened.recording,
            _front_end(self.model, self.model_id),
            self.segmentation,
            activity=opened.activity,
            selection=Selection(opened.copies | unwanted, self.rules.min_speech, only),
            warn=opened.warn,
        )

    def rows(self, recording: Recording, file: RecordingFile) -> Rows:
        """Yield rows of the predictions a batch at a time, the calls last."""
        with self.opened(recording, file) as opened:
            yield from self._rows(opened, file.content_hash)

    def _rows(self, opened: ScannedRecording, content_hash: str) -> Rows:
        recording = opened.recording
        activity = opened.activity
        chances = self.loaded()[0].schema.chances(self.rules.prioritized)
        calls = {
            channel: CallSums(
                self.labels,
                duration_s=activity.duration_s,
                prioritized=chances,
                role=role,
                is_low_rate=opened.is_low_rate,
            )
            for channel, role in opened.roles.items()
        }
        scorer = self.scorer(opened)
        batch: list[Segment[Any]] = []
        enough = scorer.first_batch
        encoded = {} if self.sampled is None else read_encoded(self.sampled).get((recording.path, content_hash), {})
        for segment in self.segments(opened, Besides(encoded)):
            place = segment.channel, segment.index
            is_known = place in encoded and segment.features is None
            batch.append(dataclasses.replace(segment, features=encoded[place]) if is_known else segment)
            if len(batch) == enough:
                yield from self._predictions(recording, content_hash, batch, scorer, calls)
                batch, enough = [], SEGMENTS_A_BATCH
        if batch:
            yield from self._predictions(recording, content_hash, batch, scorer, calls)
        for channel, call in sorted(calls.items()):
            known = {"path": recording.path, "content_hash": content_hash, "channel": channel}
            sums = call.row(
                speech_s=activity.speech_s(channel),
                overlap_s=activity.overlap_s(channel),
                is_duplicate=channel in opened.copies,
            )
            yield CALLS, known | {"model_id": self.model_id, **sums}
            for quarter in call.quarters():
                yield QUARTERS, {"path": recording.path, "channel": channel, **quarter}

    def _predictions(
        self,
        recording: Recording,
        content_hash: str,
        batch: "Sequence[Segment[Any]]",
        scorer: Scorer[Any],
        calls: Mapping[int, CallSums],
    ) -> Rows:
        """Predict a batch; silent segments and those with too little speech keep their row without a prediction."""
        computed = {
            i: segment.features
            for i, segment in enumerate(batch)
            if segment.rms_dbfs is not None and segment.features is not None
        }
        scored, features = list(computed), list(computed.values())
        ood_score, probabilities = np.zeros(0), np.empty((0, len(self.labels)))
        try:
            if scored:
                ood_score = scorer.ood_score(features)
                probabilities = scorer.probabilities([batch[i].channel for i in scored], features, ood_score)
        except Exception as error:  # whatever the network's libraries raise, it is not the recording's fault
            raise ModelError(f"{self.model}: the network failed ({type(error).__name__}: {error})") from error
        ood_score_of = dict(zip(scored, ood_score.tolist(), strict=True))
        columns_of = _prediction_columns(probabilities, self.labels, ood_score > 1, self.rules.min_confidence)
        predicted = dict(zip(scored, columns_of, strict=True))
        for i, segment in enumerate(batch):
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
            own, columns = predicted.get(i, (None, {}))
            calls[segment.channel].add(
                start_s=segment.start_s,
                end_s=segment.end_s,
                speech_ratio=segment.speech_ratio,
                probabilities=own,
                predicted=None if columns.get("abstained") else columns.get("predicted"),
                truth=truth,
                ood_score=ood_score_of.get(i, 0.0),
            )
            yield MAIN, row | columns


def _prediction_columns(
    probabilities: Floats,
    labels: Sequence[str],
    is_out_of_domain: Flags,
    min_confidence: float,
) -> Iterator[tuple[Floats, dict[str, Any]]]:
    """Yield the probabilities of each segment, and what its prediction columns hold."""
    # The model abstains from an out-of-domain segment, however high its confidence.
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    margin = ranked[:, 0] - (ranked[:, 1] if len(labels) > 1 else 0.0)
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    entropy = -(probabilities * logs).sum(axis=1)
    abstained = (ranked[:, 0] < min_confidence) | is_out_of_domain
    columns = zip(
        order[:, 0].tolist(),
        ranked[:, 0].tolist(),
        entropy.tolist(),
        margin.tolist(),
        abstained.tolist(),
        strict=True,
    )
    names = [f"p_{label}" for label in labels]
    for own, (best, confidence, nats, lead, abstains) in zip(probabilities, columns, strict=True):
        yield (
            own,
            {
                "predicted": labels[best],
                "abstained": abstains,
                "confidence": confidence,
                "entropy": nats,
                "margin": lead,
                **dict(zip(names, own.tolist(), strict=True)),
            },
        )


@functools.lru_cache(maxsize=1)
def _model(folder: Path, model_id: str) -> tuple[Model, Applied]:
    """Load the model once a process; `model_id` is the one that the run was started with."""
    loaded = load_model(folder)
    if loaded.model_id != model_id:
        raise ModelError(f"{folder}: became another model while it was used; run the same command again")
    return loaded, load_applied(loaded)


@functools.lru_cache(maxsize=1)  # to find an encoder, all installed packages are looked through
def _front_end(folder: Path, model_id: str) -> Any:
    """Return what computes the features that the model takes."""
    from ser_batch.segments.front_ends import front_end  # loaded by workers only

    loaded, _ = _model(folder, model_id)
    return front_end(loaded.feature_spec, loaded.encoder_place() if loaded.takes_embeddings else None)
