"""Fetch the official RAVDESS archives, verify their checksums, unpack them.

Source: Livingstone & Russo 2018, PLoS ONE 13(5) e0196391; Zenodo record 1188976, CC BY-NC-SA 4.0.
"""

from ser_batch.download.archives import RAVDESS, ZENODO, Archive
from ser_batch.download.ravdess import DownloadSummary, download_ravdess

__all__ = ["RAVDESS", "ZENODO", "Archive", "DownloadSummary", "download_ravdess"]
