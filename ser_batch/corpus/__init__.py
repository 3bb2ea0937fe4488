"""From a folder to a manifest: the walk, what file names say, what a labels file adds.

Nothing here opens a recording; a name, a size and a time are all that is looked at.
"""

from ser_batch.corpus.folder import AUDIO_SUFFIXES, name_warnings, utf8, walk
from ser_batch.corpus.labels import Labels, is_label, join_labels
from ser_batch.corpus.names import CORPORA, SOURCES, licence_of, parse_name, sources_of
from ser_batch.corpus.records import (
    SAID_BY_LABELS,
    LabelRow,
    Manifest,
    Metadata,
    Recording,
    Reject,
    emotion_of,
    label_at,
    metadata_of,
)
from ser_batch.corpus.remote import fetched, is_in_store

__all__ = [
    "AUDIO_SUFFIXES",
    "CORPORA",
    "SAID_BY_LABELS",
    "SOURCES",
    "LabelRow",
    "Labels",
    "Manifest",
    "Metadata",
    "Recording",
    "Reject",
    "emotion_of",
    "fetched",
    "is_in_store",
    "is_label",
    "join_labels",
    "label_at",
    "licence_of",
    "metadata_of",
    "name_warnings",
    "parse_name",
    "sources_of",
    "utf8",
    "walk",
]
