"""Fetch the official RAVDESS archives or the weights of an encoder, and verify their checksums.

Source of RAVDESS: Livingstone & Russo 2018, PLoS ONE 13(5) e0196391; Zenodo record 1188976, CC BY-NC-SA 4.0.
"""

from ser_batch.download.archives import RAVDESS, ZENODO, Archive
from ser_batch.download.checkpoints import CHECKPOINTS, Checkpoint, download_checkpoint
from ser_batch.download.ravdess import DownloadSummary, download_ravdess

__all__ = [
    "CHECKPOINTS",
    "RAVDESS",
    "ZENODO",
    "Archive",
    "Checkpoint",
    "DownloadSummary",
    "download_checkpoint",
    "download_ravdess",
]
