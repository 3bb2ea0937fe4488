"""The first stage: recordings to segments to MFCCs, one Parquet row a segment."""

from ser_batch.featurize.cutting import Segment, emotion_of, segments, speaker_of
from ser_batch.featurize.stage import FeaturizeSummary, FeaturizeWork, featurize, labelled, nothing_done

__all__ = [
    "FeaturizeSummary",
    "FeaturizeWork",
    "Segment",
    "emotion_of",
    "featurize",
    "labelled",
    "nothing_done",
    "segments",
    "speaker_of",
]
