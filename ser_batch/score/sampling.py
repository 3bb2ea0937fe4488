"""The archive's reference made: some segments of some recordings, the same ones whatever the order and the workers."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.config import EncoderSpec, ScoreOptions
from ser_batch.corpus import Recording
from ser_batch.parallel import MAIN, Cluster, Progress, Rows, Store, Work, claimed, run_recordings
from ser_batch.score.encoded import embeddings_of
from ser_batch.score.reference import LEAST_RECORDINGS, Reference, no_reference, now
from ser_batch.score.work import Opened, ScoreWork
from ser_batch.tables import remove_tree, source

MOST_RECORDINGS = 200
MOST_SEGMENTS = 10
# of all recordings together; a mean of so many does not move any more (heads are trained on means of 240)
ENOUGH_SEGMENTS = 400


@dataclasses.dataclass(frozen=True)
class SampleWork(Work):
    """What a worker does with a recording of the sample."""

    folder: Path
    scoring: ScoreWork
    size: int
    most_segments: int

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:  # type: ignore[override]  # made in the worker: a schema is not sent
        """One row per segment."""
        return {MAIN: _schema(self.size)}

    def prepare(self) -> None:
        """Load the model."""
        self.scoring.prepare()

    def rows(self, recording: Recording, content_hash: str) -> Rows:
        """Yield at most `most_segments`, by channel and number; nothing where none has enough speech."""
        opened = self.scoring.open(recording)
        only = frozenset(evenly(list(self._spoken(opened)), self.most_segments))
        if not only:
            return
        found = {
            (segment.channel, segment.index): segment.features
            for segment in self.scoring.segments(opened, only)
            if segment.features is not None and segment.rms_dbfs is not None
        }
        features = [found[key] for key in sorted(found)]
        if features:
            is_heard = self.scoring.judge(opened).strangeness(features) <= 1
            for (channel, index), own, heard in zip(sorted(found), features, is_heard.tolist(), strict=True):
                row = {"path": recording.path, "content_hash": content_hash, "channel": channel, "segment": index}
                row |= {"end_s": opened.activity.duration_s, "is_heard": heard}
                yield MAIN, row | {"n_tokens": own.n_tokens, "embedding": own.values}

    def _spoken(self, opened: Opened) -> Iterator[tuple[int, int]]:
        """Yield channel and number of the segments with enough speech to be scored, and any at all."""
        from ser_batch.featurize.intervals import intervals, labels_by_channel  # loaded by workers only

        segmentation, activity = self.scoring.segmentation, opened.activity
        labels = labels_by_channel(opened.recording, segmentation, opened.sound.n_channels)
        for channel in sorted(opened.roles.keys() - opened.copies):
            for interval in intervals(channel, labels[channel], segmentation, activity):
                end_s = activity.duration_s if interval.end_s is None else interval.end_s
                ratio = activity.speech_ratio(channel, interval.start_s, end_s)
                if ratio > 0 and ratio >= self.scoring.min_speech:
                    yield channel, interval.index
                if segmentation.mode == "windows" and end_s >= activity.duration_s:
                    break  # windows go on for ever


def evenly(keys: Sequence[tuple[int, int]], most: int) -> Sequence[tuple[int, int]]:
    """Return at most so many of some keys, as far apart as they can be."""
    n = min(most, len(keys))
    return [keys[(2 * number + 1) * len(keys) // (2 * n)] for number in range(n)]


def sample(recordings: Sequence[Recording]) -> list[Recording]:
    """Return at most `MOST_RECORDINGS` recordings, chosen and ordered by a hash of their path."""
    return sorted(recordings, key=lambda recording: _hash(recording.path))[:MOST_RECORDINGS]


def _hash(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


def archive_reference(
    recordings: Sequence[Recording],
    scoring: ScoreWork,
    spec: EncoderSpec,
    options: ScoreOptions,
    *,
    cluster: Cluster | None,
    progress: Progress | None,
) -> tuple[Reference, pa.Table | None]:
    """Encode a sample of the archive.

    Parameters
    ----------
    recordings
        All that are to be scored, in any order.
    scoring
        How they are; its folder has to be claimed.
    spec
        The encoder.
    options, cluster, progress
        How the work is done.

    Returns
    -------
    reference : Reference
    sampled : pyarrow.Table, optional
        The segments of the sample, for `ScoreWork.sampled`.
    """
    chosen = sample(recordings)
    nothing = no_reference(spec, options.segments, n_sampled=len(chosen))
    if len(chosen) < LEAST_RECORDINGS:
        return nothing, None
    folder = sample_folder(scoring.folder)
    most_segments = min(MOST_SEGMENTS, math.ceil(ENOUGH_SEGMENTS / len(chosen)))
    work = SampleWork(folder, scoring, spec.embedding_size, most_segments)
    try:
        with claimed(folder):
            store = Store(folder, {}, overwrite=True)
            run_recordings(work, store, chosen, options, title="reference", cluster=cluster, progress=progress)
            tables = [pq.ParquetFile(source(part)).read() for part in store.parts()]
    finally:
        remove_tree(folder)
    sampled = pa.concat_tables([_schema(spec.embedding_size).empty_table(), *tables])
    embedding, is_heard = embeddings_of(sampled).astype(np.float64), sampled["is_heard"].to_numpy()
    path = sampled["path"].to_numpy()
    # in the order of the sample: sums of floats depend on it
    of_recordings = [embedding[is_heard & (path == recording.path)] for recording in chosen]
    own = [values for values in of_recordings if len(values)]
    if len(own) < LEAST_RECORDINGS:
        return nothing, sampled
    n_segments = sum(map(len, own))
    sums = np.zeros(spec.embedding_size)
    for values in own:
        sums += values.sum(axis=0)
    reference = Reference(
        kind="archive",
        encoder=spec.digest(),
        segments=options.segments,
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
            ("is_heard", pa.bool_()),  # in domain, and so part of the reference
            ("n_tokens", pa.int32()),
            ("embedding", pa.list_(pa.float32(), size)),
        ]
    )


def sample_folder(folder: Path) -> Path:
    """Return where the sample of a store is worked on; it is removed when that is done."""
    return folder / "_meta" / "reference"
