"""Fetch the archives of a corpus from its publisher, verify their checksums, unpack them."""

from ser_batch.download.archives import RELEASES, Archive, Release
from ser_batch.download.corpora import DownloadSummary, download_corpus, find_release

__all__ = ["RELEASES", "Archive", "DownloadSummary", "Release", "download_corpus", "find_release"]
