"""Stage 3: recordings to predictions, calls and reports."""
