"""The counts that the summaries of featurize and score share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ser_batch.corpus.manifest import Reject
from ser_batch.summary import NOT_IN_JSON, StageSummary


class RunSummary(StageSummary, frozen=True, kw_only=True):
    """Counts of a run; those of the output include what earlier runs did."""

    n_recordings: Annotated[int, Meta(description="recordings in the output, rejected ones included")]
    n_segments: Annotated[int, Meta(description="segments in the output")]
    audio_s: Annotated[float, Meta(description="duration of all recordings in the output, s")]
    n_done: Annotated[int, Meta(description="recordings processed by this call")]
    n_up_to_date: Annotated[int, Meta(description="recordings processed before and unchanged")]
    n_missing: Annotated[int, Meta(description="recordings that are gone, whose rows are kept until `--prune`")]
    n_before_since: Annotated[int, Meta(description="recordings skipped because of `--since`")]
    n_beyond_limit: Annotated[int, Meta(description="recordings left for later because of `--limit`")]
    n_rejected: Annotated[int, Meta(description="recordings that could not be used")]
    n_warned: Annotated[int, Meta(description="recordings that were used though something is wrong with them")]
    rejects: Annotated[Path, Meta(description="table of the rejected recordings; warnings have the stage `warning`")]
    rejected: Annotated[tuple[Reject, ...], NOT_IN_JSON]  # the rows of that table
    warned: Annotated[tuple[Reject, ...], NOT_IN_JSON]
    skipped_files: Annotated[Mapping[str, int], Meta(description="number of non-audio files by suffix")]
