"""The summary of score: counts, model, reference, tables."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from ser_batch.errors import printable
from ser_batch.model.folder import Model
from ser_batch.runs.summary import RunSummary
from ser_batch.scoring.archive import UsedReference
from ser_batch.summary import NOT_IN_JSON, Summary

if TYPE_CHECKING:
    import polars as pl  # workers unpickle their work from this package, and need none of it


class ModelSummary(Summary, frozen=True, kw_only=True):
    """The model of a run and how right it is."""

    path: Annotated[Path, Meta(description="its folder")]
    model_id: Annotated[str, Meta(description="its id")]
    labels: Annotated[tuple[str, ...], Meta(description="labels it tells apart")]
    license: Annotated[str, Meta(description="its license")]
    uar: Annotated[float | None, Meta(description="UAR on held-out data; null where nothing was held out")]
    accuracy: Annotated[float | None, Meta(description="accuracy on the same data")]
    description: Annotated[str, NOT_IN_JSON]  # what `uar` and `accuracy` were measured on
    cross_corpus: Annotated[Mapping[str, float], Meta(description="UAR by unseen corpus")]
    chance: Annotated[Mapping[str, float], NOT_IN_JSON]  # UAR by chance, for each of these corpora
    regimes: Annotated[
        Mapping[str, Mapping[str, float]],
        Meta(description="`uar`, `accuracy` and `n_labels` on held-out recordings, by regime"),
    ]
    recommended_model: Annotated[
        str | None, Meta(description="an installed model that was tested on unseen corpora, where this one was not")
    ]

    @classmethod
    def of(cls, model: Model) -> "ModelSummary":
        """Return what a model folder says."""
        metrics, held_out = model.schema.metrics, model.cross_corpus
        return cls(
            path=model.folder,
            model_id=model.model_id,
            labels=model.labels,
            license=model.schema.license,
            uar=metrics.uar if metrics else None,
            accuracy=metrics.accuracy if metrics else None,
            description=metrics.description if metrics else "",
            cross_corpus={name: figures.uar for name, figures in held_out.items()},
            chance={name: 1 / len(figures.labels) for name, figures in held_out.items()},
            regimes=model.regimes,
            recommended_model=model.recommended_model,
        )

    @property
    def accuracy_lines(self) -> tuple[str, ...]:
        """How right it is on data it has not met, in sentences."""
        from ser_batch.report.regimes import MOSTLY_NEUTRAL

        calls = self.regimes.get(MOSTLY_NEUTRAL)
        if calls:
            names = ", ".join(map(printable, self.cross_corpus))
            source = f"unseen corpora ({names})" if names else "held-out recordings"
            found = (
                f"accuracy: UAR {calls['uar']:.2f} (chance {1 / calls['n_labels']:.2f}), accuracy "
                f"{calls['accuracy']:.2f} on mostly neutral speech composed from {source}. Expect less on real calls"
            )
            return (found,) if names else (found, printable(self.description))
        if self.cross_corpus:
            of_each = ", ".join(
                f"{printable(name)} {uar:.2f} (chance {self.chance[name]:.2f})"
                for name, uar in self.cross_corpus.items()
            )
            return (f"accuracy: UAR on unseen corpora: {of_each}. Expect less on real calls",)
        if self.uar is not None and self.accuracy is not None:
            return (f"accuracy: UAR {self.uar:.2f}, accuracy {self.accuracy:.2f}. {printable(self.description)}",)
        return ("accuracy: unknown, because nothing was held out in training",)


class ReferenceSummary(Summary, frozen=True, kw_only=True):
    """The reference of a run."""

    file: Annotated[Path, Meta(description="where it is stored")]
    kind: Annotated[Literal["archive", "none"], Meta(description="`archive`, or `none`: each channel by itself")]
    n_recordings: Annotated[int, Meta(description="recordings it was made from")]
    n_segments: Annotated[int, Meta(description="segments it was made from")]
    created: Annotated[datetime.datetime, Meta(description="when it was made")]
    given: Annotated[str | None, NOT_IN_JSON]  # value of ``--reference``
    is_stored: Annotated[bool, NOT_IN_JSON]  # whether an earlier run into the same output made it
    n_sampled: Annotated[int, NOT_IN_JSON]  # recordings that were looked at; 0 where none was wanted

    @classmethod
    def of(cls, used: UsedReference) -> "ReferenceSummary":
        """Return what is known of the reference of a run."""
        own = used.reference
        return cls(
            file=used.file,
            kind=own.kind,
            n_recordings=own.n_recordings,
            n_segments=own.n_segments,
            created=own.created,
            given=used.given,
            is_stored=used.is_stored,
            n_sampled=own.n_sampled,
        )


class ScoreSummary(RunSummary, frozen=True, kw_only=True):
    """What `score` did."""

    out: Annotated[Path, Meta(description="preds.parquet, or the folder of parts")]
    calls: Annotated[Path, Meta(description="table of calls")]
    report: Annotated[Path, Meta(description="table of labels")]
    page: Annotated[Path | None, Meta(description="HTML report; null where it could not be made")]
    n_calls: Annotated[int, Meta(description="rows of the table of calls: one per recording and channel")]
    done_s: Annotated[float, Meta(description="duration of the recordings that this call scored, s")]
    n_prioritized: Annotated[int, Meta(description="those of them that have a priority")]
    first: Annotated[
        "pl.DataFrame",
        Meta(
            description="list of the five rows of highest priority: `path`, `channel`, `role`, `priority`, "
            "`listen_at_s`, `listen_why`"
        ),
    ]
    labels: Annotated["pl.DataFrame", Meta(description="list of the rows of the table of labels")]
    model: Annotated[ModelSummary, Meta(description="the model")]
    reference: Annotated[
        ReferenceSummary | None,
        Meta(description="speech that voices were compared with; null for models that take no reference"),
    ]
    prior: Annotated[Mapping[str, float], Meta(description="expected share of each label")]
