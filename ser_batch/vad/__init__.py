"""Where there is speech in a recording: a frame of 30 ms is speech or not, for each channel."""

from ser_batch.vad.activity import FRAME_S, PAUSE_S, Activity
from ser_batch.vad.scanning import scan

__all__ = ["FRAME_S", "PAUSE_S", "Activity", "scan"]
