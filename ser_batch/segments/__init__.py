"""Segments: their boundaries, and the features of each."""
