"""Metrics as frames, and the pages made of them.

`metrics` counts labelled predictions, `evaluation` and `calibration` make of them the tables of a model folder,
`restricting` with the labels of each corpus, `scored` those beside preds.parquet. `texts` shows them in the terminal;
`pages` writes the HTML, by `model_page` (`charts`, `mistakes`) and `calls_page` (`call_charts`, `time_lines`), which
alone load Altair; `rendering` fills the templates. `inspecting`, with `health`, tells what any of our folders and
tables is.
"""
