"""Paths on disk and in object stores, files written whole or not at all, one run at a time per output."""
