"""Voice activity detection: a frame of 30 ms is speech or not, for each channel."""
