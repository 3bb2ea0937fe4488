"""Decode, mix or split channels, resample; in blocks, so that hours of sound need no more memory than minutes."""

from ser_batch.audio.reader import BLOCK_S, AudioReader
from ser_batch.audio.resampling import Resampler, channel_samples
from ser_batch.audio.sound import Samples, Sound

__all__ = ["BLOCK_S", "AudioReader", "Resampler", "Samples", "Sound", "channel_samples"]
