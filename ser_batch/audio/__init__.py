"""Decode, mix or split channels, resample; in blocks, so that hours of sound need no more memory than minutes."""
