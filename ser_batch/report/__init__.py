"""Metrics as frames, and the pages made of them.

`metrics` counts labelled predictions, `evaluation` and `calibration` make of them the tables of a model folder,
`restricting` with the labels of each corpus, `scored` those beside preds.parquet. `texts` shows them in the terminal;
`pages` writes the HTML, by `model_page` (`charts`, `mistakes`) and `calls_page` (`call_charts`, `time_lines`), which
alone load Altair; `rendering` fills the templates. `inspecting`, with `health`, tells what any of our folders and
tables is.
"""

from ser_batch.report.calibration import coverage_table, expected_calibration_error, reliability_table
from ser_batch.report.evaluation import report_table, summary_table
from ser_batch.report.metrics import SUMMARY_ROWS, classification, confusion, headline, main_rows
from ser_batch.report.pages import write_page
from ser_batch.report.regimes import regimes_metrics, regimes_table
from ser_batch.report.restricting import restricted
from ser_batch.report.scored import known_truth, page_file, predictions_report, side_tables
from ser_batch.report.texts import PUBLISHED, model_card, summary_text, table_text

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
    "page_file",
    "predictions_report",
    "regimes_metrics",
    "regimes_table",
    "reliability_table",
    "report_table",
    "restricted",
    "side_tables",
    "summary_table",
    "summary_text",
    "table_text",
    "write_page",
]
