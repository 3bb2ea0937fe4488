"""Column names and dtypes, spelled once."""

from collections.abc import Sequence

import pyarrow as pa

from ser_batch.config.features import AnyFeatureSpec, EncoderSpec

SCHEMA_VERSION = "1"

QUARTERS = (1, 2, 3, 4)

# of each label in the table of calls: its most probable segment, and the longest stretch predicted so
PEAK_COLUMNS = ("peak_s", "peak_p", "longest_start_s", "longest_s")

# before the label in the name of a column of probabilities, or of the shares of votes
LABEL_PREFIX = "p_"
# before the label in the name of a column of recalls
RECALL_PREFIX = "recall_"

METADATA_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("corpus", pa.string()),
    ("modality", pa.string()),
    ("vocal_channel", pa.string()),
    ("emotion", pa.string()),
    ("intensity", pa.string()),
    ("statement", pa.string()),
    ("repetition", pa.int8()),
    ("actor", pa.int16()),
    ("sex", pa.string()),
    ("speaker", pa.string()),
]

# what a segment is of; how much of it was computed, in frames or tokens, follows
_PLACE_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("dataset", pa.string()),
    ("path", pa.string()),
    ("content_hash", pa.string()),
    ("channel", pa.int16()),
    ("segment", pa.int32()),
    ("variant", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("duration_s", pa.float64()),
    ("sampling_rate", pa.int32()),
    ("n_channels", pa.int16()),
]
_N_FRAMES, _N_TOKENS = ("n_frames", pa.int16()), ("n_tokens", pa.int32())  # an hour has 180,000 tokens

KEY = ("dataset", "path", "channel", "segment", "variant")


def versioned(columns: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    """Return a schema that carries the version of the tables."""
    return pa.schema(columns, metadata={"schema_version": SCHEMA_VERSION})


REJECTS = versioned([(name, pa.string()) for name in ("path", "stage", "error", "message")])

# preds.report.parquet
REPORT = versioned(
    [
        ("role", pa.string()),
        ("label", pa.string()),
        ("n_predicted", pa.int64()),
        ("share", pa.float64()),
        ("mean_confidence", pa.float64()),
        ("precision", pa.float64()),
        ("recall", pa.float64()),
        ("f1", pa.float64()),
        ("support", pa.int64()),
    ]
)


def segment_columns(spec: AnyFeatureSpec) -> list[tuple[str, pa.DataType]]:
    """Return the columns of a segment that hold no array, of the front end that `spec` defines."""
    count = _N_TOKENS if isinstance(spec, EncoderSpec) else _N_FRAMES
    return [*_PLACE_COLUMNS, count, *METADATA_COLUMNS, ("speech_ratio", pa.float64()), ("rms_dbfs", pa.float64())]


def array_columns(spec: AnyFeatureSpec) -> list[tuple[str, pa.DataType]]:
    """Return the columns of arrays of a front end; the first one is what models are trained on."""
    if isinstance(spec, EncoderSpec):
        return [("embedding", pa.list_(pa.float32(), spec.embedding_size))]
    row = pa.list_(pa.float32(), spec.n_mfcc)
    return [("mfcc", pa.list_(row, spec.n_frames)), ("mfcc_mean", row), ("mfcc_std", row)]


def features_schema(spec: AnyFeatureSpec, voted: Sequence[str] = ()) -> pa.Schema:
    """Return the schema of ``features/part-*.parquet``."""
    return versioned([*segment_columns(spec), *array_columns(spec), *_probability_columns(voted)])


def model_predictions_schema(labels: Sequence[str], spec: AnyFeatureSpec) -> pa.Schema:
    """Return the schema of a model's predictions.parquet: the evaluation rows."""
    return versioned(
        [
            *segment_columns(spec),
            ("fold", pa.string()),
            ("seed", pa.int64()),
            ("predicted", pa.string()),
            *_probability_columns(labels),
        ]
    )


def regimes_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of a model's regimes.parquet, one row per regime, condition and corpus."""
    return versioned(
        [
            ("regime", pa.string()),
            ("condition", pa.string()),
            ("corpus", pa.string()),
            ("n", pa.int64()),
            ("uar", pa.float64()),
            ("accuracy", pa.float64()),
            ("ece", pa.float64()),
            ("share_error", pa.float64()),
            ("out_of_domain", pa.float64()),
            *((RECALL_PREFIX + label, pa.float64()) for label in labels),
        ]
    )


def predictions_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of preds.parquet, one row per segment."""
    return versioned(
        [
            ("path", pa.string()),
            ("content_hash", pa.string()),
            ("channel", pa.int16()),
            ("role", pa.string()),
            ("segment", pa.int32()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("speech_ratio", pa.float64()),
            ("rms_dbfs", pa.float64()),
            ("clipped_ratio", pa.float64()),
            ("predicted", pa.string()),
            ("abstained", pa.bool_()),
            ("confidence", pa.float64()),
            ("entropy", pa.float64()),
            ("margin", pa.float64()),
            *_probability_columns(labels),
            ("model_id", pa.string()),
            ("emotion", pa.string()),
        ]
    )


def calls_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of preds.calls.parquet, one row per recording and channel; what one looks at comes first."""
    return versioned(
        [
            ("path", pa.string()),
            ("channel", pa.int16()),
            ("role", pa.string()),
            ("status", pa.string()),
            ("priority", pa.float64()),
            ("listen_at_s", pa.float64()),
            ("listen_why", pa.string()),
            ("predicted", pa.string()),
            *((f"share_{label}", pa.float64()) for label in labels),
            ("speech_s", pa.float64()),
            ("overlap_s", pa.float64()),
            ("duration_s", pa.float64()),
            ("n_segments", pa.int32()),
            *_probability_columns(labels),
            *((f"{name}_{label}", pa.float64()) for name in PEAK_COLUMNS for label in labels),
            *((f"change_{label}", pa.float64()) for label in labels),
            ("content_hash", pa.string()),
            ("model_id", pa.string()),
            ("emotion", pa.string()),
        ]
    )


def quarters_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of preds.quarters.parquet, one row per recording, channel and quarter of the recording."""
    return versioned(
        [
            ("path", pa.string()),
            ("channel", pa.int16()),
            ("role", pa.string()),
            ("quarter", pa.int8()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("speech_s", pa.float64()),
            *_probability_columns(labels),
        ]
    )


def _probability_columns(labels: Sequence[str]) -> list[tuple[str, pa.DataType]]:
    """Return one column for each label."""
    return [(LABEL_PREFIX + label, pa.float64()) for label in labels]
