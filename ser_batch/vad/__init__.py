"""Where there is speech in a recording: a frame of 30 ms is speech or not, for each channel."""
