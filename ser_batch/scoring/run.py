"""The third stage: recordings to predictions, one row a segment, and tables of calls and labels beside them."""

import dataclasses
import importlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ser_batch.config.features import FeatureSpec
from ser_batch.config.option_values import check_prioritized, prior_text
from ser_batch.config.options import ScoreOptions
from ser_batch.errors import OutputError
from ser_batch.model.folder import Model, find_model
from ser_batch.runs.progress import Progress
from ser_batch.runs.run import Input, Run, connected
from ser_batch.runs.store import Store, store_folder
from ser_batch.scoring.archive import (
    chosen_prior,
    chosen_reference,
    given_by,
    reference_warnings,
    run_settings,
    sample_folder,
    shares_of,
)
from ser_batch.scoring.call_summary import (
    STATUS_DUPLICATE_CHANNEL,
    STATUS_LOW_SAMPLING_RATE,
    STATUS_NO_SPEECH,
    STATUS_OUT_OF_DOMAIN,
)
from ser_batch.scoring.reference import kept_for_workers, reference_file, remove_samples, write_reference
from ser_batch.scoring.summary import ModelSummary, ReferenceSummary, ScoreSummary
from ser_batch.scoring.tables import write_tables
from ser_batch.scoring.worker import ScoreWork, ScoringRules
from ser_batch.storage.lock import claimed
from ser_batch.storage.paths import remove_tree

if TYPE_CHECKING:
    import polars as pl  # workers unpickle their work from this package, and need none of it


# how many calls the summary names
N_FIRST = 5


def score(audio: Path, options: ScoreOptions | None = None, *, progress: Progress | None = None) -> ScoreSummary:
    """Score a folder of recordings; go on where an earlier call stopped.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording.
    options
        Those of ``ser-batch score``. ``out`` that ends in .parquet is one file with side tables of the same stem
        beside it, and a folder ``<stem>.parts`` that remembers what is done; another name is a folder of parts.
    progress
        Shows how far it is; None is a bar on a terminal and plain lines elsewhere, on stderr.

    Raises
    ------
    UsageError
        `audio` or the model is not there, or options do not go together.
    InputError
        Nothing could be scored, or the labels file cannot be used.
    ModelError
        The model folder is incomplete or altered.
    OutputError
        The output cannot be written, belongs to another run, or another run is writing it.
    """
    options = options or ScoreOptions()
    started = time.monotonic()
    model = find_model(options.model)
    if isinstance(model.feature_spec, FeatureSpec):
        options.segmentation.check_window(model.feature_spec)
    prior, given = chosen_prior(model, options), given_by(model, options)
    check_prioritized(options.prioritize, model.labels)
    found = Input.find(audio, options)
    identity = found.identity(options) | {
        "model_id": model.model_id,
        "prior": prior_text(prior),
    }
    one_file = options.out.suffix == ".parquet"
    if one_file and options.out.is_dir():
        raise OutputError(f"{options.out}: is a folder; choose another --out, or remove it")
    folder = store_folder(options.out)
    with connected(options, progress) as runner, claimed(folder):
        work = ScoreWork(
            folder=folder.absolute(),  # workers have a working directory of their own
            model=model.folder.resolve(),
            labels=model.labels,
            model_id=model.model_id,
            segmentation=options.segmentation,
            rules=ScoringRules(
                role_of_channel=options.role_of_channel,
                scored_roles=options.scored_roles,
                min_confidence=options.min_confidence,
                min_speech=options.min_speech_ratio,
                prior=prior,
                prioritized=options.prioritized,
            ),
            reader_settings=options.reader_settings,
        )
        remove_tree(sample_folder(folder))  # of a run that was killed
        remove_samples(folder)
        reference, sampled = None, None
        if model.is_head_model:
            reference, sampled = chosen_reference(found.recordings, work, identity, model, options, given, runner)
            identity["reference"] = reference.reference.identity()
            work = dataclasses.replace(work, archive=reference.reference.embedding)
            if run_settings(folder, options) is None:
                write_reference(reference.file, reference.reference)
        elif options.overwrite:
            reference_file(options.out).unlink(missing_ok=True)
        store = Store(folder, identity, overwrite=options.overwrite)
        if reference is not None and not reference.file.is_file():
            write_reference(reference.file, reference.reference)
        run = Run.prepare(found, store, work, options, started)
        # Polars makes the tables at the end; loading it takes a while, which there is while workers work.
        # No daemon: a process that ends in the middle of such an import may be aborted, and its exit status lost
        threading.Thread(target=importlib.import_module, args=("polars",)).start()
        with kept_for_workers(work.folder, sampled) as file:
            runner.do(dataclasses.replace(work, sampled=file), store, run.plan.todo, title="score")
        held = run.finish("scored")
        of_model = ModelSummary.of(model)
        timed = _is_timed(found, options)
        tables = write_tables(store, held, options.out, of_model, timed=timed, playback=options.playback)
        from ser_batch.report.predictions import page_file, side_tables  # with Polars, which is loaded by now

        side = side_tables(options.out)
        ranked = tables.calls.drop_nulls("priority").drop("status")
        return ScoreSummary(
            **run.counts(held) | {"rejects": side["rejects"]},
            out=options.out,
            calls=side["calls"],
            report=side["report"],
            page=None if tables.warnings else page_file(options.out),
            n_prioritized=len(ranked),
            first=ranked.sort("priority", "path", "channel", descending=[True, False, False]).head(N_FIRST),
            labels=tables.report,
            model=of_model,
            reference=None if reference is None else ReferenceSummary.of(reference),
            prior=shares_of(model, prior),
            n_calls=len(tables.calls),
            done_s=held.new_audio_s,
            warnings=(
                *found.warnings,
                *reference_warnings(reference, len(found.recordings)),
                *_warnings(tables.calls, model, held.n_without_rows),
                *tables.warnings,
            ),
        )


def _is_timed(found: Input, options: ScoreOptions) -> bool:
    """Whether labels have times, so that truth is a matter of segments and not of calls."""
    return options.segmentation.follows_labels or any(
        label.start_s is not None for recording in found.recordings for label in recording.labels
    )


def _warnings(calls: "pl.DataFrame", model: Model, n_without_rows: int) -> Iterator[str]:
    if n_without_rows:
        yield (
            f"{n_without_rows} recordings are not scored, because they have none of the requested channels or roles "
            "(a mono recording has channel 0 and no role)"
        )
    sentences = {
        STATUS_NO_SPEECH: f"have a channel with too little speech to score (status {STATUS_NO_SPEECH})",
        STATUS_DUPLICATE_CHANNEL: f"have identical channels, which are scored once (status {STATUS_DUPLICATE_CHANNEL})",
        STATUS_OUT_OF_DOMAIN: "have a channel too unlike the training data, such as music or tones; it is not labeled "
        f"(status {STATUS_OUT_OF_DOMAIN})",
        STATUS_LOW_SAMPLING_RATE: f"have a sampling rate below the {model.lowest_rate} Hz of the training data; expect "
        "lower accuracy, or use a model trained on features made with `featurize --preset telephone`",
    }
    n_of_status = dict(calls.select("path", "status").unique()["status"].value_counts().iter_rows())
    for status, sentence in sentences.items():
        if status in n_of_status:
            yield f"{n_of_status[status]} recordings {sentence}"
