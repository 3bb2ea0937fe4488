"""Fetch the archives of a corpus or the weights of an encoder from their publisher, and verify the checksums."""

from ser_batch.download.archives import RELEASES, Archive, Release
from ser_batch.download.checkpoints import CHECKPOINTS, Checkpoint, download_checkpoint
from ser_batch.download.corpora import DownloadSummary, download_corpus, find_release

__all__ = [
    "CHECKPOINTS",
    "RELEASES",
    "Archive",
    "Checkpoint",
    "DownloadSummary",
    "Release",
    "download_checkpoint",
    "download_corpus",
    "find_release",
]
