"""What a worker of featurize does with a recording."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ser_batch.config import FeatureSpec, Segmentation, Variants
from ser_batch.corpus import Recording, emotion_of, speaker_of
from ser_batch.parallel import MAIN, Rows, Work
from ser_batch.tables import features_schema


@dataclasses.dataclass(frozen=True)
class FeaturizeWork(Work):
    """What a worker of featurize does with a recording."""

    folder: Path
    dataset: str
    spec: FeatureSpec
    segmentation: Segmentation
    variants: Variants = dataclasses.field(default_factory=Variants)

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:  # type: ignore[override]  # made in the worker: a schema is not sent
        """The parts only."""
        return {MAIN: features_schema(self.spec)}

    def rows(self, recording: Recording, content_hash: str) -> Rows:
        """Yield a row of the features table for each segment."""
        from ser_batch.featurize.cutting import activity_of, segments  # loaded by workers only

        known = {
            "dataset": self.dataset,
            "path": recording.path,
            "content_hash": content_hash,
            **dataclasses.asdict(recording.metadata),
        }
        # where people or the file's own beginning decide what is cut, nobody asks for speech
        is_scanned = self.segmentation.mode in ("windows", "turns")
        for sound, segment in segments(
            recording,
            self.spec,
            self.segmentation,
            variants=self.variants,
            content_hash=content_hash,
            activity=activity_of(recording, self.segmentation) if is_scanned else None,
        ):
            frames = segment.mfcc
            mfcc = np.zeros((self.spec.n_frames, self.spec.n_mfcc), dtype=np.float32)
            mfcc[: len(frames)] = frames
            yield (
                MAIN,
                {
                    **known,
                    "channel": segment.channel,
                    "segment": segment.index,
                    "variant": segment.variant,
                    "start_s": segment.start_s,
                    "end_s": segment.end_s,
                    "duration_s": sound.n_samples / sound.sampling_rate,
                    "sampling_rate": sound.sampling_rate,
                    "n_channels": sound.n_channels,
                    "n_frames": len(frames),
                    "emotion": emotion_of(recording, segment.label),
                    "speaker": speaker_of(recording, segment.label),
                    "speech_ratio": segment.speech_ratio,
                    "mfcc": mfcc,
                    "mfcc_mean": frames.mean(axis=0),
                    "mfcc_std": frames.std(axis=0),
                },
            )
