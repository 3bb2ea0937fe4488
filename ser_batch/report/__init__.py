"""Metrics as frames, and the pages made of them.

`metrics` counts labelled predictions, `evaluation` and `calibration` make of them the tables of a model folder,
`restricting` with the labels of each corpus, `scored` those beside preds.parquet; `pages`, with `pictures`, shows them
to people. `inspecting`, with `health`, tells what any of our folders and tables is.
"""

from ser_batch.report.calibration import coverage_table, expected_calibration_error, reliability_table
from ser_batch.report.evaluation import report_table, summary_table
from ser_batch.report.metrics import SUMMARY_ROWS, classification, confusion, headline, main_rows
from ser_batch.report.pages import PUBLISHED, model_card, summary_text, table_text, write_page
from ser_batch.report.restricting import restricted
from ser_batch.report.scored import known_truth, predictions_report, side_tables

__all__ = [
    "PUBLISHED",
    "SUMMARY_ROWS",
    "classification",
    "confusion",
    "coverage_table",
    "expected_calibration_error",
    "headline",
    "known_truth",
    "main_rows",
    "model_card",
    "predictions_report",
    "reliability_table",
    "report_table",
    "restricted",
    "side_tables",
    "summary_table",
    "summary_text",
    "table_text",
    "write_page",
]
