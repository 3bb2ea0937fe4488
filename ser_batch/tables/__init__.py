"""The tables: column names and dtypes spelled once, written whole or not at all, read back.

Parquet goes through pyarrow here, because workers write it and pyarrow is what they load; Polars is what users
and the later stages read it with.
"""

from ser_batch.tables.features import Features, FolderSpec, corpora, load_features, read_spec, vote_columns
from ser_batch.tables.files import (
    TEMPORARY_MARK,
    atomic_path,
    make_folder,
    merge_parts,
    part_writer,
    read_parts,
    remove_temporaries,
    remove_temporaries_of,
    rows_table,
    write_frame,
    write_json,
    write_table,
    write_text,
)
from ser_batch.tables.locking import locked
from ser_batch.tables.mfccs import Mfcc, chunks, read_arrays
from ser_batch.tables.schemas import (
    KEY,
    LABEL_PREFIX,
    METADATA_COLUMNS,
    NEGATIVE,
    QUARTERS,
    RECALL_PREFIX,
    REJECTS,
    REPORT,
    SCHEMA_VERSION,
    array_columns,
    calls_schema,
    features_schema,
    model_predictions_schema,
    predictions_schema,
    regimes_schema,
    segment_columns,
)
from ser_batch.tables.storage import remove_tree, source

__all__ = [
    "KEY",
    "LABEL_PREFIX",
    "METADATA_COLUMNS",
    "NEGATIVE",
    "QUARTERS",
    "RECALL_PREFIX",
    "REJECTS",
    "REPORT",
    "SCHEMA_VERSION",
    "TEMPORARY_MARK",
    "Features",
    "FolderSpec",
    "Mfcc",
    "array_columns",
    "atomic_path",
    "calls_schema",
    "chunks",
    "corpora",
    "features_schema",
    "load_features",
    "locked",
    "make_folder",
    "merge_parts",
    "model_predictions_schema",
    "part_writer",
    "predictions_schema",
    "read_arrays",
    "read_parts",
    "read_spec",
    "regimes_schema",
    "remove_temporaries",
    "remove_temporaries_of",
    "remove_tree",
    "rows_table",
    "segment_columns",
    "source",
    "vote_columns",
    "write_frame",
    "write_json",
    "write_table",
    "write_text",
]
