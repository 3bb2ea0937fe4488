"""preds.report.html: which calls to hear, why, and what was scored."""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ser_batch.config.options import Playback
from ser_batch.corpus.manifest import WARNING
from ser_batch.report.call_audio import PLAYABLE, CallAudio, call_audio
from ser_batch.report.call_charts import day_of, shares_by_day, shares_of, stacked
from ser_batch.report.emotion_colors import emotion_name
from ser_batch.report.html import CALLS_TEMPLATE, render_page
from ser_batch.report.metrics import SUMMARY_ROWS
from ser_batch.report.predictions import known_truth, side_tables
from ser_batch.report.scored_run import ScoredRun, read_run, run_key
from ser_batch.report.timelines import time_lines
from ser_batch.runs.ledger import shard_number
from ser_batch.runs.store import read_settings, store_folder
from ser_batch.tables.parquet import read_frame

CALLS_ON_PAGE = 20_000
CALLS_WITH_TIME_LINE = 200
CALLS_IN_HTML = 50  # without JavaScript
REJECTS_ON_PAGE = 100


def calls_page(source: Path, page: Path, playback: Playback = "link") -> str:
    """Return the page of what score made, to lie at `page`: calls by priority, each with its sound."""
    side = side_tables(source)
    calls, report = read_frame(side["calls"]), read_frame(side["report"])
    store = store_folder(source)
    settings, run = read_settings(store) or {}, read_run(store)
    labels = [name.removeprefix("share_") for name in calls.columns if name.startswith("share_")]
    ordered = calls.sort("priority", "path", "channel", descending=[True, False, False], nulls_last=True)
    new = _new_paths(store, run)
    days = [day_of(path) for path in ordered["path"].to_list()]
    listed = ordered.head(CALLS_ON_PAGE)
    sound = call_audio(listed, settings, page, playback)
    paths = listed["path"].unique(maintain_order=True).to_list()
    n_drawn = listed.head(CALLS_WITH_TIME_LINE)["path"].n_unique()
    together = report.filter(pl.col("role").is_null()).drop("role")
    of_labels = report.filter(~pl.col("label").is_in(SUMMARY_ROWS))
    has_truth = known_truth(together)
    rejected = read_frame(side["rejects"]).sort(pl.col("stage") == WARNING, maintain_order=True)
    rejects = rejected.filter(pl.col("stage") != WARNING)
    return render_page(
        CALLS_TEMPLATE,
        {},
        {
            "run": run_key(source, settings),
            "labels": labels,
            "emotions": [emotion_name(label) for label in labels],
            "paths": paths,
            "calls": _columns(listed, paths, labels, days[: len(listed)], new),
            "lines": time_lines(source, calls, paths[:n_drawn], labels),
            "audio": _audio(listed, sound),
        },
        source=source.name,
        side=side,
        labels=labels,
        emotions={label: emotion_name(label) for label in labels},
        run=run,
        models=calls["model_id"].drop_nulls().unique().sort().to_list(),
        sound=sound,
        rows=[_row(row, labels, sound, new) for row in listed.head(CALLS_IN_HTML).iter_rows(named=True)],
        n_calls=len(calls),
        n_listed=len(listed),
        n_recordings=calls["path"].n_unique(),
        n_new=sum(path in new for path in calls["path"]),
        audio_s=calls.group_by("path").agg(pl.col("duration_s").max())["duration_s"].sum() or 0.0,
        speech_s=calls["speech_s"].sum() or 0.0,
        n_segments=int(calls["n_segments"].sum()),
        report=(together if has_truth else together.filter(~pl.col("label").is_in(SUMMARY_ROWS))).to_dicts(),
        roles=_by_role(of_labels),
        has_truth=has_truth,
        by_day=shares_by_day(ordered, days, labels),
        statuses=_counts(calls, "status"),
        kinds=_counts(rejects, "stage", "error"),
        rejects=rejected.head(REJECTS_ON_PAGE).to_dicts(),
        n_rejects=len(rejects),
        n_rejected_or_warned=len(rejected),
    )


def _new_paths(store: Path, run: ScoredRun | None) -> frozenset[str]:
    """Return the recordings that an earlier page did not have; none where there was no earlier page."""
    if run is None or run.first_new_part == 1:
        return frozenset()
    parts = [part for part in store.glob("_meta/calls/part-*.parquet") if shard_number(part.stem) >= run.first_new_part]
    return frozenset(path for part in parts for path in read_frame(part, ["path"])["path"])


def _columns(
    calls: pl.DataFrame, paths: Sequence[str], labels: Sequence[str], days: Sequence[str | None], new: Container[str]
) -> dict[str, Any]:
    """Return calls as columns of small JSON; of texts that recur the number in a list."""
    number = dict(zip(paths, range(len(paths)), strict=True))
    texts = {name: _coded(calls[name].to_list()) for name in ("role", "status", "listen_why", "predicted")}
    return {
        "path": [number[path] for path in calls["path"]],
        "channel": calls["channel"].to_list(),
        "priority": calls["priority"].round(3).to_list(),
        "listen": calls["listen_at_s"].round(1).to_list(),
        "talk": calls["speech_s"].floor().cast(pl.Int64).to_list(),
        "length": calls["duration_s"].round(1).to_list(),
        "shares": [(100 * calls[f"share_{label}"]).round(0).cast(pl.Int64).to_list() for label in labels],
        "new": [i for i, path in enumerate(calls["path"]) if path in new],
        "day": _coded(days),
        **texts,
    }


def _coded(values: Iterable[str | None]) -> dict[str, Any]:
    """Return texts as a list of the different ones, and the number of each."""
    number: dict[str | None, int] = {}
    codes = [number.setdefault(value, len(number)) for value in values]
    return {"texts": list(number), "codes": codes}


def _audio(calls: pl.DataFrame, sound: CallAudio) -> dict[str, Any]:
    """Return where the script finds the sound of each call."""
    clips = sound.clips
    keys = list(calls.select("path", "channel").iter_rows())
    return {
        "base": sound.base,
        "playable": PLAYABLE,
        "addresses": sound.addresses,
        "clips": None if clips is None else {i: clips[key] for i, key in enumerate(keys) if key in clips},
    }


def _row(call: dict[str, Any], labels: Sequence[str], sound: CallAudio, new: Container[str]) -> dict[str, Any]:
    return {
        **call,
        "pieces": stacked(shares_of(call, labels)),
        "address": sound.address(call["path"], call["channel"], call["listen_at_s"]),
        "is_new": call["path"] in new,
    }


def _counts(frame: pl.DataFrame, *columns: str) -> list[dict[str, Any]]:
    """Return how many rows have which values, most first."""
    counts = frame.group_by(columns).len("count")
    return counts.sort("count", *columns, descending=[True, *[False] * len(columns)]).to_dicts()


def _by_role(of_labels: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the shares of labels, of all roles together and of each, as numbers and pieces of a bar."""
    roles = of_labels["role"].unique(maintain_order=True).to_list()
    of_each = {role: of_labels.filter(pl.col("role").eq_missing(pl.lit(role, pl.String))) for role in roles}
    shares = {role: dict(own.select("label", "share").iter_rows()) for role, own in of_each.items()}
    return [{"role": role, "shares": own, "pieces": stacked(own)} for role, own in shares.items()]
