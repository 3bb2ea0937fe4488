"""Which prior and which reference of the archive a run goes by."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ser_batch.bundle import Bundle
from ser_batch.config import EncoderSpec, ScoreOptions, check_prior
from ser_batch.corpus import Recording
from ser_batch.errors import UsageError
from ser_batch.network.heads import log_prior_of
from ser_batch.parallel import Cluster, Progress, refuse_other
from ser_batch.score.reference import (
    LEAST_RECORDINGS,
    Reference,
    given_reference,
    read_reference,
    reference_file,
)
from ser_batch.score.sampling import archive_reference
from ser_batch.score.work import ScoreWork


@dataclasses.dataclass(frozen=True)
class UsedReference:
    """The reference of a run.

    Parameters
    ----------
    reference
        What it is.
    file
        Where it is stored.
    given
        What ``--reference`` said.
    is_stored
        Whether an earlier run into the same output stored it.
    """

    reference: Reference
    file: Path
    given: str | None
    is_stored: bool


def chosen_prior(model: Bundle, options: ScoreOptions) -> Mapping[str, float]:
    """Return the shares of labels that are expected; empty for balanced.

    Raises
    ------
    UsageError
        ``--prior`` does not fit the labels of the model.
    """
    wanted = options.wanted_prior
    if wanted is None:
        return {} if options.segments in ("clip", "labels") else model.prior
    check_prior(wanted, model.labels)
    return wanted


def shares_of(model: Bundle, prior: Mapping[str, float]) -> dict[str, float]:
    """Return the share that a prior expects of each label."""
    return dict(zip(model.labels, np.exp(log_prior_of(model.labels, prior)).tolist(), strict=True))


def given_by(model: Bundle, options: ScoreOptions) -> Reference | None:
    """Return the reference that was asked for; None where it is that of the archive, or the model takes none.

    Raises
    ------
    UsageError
        There is no such file, or the model takes no reference.
    InputError
        See `read_reference`.
    """
    if options.reference is None or (options.reference == "none" and not model.is_head_model):
        return None
    if not model.is_head_model:
        raise UsageError(
            f"--reference {options.reference}: the model {model.folder} takes no reference, only heads on embeddings "
            "do (train --recipe head); leave out --reference, or choose another --model"
        )
    return given_reference(options.reference, encoder_spec(model), options.segments)


def encoder_spec(model: Bundle) -> EncoderSpec:
    """Return the encoder of a model on embeddings."""
    assert isinstance(model.feature_spec, EncoderSpec)
    return model.feature_spec


def chosen_reference(
    recordings: Sequence[Recording],
    work: ScoreWork,
    identity: Mapping[str, Any],
    model: Bundle,
    options: ScoreOptions,
    given: Reference | None,
    *,
    cluster: Cluster | None,
    progress: Progress | None,
) -> tuple[UsedReference, pa.Table | None]:
    """Return the reference of a run with heads: the given one, that of the first run into this output, or a new one.

    Parameters
    ----------
    recordings, work
        What is scored, and how; its folder has to be claimed.
    identity
        Of the run, as far as it is known.
    model, options, given
        The model, the options, and what `given_by` gave.
    cluster, progress
        How the work is done.

    Returns
    -------
    reference : UsedReference
    sampled : pyarrow.Table, optional
        What a new one was made of, see `sampling.archive_reference`.

    Raises
    ------
    OutputError
        The output belongs to another run; nobody waits for a reference then.
    InputError
        The stored reference is altered.
    """
    spec, file = encoder_spec(model), reference_file(options.out)
    if given is not None:
        return UsedReference(given, file, options.reference, is_stored=False), None
    found = run_settings(work.folder, options)
    if found is not None:
        refuse_other(work.folder, {name: value for name, value in found.items() if name != "reference"}, identity)
        with contextlib.suppress(FileNotFoundError):  # then it is made again, and refused if it is another one
            return UsedReference(read_reference(file, spec), file, None, is_stored=True), None
    made, sampled = archive_reference(recordings, work, spec, options, cluster=cluster, progress=progress)
    return UsedReference(made, file, None, is_stored=False), sampled


def run_settings(folder: Path, options: ScoreOptions) -> dict[str, Any] | None:
    """Return the settings of the run that this one goes on with; None where it begins."""
    run_file = folder / "_meta" / "run.json"
    if options.overwrite or not run_file.is_file():
        return None
    settings: dict[str, Any] = json.loads(run_file.read_text(encoding="utf-8"))
    return settings


def reference_warnings(used: UsedReference | None, n_recordings: int) -> Iterator[str]:
    """Yield what to tell of a reference that would be another one by now."""
    if used is None or not used.is_stored or used.reference.kind != "none":
        return
    if n_recordings >= LEAST_RECORDINGS and n_recordings > used.reference.n_sampled:
        yield (
            f"scored without a reference of the archive, as in the first run into this output; {n_recordings} "
            "recordings are enough for one. Add --overwrite to make it and to score all recordings with it"
        )
