"""Error analysis of the held-out rows: accuracy by speaker, most frequent confusions."""

from typing import Any

import polars as pl

from ser_batch.report.metrics import conditions

PAIRS = 8
RECORDINGS = 5


def by_speaker(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the accuracy of each speaker in the first condition, lowest first."""
    return (
        _main(predictions)
        .drop_nulls("speaker")
        .group_by("speaker")
        .agg(
            pl.col("sex", "corpus").drop_nulls().first(),
            n=pl.len().cast(pl.Int64),
            accuracy=(pl.col("predicted") == pl.col("emotion")).mean(),
        )
        .sort("accuracy", "speaker")
    )


def worst_confusions(predictions: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the most frequent pairs of emotion and wrong prediction, with recordings of each."""
    rows = _main(predictions)
    labels = [name.removeprefix("p_") for name in rows.columns if name.startswith("p_")]
    of_emotion = dict(rows.group_by("emotion").len().iter_rows())
    wrong = rows.filter(pl.col("predicted") != pl.col("emotion")).with_columns(
        p=pl.max_horizontal(f"p_{label}" for label in labels)
    )
    pairs = wrong.group_by("emotion", "predicted").len("count")
    worst = []
    for pair in pairs.sort("count", "emotion", "predicted", descending=[True, False, False]).head(PAIRS).to_dicts():
        own = wrong.filter(emotion=pair["emotion"], predicted=pair["predicted"])
        recordings = own.group_by("dataset", "path").agg(pl.col("speaker").first(), pl.col("p").max())
        shown = recordings.sort("p", "dataset", "path", descending=[True, False, False]).head(RECORDINGS)
        worst.append({**pair, "rate": pair["count"] / of_emotion[pair["emotion"]], "recordings": shown.to_dicts()})
    return worst


def _main(predictions: pl.DataFrame) -> pl.DataFrame:
    return predictions.filter(pl.col("variant") == conditions(predictions)[0])
