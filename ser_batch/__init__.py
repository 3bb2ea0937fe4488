"""Batch speech-emotion analytics on dataframes: audio to Parquet features, a 1D CNN, Parquet predictions."""

__version__ = "0.1.0"
