"""Metrics as frames, and the pages made of them."""

from ser_batch.report.pages import (
    PUBLISHED,
    SUMMARY_ROWS,
    classification,
    confusion,
    headline,
    known_truth,
    model_card,
    predictions_report,
    side_tables,
    table_text,
    write_page,
)

__all__ = [
    "PUBLISHED",
    "SUMMARY_ROWS",
    "classification",
    "confusion",
    "headline",
    "known_truth",
    "model_card",
    "predictions_report",
    "side_tables",
    "table_text",
    "write_page",
]
