"""model.json as structs: what training writes is what loading reads and checks."""

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Generic, Literal

import msgspec

from ser_batch.config.features import (
    AnyFeatureSpec,
    EncoderSpec,
    FeatureSpec,
    Spec_co,
    canonical_json,
    convert_with_spec,
)
from ser_batch.config.option_values import are_shares
from ser_batch.config.options import HEAD_RECIPE, Estimator, Normalize, RecipeName, VocalChannel
from ser_batch.config.segmentation import Segmentation
from ser_batch.config.structs import Positive, Sha256, as_json, read_object
from ser_batch.corpus.labels import is_label
from ser_batch.errors import ModelError, UsageError
from ser_batch.model.priority import UNFITTED, Chance
from ser_batch.network.cmvn import Scaler
from ser_batch.network.out_of_domain import Domain, DomainModel

# what may differ between two saves of one and the same model
_NOT_IN_ID = ("model_id", "created", "versions", "files", "seconds", "init_name")
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
# every reader of JSON holds these
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what model.json is made of; what is at its default is left out, so that ids outlive new fields."""


class Figures(_Part, frozen=True, kw_only=True):
    """What a model gets right of some rows."""

    accuracy: Share
    uar: Share
    macro_f1: Share | None = None
    ece: Share | None = None
    n: Count | None = None
    speech_uar: Share | None = None


class CrossCorpus(Figures, frozen=True, kw_only=True):
    """What a model gets right of a corpus that was left out of its training, and the UAR in each condition."""

    n: Count
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    conditions: dict[str, Share | None]


class Regime(_Part, frozen=True, kw_only=True):
    """What a model gets right by what is known of the speaker and of the archive."""

    n: Count
    uar: Share
    accuracy: Share
    ece: Share
    share_error: Share
    out_of_domain: Share | None
    recalls: dict[str, Share]  # by label
    corpora: dict[str, Share]  # UAR by corpus


class Metrics(Figures, frozen=True, kw_only=True):
    """All figures of an evaluation, those of its first condition at the top."""

    description: str  # what they are figures of
    weighted_f1: Share | None = None
    condition: str = ""
    seeds: tuple[Count, ...] = ()
    # by name of a figure; 95 % intervals, and what was drawn anew for them
    intervals: dict[str, tuple[Share | None, Share | None]] = {}
    resampled: Literal["speaker", "recording"] = "speaker"
    deviation_over_seeds: dict[str, float | None] = {}
    speech: Figures | None = None
    song: Figures | None = None
    per_recording: Figures | None = None
    conditions: dict[str, Figures] = {}
    corpora: dict[str, Figures] = {}
    held_out_corpora: dict[str, CrossCorpus] = {}
    regimes: dict[str, dict[str, Regime]] = {}  # by regime and condition


class CorpusData(_Part, frozen=True, kw_only=True):
    """What a model learned from one of several corpora."""

    n_rows: Count
    labels: tuple[str, ...]


class TrainingData(_Part, frozen=True, kw_only=True):
    """What a model learned from."""

    n_rows: Count  # segments; variants of one count once
    n_recordings: Count
    n_speakers: Count
    datasets: tuple[str, ...]
    lowest_sampling_rate: Annotated[int, msgspec.Meta(gt=0, lt=2**53)] | None = None
    sources: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    rows_by_emotion: dict[str, Count] = {}
    corpora: dict[str, CorpusData] = {}  # where there are several


class Initial(_Part, frozen=True, kw_only=True):
    """What is kept of the model that a model was fine-tuned from."""

    model_id: str
    recipe: RecipeName | None
    labels: tuple[str, ...]
    license: str
    training: TrainingData
    init: "Initial | None" = None


class Identity(_Part, Generic[Spec_co], frozen=True, kw_only=True):
    """All that decides a model: the data's hash and the settings."""

    estimator: Estimator
    recipe: RecipeName | None
    epochs: Count | None
    split: str
    vocal_channel: VocalChannel
    test_vocal_channel: VocalChannel
    train_variants: tuple[str, ...] | None
    conditions: tuple[str, ...]
    baselines: tuple[str, ...]
    seed: Count
    seeds: Count
    data_hash: Sha256
    feature_spec: Spec_co
    segmentation: tuple[Segmentation, ...]
    soft_labels: bool = False
    normalize: Normalize = "none"
    init: Initial | None = None


class TrainedModel(Identity[Spec_co], Generic[Spec_co], frozen=True, kw_only=True):
    """What model.json holds before the model is saved."""

    schema_version: Literal[1]
    description: str
    feature_spec_hash: Sha256
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]
    scaler: Scaler | None
    temperature: Positive
    # of heads
    temperature_without_reference: Positive | None = None
    temperature_of_calls: Positive | None = None
    prior: dict[str, float] = {}
    priority: dict[str, Chance] = {}  # by label; fitted on composed calls of speakers left out of training
    mfcc_domain: DomainModel | None = None
    domain: Domain | None = None
    training: TrainingData
    metrics: Metrics | None  # None where nothing was held out
    cross_validated: bool
    license: str
    seconds: float
    init_name: str | None = None

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        spec, is_network = self.feature_spec, self.estimator == "network"
        assert isinstance(spec, FeatureSpec | EncoderSpec)
        is_encoder = isinstance(spec, EncoderSpec)
        n = spec.embedding_size if isinstance(spec, EncoderSpec) else spec.n_mfcc
        is_head, of_calls = self.recipe == HEAD_RECIPE, self.temperature_of_calls
        lengths = [
            (f"{name}.{part}", len(getattr(moments, part)), expected)
            for name, moments, expected in (("scaler", self.scaler, n), ("mfcc_domain", self.mfcc_domain, 2 * n))
            for part in ("mean", "scale")
            if moments is not None
        ] + ([("domain.direction", len(self.domain.direction), n)] if self.domain else [])
        for is_right, said in (
            (
                list(self.labels) == sorted({*self.labels}) and all(map(is_label, self.labels)),
                "labels: expected lower-case words such as angry, sorted, each once",
            ),
            (spec.digest() == self.feature_spec_hash, "feature_spec was altered after training: feature_spec_hash"),
            (
                is_head == (is_encoder and is_network),
                f"recipe is {self.recipe}, and feature_spec that of {'embeddings' if is_encoder else 'MFCCs'}",
            ),
            (self.scaler is not None or not is_network, "scaler is null; expected the one of the network"),
            (None not in (self.temperature_without_reference, of_calls) or not is_head, "no temperature of heads"),
            (not (self.mfcc_domain if is_encoder else self.domain), "domain or mfcc_domain is of other features"),
            *((found == n, f"{name} has {found} numbers; expected {n}") for name, found, n in lengths),
            (
                are_shares(self.prior, self.labels),
                "prior: expected shares of labels, each above 0 and below 1, together below 1 (or 1, if all are named)",
            ),
            (self.priority.keys() <= {*self.labels}, "priority: expected labels of the model"),
            ((self.init is None) == (self.init_name is None), "init and init_name go together"),
        ):
            if not is_right:
                raise ValueError(said)

    def chances(self, labels: Collection[str]) -> dict[str, Chance]:
        """Return the curve of the priority for those of the labels that the model has."""
        return {label: self.priority.get(label, UNFITTED) for label in self.labels if label in labels}


class ModelSchema(TrainedModel[Spec_co], Generic[Spec_co], frozen=True, kw_only=True):
    """What model.json holds."""

    model_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    created: str
    versions: dict[str, str]  # of Python and of libraries
    files: dict[str, Sha256]  # by name


def model_id_of(contents: bytes, trained: TrainedModel[AnyFeatureSpec]) -> str:
    """Return 16 hex digits of what identifies a network or estimator, and of what model.json says of it."""
    kept = {name: value for name, value in as_json(trained).items() if name not in _NOT_IN_ID}
    return hashlib.sha256(contents + canonical_json(kept).encode()).hexdigest()[:16]


def read_schema(path: Path) -> ModelSchema[AnyFeatureSpec]:
    """Read and check a model.json."""
    try:
        values = read_object(path)
        version = values.get("schema_version", 1)
        if version != 1:
            raise ModelError(f"{path}: schema version {version!r}, this program reads 1; upgrade ser-batch")
        schema: ModelSchema[AnyFeatureSpec] = convert_with_spec(values, ModelSchema)
        return schema
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; expected a folder made by `ser-batch train`") from None
    except (OSError, ValueError, UsageError) as error:
        raise ModelError(f"{path}: {error}; copy the folder again, or train again") from error
