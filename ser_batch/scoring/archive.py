"""Choose the prior and the reference of a run; make the reference from a sample of the archive."""

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.audio.recording_file import RecordingFile
from ser_batch.config.features import EncoderSpec
from ser_batch.config.option_values import check_prior
from ser_batch.config.options import ScoreOptions
from ser_batch.corpus.manifest import Recording
from ser_batch.errors import UsageError
from ser_batch.model.folder import Model
from ser_batch.network.heads import log_prior_of
from ser_batch.runs.part_writer import MAIN, Rows
from ser_batch.runs.run import Runner
from ser_batch.runs.store import Store, read_settings
from ser_batch.runs.worker import Work
from ser_batch.scoring.reference import (
    MIN_RECORDINGS,
    Reference,
    embeddings_of,
    given_reference,
    no_reference,
    now,
    read_reference,
    reference_file,
)
from ser_batch.scoring.worker import ScannedRecording, ScoreWork
from ser_batch.storage.lock import claimed, refuse_other
from ser_batch.storage.paths import parquet_source, remove_tree

MAX_RECORDINGS = 200
MAX_SEGMENTS = 10
# of all recordings together; a mean of so many does not move any more (heads are trained on means of 240)
ENOUGH_SEGMENTS = 400


@dataclasses.dataclass(frozen=True)
class SampleWork(Work):
    """What a worker does with a recording of the sample."""

    folder: Path
    scoring: ScoreWork
    size: int
    max_segments: int

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        """One row per segment."""
        return {MAIN: _schema(self.size)}

    def prepare(self) -> None:
        """Load the model."""
        self.scoring.prepare()

    def rows(self, recording: Recording, file: RecordingFile) -> Rows:
        """Yield at most `max_segments`, by channel and number; nothing where none has enough speech."""
        with self.scoring.opened(recording, file) as opened:
            yield from self._rows(opened, file.content_hash)

    def _rows(self, opened: ScannedRecording, content_hash: str) -> Rows:
        only = frozenset(evenly(list(self._spoken(opened)), self.max_segments))
        if not only:
            return
        found = {
            (segment.channel, segment.index): segment.features
            for segment in self.scoring.segments(opened, only)
            if segment.features is not None and segment.rms_dbfs is not None
        }
        features = [found[key] for key in sorted(found)]
        if features:
            path = opened.recording.path
            is_in_domain = self.scoring.scorer(opened).ood_score(features) <= 1
            for (channel, index), own, in_domain in zip(sorted(found), features, is_in_domain.tolist(), strict=True):
                row = {"path": path, "content_hash": content_hash, "channel": channel, "segment": index}
                row |= {"end_s": opened.activity.duration_s, "is_in_domain": in_domain}
                yield MAIN, row | {"n_tokens": own.n_tokens, "embedding": own.values}

    def _spoken(self, opened: ScannedRecording) -> Iterator[tuple[int, int]]:
        """Yield channel and number of the segments with enough speech to be scored, and any at all."""
        from ser_batch.segments.boundaries import intervals, labels_by_channel  # loaded by workers only

        segmentation, activity = self.scoring.segmentation, opened.activity
        labels = labels_by_channel(opened.recording, segmentation, opened.reader.sound.n_channels)
        for channel in sorted(opened.roles.keys() - opened.copies):
            for interval in intervals(channel, labels[channel], segmentation, activity):
                end_s = activity.duration_s if interval.end_s is None else interval.end_s
                ratio = activity.speech_ratio(channel, interval.start_s, end_s)
                if ratio > 0 and ratio >= self.scoring.rules.min_speech:
                    yield channel, interval.index
                if segmentation.mode == "windows" and end_s >= activity.duration_s:
                    break  # windows go on for ever


def evenly(keys: Sequence[tuple[int, int]], most: int) -> Sequence[tuple[int, int]]:
    """Return at most so many of some keys, as far apart as they can be."""
    n = min(most, len(keys))
    return [keys[(2 * number + 1) * len(keys) // (2 * n)] for number in range(n)]


def sample(recordings: Sequence[Recording]) -> list[Recording]:
    """Return at most `MAX_RECORDINGS` recordings, chosen and ordered by a hash of their path."""
    return sorted(recordings, key=lambda recording: _hash(recording.path))[:MAX_RECORDINGS]


def _hash(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


def archive_reference(
    recordings: Sequence[Recording], scoring: ScoreWork, spec: EncoderSpec, runner: Runner
) -> tuple[Reference, pa.Table | None]:
    """Encode a sample of the archive."""
    chosen = sample(recordings)
    segments = scoring.segmentation.mode
    nothing = no_reference(spec, segments, n_sampled=len(chosen))
    if len(chosen) < MIN_RECORDINGS:
        return nothing, None
    folder = sample_folder(scoring.folder)
    max_segments = min(MAX_SEGMENTS, math.ceil(ENOUGH_SEGMENTS / len(chosen)))
    work = SampleWork(folder, scoring, spec.embedding_size, max_segments)
    try:
        with claimed(folder):
            store = Store(folder, {}, overwrite=True)
            runner.do(work, store, chosen, title="reference")
            tables = [pq.ParquetFile(parquet_source(part)).read() for part in store.parts()]
    finally:
        remove_tree(folder)
    sampled = pa.concat_tables([_schema(spec.embedding_size).empty_table(), *tables])
    embedding, is_in_domain = embeddings_of(sampled).astype(np.float64), sampled["is_in_domain"].to_numpy()
    path = sampled["path"].to_numpy()
    # in the order of the sample: sums of floats depend on it
    of_recordings = [embedding[is_in_domain & (path == recording.path)] for recording in chosen]
    own = [values for values in of_recordings if len(values)]
    if len(own) < MIN_RECORDINGS:
        return nothing, sampled
    n_segments = sum(map(len, own))
    sums = np.zeros(spec.embedding_size)
    for values in own:
        sums += values.sum(axis=0)
    reference = Reference(
        kind="archive",
        encoder=spec.digest(),
        segments=segments,
        embedding=tuple((sums / n_segments).tolist()),
        n_recordings=len(own),
        n_segments=n_segments,
        n_sampled=len(chosen),
        created=now(),
    )
    return reference, sampled


def _schema(size: int) -> pa.Schema:
    """Return the columns of the sample, for embeddings of `size` numbers."""
    return pa.schema(
        [
            ("path", pa.string()),
            ("content_hash", pa.string()),
            ("channel", pa.int16()),
            ("segment", pa.int32()),
            ("end_s", pa.float64()),  # of the recording
            ("is_in_domain", pa.bool_()),  # in domain, and so part of the reference
            ("n_tokens", pa.int32()),
            ("embedding", pa.list_(pa.float32(), size)),
        ]
    )


def sample_folder(folder: Path) -> Path:
    """Return where the sample of a store is worked on; it is removed when that is done."""
    return folder / "_meta" / "reference"


@dataclasses.dataclass(frozen=True)
class UsedReference:
    """The reference of a run."""

    reference: Reference  # what it is
    file: Path  # where it is stored
    given: str | None  # what ``--reference`` said
    is_stored: bool  # whether an earlier run into the same output stored it


def chosen_prior(model: Model, options: ScoreOptions) -> Mapping[str, float]:
    """Return the shares of labels that are expected; empty for balanced."""
    wanted = options.prior_shares
    if wanted is None:
        return {} if options.segments in ("clip", "labels") else model.schema.prior
    check_prior(wanted, model.labels)
    return wanted


def shares_of(model: Model, prior: Mapping[str, float]) -> dict[str, float]:
    """Return the share that a prior expects of each label."""
    return dict(zip(model.labels, np.exp(log_prior_of(model.labels, prior)).tolist(), strict=True))


def given_by(model: Model, options: ScoreOptions) -> Reference | None:
    """Return the reference that was asked for; None where it is that of the archive, or the model takes none."""
    if options.reference is None or (options.reference == "none" and not model.is_head_model):
        return None
    if not model.is_head_model:
        raise UsageError(
            f"--reference {options.reference}: the model {model.folder} takes no reference, only heads on embeddings "
            "do (train --recipe head); leave out --reference, or choose another --model"
        )
    return given_reference(options.reference, encoder_spec(model), options.segments)


def encoder_spec(model: Model) -> EncoderSpec:
    """Return the encoder of a model on embeddings."""
    assert isinstance(model.feature_spec, EncoderSpec)
    return model.feature_spec


def chosen_reference(
    recordings: Sequence[Recording],
    work: ScoreWork,
    identity: Mapping[str, Any],
    model: Model,
    options: ScoreOptions,
    given: Reference | None,
    runner: Runner,
) -> tuple[UsedReference, pa.Table | None]:
    """Return the reference of a run with heads: the given one, that of the first run into this output, or a new one."""
    spec, file = encoder_spec(model), reference_file(options.out)
    if given is not None:
        return UsedReference(given, file, options.reference, is_stored=False), None
    found = run_settings(work.folder, options)
    if found is not None:
        refuse_other(work.folder, {name: value for name, value in found.items() if name != "reference"}, identity)
        with contextlib.suppress(FileNotFoundError):  # then it is made again, and refused if it is another one
            return UsedReference(read_reference(file, spec), file, None, is_stored=True), None
    made, sampled = archive_reference(recordings, work, spec, runner)
    return UsedReference(made, file, None, is_stored=False), sampled


def run_settings(folder: Path, options: ScoreOptions) -> dict[str, Any] | None:
    """Return the settings of the run that this one goes on with; None where it begins."""
    return None if options.overwrite else read_settings(folder)


def reference_warnings(used: UsedReference | None, n_recordings: int) -> Iterator[str]:
    """Yield what to tell of a reference that would be another one by now."""
    if used is None or not used.is_stored or used.reference.kind != "none":
        return
    if n_recordings >= MIN_RECORDINGS and n_recordings > used.reference.n_sampled:
        yield (
            f"scored without a reference of the archive, as in the first run into this output; {n_recordings} "
            "recordings are enough for one. Add --overwrite to make it and to score all recordings with it"
        )
