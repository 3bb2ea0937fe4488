"""What a worker of featurize does with a recording."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ser_batch.config import AnyFeatureSpec, FeatureSpec, RawFormat, Segmentation, Variants
from ser_batch.corpus import LabelRow, Recording, metadata_of
from ser_batch.parallel import MAIN, Rows, Work
from ser_batch.tables import LABEL_PREFIX, features_schema

if TYPE_CHECKING:
    from ser_batch.encoder import Embedding
    from ser_batch.featurize.front_ends import Frames


def labelled_columns(recording: Recording, label: LabelRow | None) -> dict[str, Any]:
    """Return what the name and the labels file say of a segment, by column."""
    votes = label.votes if label is not None else ()
    return metadata_of(recording, label) | {LABEL_PREFIX + name: share for name, share in votes}


@dataclasses.dataclass(frozen=True)
class FeaturizeWork(Work):
    """What a worker of featurize does with a recording.

    `encoder_place` is where a worker finds the encoder, if there is one: see `front_ends.front_end`.
    """

    folder: Path
    dataset: str
    spec: AnyFeatureSpec
    segmentation: Segmentation
    variants: Variants = dataclasses.field(default_factory=Variants)
    raw_format: RawFormat | None = None
    voted: tuple[str, ...] = ()
    max_duration_s: float = math.inf
    encoder_place: str | None = None

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:  # type: ignore[override]  # made in the worker: a schema is not sent
        """The parts only."""
        return {MAIN: features_schema(self.spec, self.voted)}

    @property
    def cuts_at_labels(self) -> bool:
        """Whether segments follow the labels file."""
        return self.segmentation.follows_labels

    def prepare(self) -> None:
        """Load what decodes and computes."""
        import ser_batch.featurize.cutting  # noqa: F401 - loaded by workers only
        from ser_batch.featurize.front_ends import front_end

        front_end(self.spec, self.encoder_place)

    def rows(self, recording: Recording, content_hash: str) -> Rows:
        """Yield a row of the features table for each segment."""
        from ser_batch.featurize.cutting import segments  # loaded by workers only
        from ser_batch.featurize.front_ends import front_end
        from ser_batch.featurize.intervals import activity_of

        known = {
            "dataset": self.dataset,
            "path": recording.path,
            "content_hash": content_hash,
        }
        # where people or the file's own beginning decide what is cut, nobody asks for speech
        is_scanned = self.segmentation.mode in ("windows", "turns")
        for sound, segment in segments(
            recording,
            front_end(self.spec, self.encoder_place),
            self.segmentation,
            variants=self.variants,
            content_hash=content_hash,
            activity=activity_of(recording, self.segmentation, self.raw_format, self.max_duration_s)
            if is_scanned
            else None,
            raw_format=self.raw_format,
            max_duration_s=self.max_duration_s,
        ):
            assert segment.features is not None  # no segment has too little speech
            yield (
                MAIN,
                {
                    **known,
                    **labelled_columns(recording, segment.label),
                    "channel": segment.channel,
                    "segment": segment.index,
                    "variant": segment.variant,
                    "start_s": segment.start_s,
                    "end_s": segment.end_s,
                    "duration_s": sound.n_samples / sound.sampling_rate,
                    "sampling_rate": sound.sampling_rate,
                    "n_channels": sound.n_channels,
                    "speech_ratio": segment.speech_ratio,
                    **_computed_columns(segment.features, self.spec),
                },
            )


def _computed_columns(features: "Frames | Embedding", spec: AnyFeatureSpec) -> dict[str, Any]:
    """Return the columns that a front end fills."""
    if not isinstance(features, np.ndarray):
        return {"n_tokens": features.n_tokens, "embedding": features.values}
    assert isinstance(spec, FeatureSpec)
    mfcc = np.zeros((spec.n_frames, spec.n_mfcc), dtype=np.float32)
    mfcc[: len(features)] = features
    return {
        "n_frames": len(features),
        "mfcc": mfcc,
        "mfcc_mean": features.mean(axis=0),
        "mfcc_std": features.std(axis=0),
    }
