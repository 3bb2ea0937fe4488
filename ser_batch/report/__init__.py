"""Metrics as frames; HTML pages, of which `model_page` and `calls_page` alone load Altair."""
