"""From a folder to a manifest: the walk, what file names say, what a labels file adds.

Nothing here opens a recording; a name, a size and a time are all that is looked at.
"""

from ser_batch.corpus.folder import AUDIO_SUFFIXES, utf8, walk
from ser_batch.corpus.labels import Labels, join_labels
from ser_batch.corpus.ravdess import LICENCES, parse_name
from ser_batch.corpus.records import LabelRow, Manifest, Metadata, Recording, Reject, emotion_of, label_at, speaker_of

__all__ = [
    "AUDIO_SUFFIXES",
    "LICENCES",
    "LabelRow",
    "Labels",
    "Manifest",
    "Metadata",
    "Recording",
    "Reject",
    "emotion_of",
    "join_labels",
    "label_at",
    "parse_name",
    "speaker_of",
    "utf8",
    "walk",
]
