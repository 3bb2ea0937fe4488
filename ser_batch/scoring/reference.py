"""The archive's reference: its file, and the encoded segments that it is made of."""

import contextlib
import datetime
import functools
import hashlib
import secrets
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.arrays import Array
from ser_batch.config.features import EncoderSpec, canonical_json
from ser_batch.config.segmentation import SegmentMode
from ser_batch.config.structs import Sha256, convert, read_object
from ser_batch.errors import InputError, UsageError
from ser_batch.storage.atomic import make_folder, remove_temporaries_of, write_text
from ser_batch.storage.paths import parquet_source, to_path
from ser_batch.tables.parquet import write_table

if TYPE_CHECKING:
    from ser_batch.encoder.pooling import Embedding  # loads SciPy, and the process that starts a run needs none of it


class Besides(Container[tuple[int, int]]):
    """All segments but some, by channel and number."""

    def __init__(self, left_out: Container[tuple[int, int]]) -> None:
        self._left_out = left_out

    def __contains__(self, place: object) -> bool:
        return place not in self._left_out


@contextlib.contextmanager
def kept_for_workers(folder: Path, sampled: pa.Table | None) -> Iterator[Path | None]:
    """Give the file of a sample in a store, for as long as its recordings are scored; None where there is none."""
    if sampled is None:
        yield None
        return
    # a new name each time: a worker that has read another run's sample must not take it for this one
    file = folder / "_meta" / f"sample-{secrets.token_hex(8)}.parquet"
    try:
        write_table(file, sampled)
        yield file
    finally:
        file.unlink(missing_ok=True)


def remove_samples(folder: Path) -> None:
    """Remove the samples of runs that were killed."""
    for file in (folder / "_meta").glob("sample-*.parquet"):
        file.unlink()


@functools.lru_cache(maxsize=1)
def read_encoded(file: Path) -> "Mapping[tuple[str, str], Mapping[tuple[int, int], Embedding]]":
    """Read a sample, once a process: by path and hash of the recording, then by channel and number."""
    from ser_batch.encoder.pooling import Embedding  # loaded by workers only

    table = pq.ParquetFile(parquet_source(file)).read()
    keys = ("path", "content_hash", "channel", "segment", "n_tokens")
    found: dict[tuple[str, str], dict[tuple[int, int], Embedding]] = {}
    for values, row in zip(embeddings_of(table), table.select(keys).to_pylist(), strict=True):
        own = found.setdefault((row["path"], row["content_hash"]), {})
        own[row["channel"], row["segment"]] = Embedding(values, row["n_tokens"])
    return found


def embeddings_of(table: pa.Table) -> Array:
    """Return the embeddings of a sample, shape (n, d)."""
    column = table["embedding"].combine_chunks()
    return np.asarray(column.flatten().to_numpy()).reshape(len(table), column.type.list_size)


# with fewer recordings, the heads that need no reference decide
MIN_RECORDINGS = 10
# an embedding takes some 50 kB
_MAX_BYTES = 16_000_000
Count = Annotated[int, msgspec.Meta(ge=0)]


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of an archive; the contents of ``<stem>.reference.json``."""

    kind: Literal["archive", "none"]  # ``archive``, or ``none``: the heads that need no reference decide
    # `EncoderSpec.digest` of the encoder of the embedding
    encoder: Sha256
    segments: SegmentMode  # how the recordings were cut
    embedding: tuple[float, ...] | None  # mean over the segments of the sample; null for none
    # that the mean is of
    n_recordings: Count
    n_segments: Count
    n_sampled: Count  # recordings that were looked at; 0 where none was asked for
    created: Annotated[datetime.datetime, msgspec.Meta(tz=True)]  # when it was made
    schema_version: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuse a kind that the embedding is not of."""
        if (self.embedding is None) != (self.kind == "none"):
            raise ValueError(f"kind {self.kind} and embedding do not go together")

    def identity(self) -> dict[str, Any]:
        """Return what decides scores, short enough for messages."""
        if self.embedding is None:
            return {"kind": self.kind}
        text = canonical_json([self.encoder, *self.embedding])
        return {"kind": self.kind, "digest": hashlib.sha256(text.encode()).hexdigest()[:16]}


def now() -> datetime.datetime:
    """Return the time, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def no_reference(spec: EncoderSpec, segments: SegmentMode, *, n_sampled: int = 0) -> Reference:
    """Return that nothing is known of an archive."""
    return Reference(
        kind="none",
        encoder=spec.digest(),
        segments=segments,
        embedding=None,
        n_recordings=0,
        n_segments=0,
        n_sampled=n_sampled,
        created=now(),
    )


def reference_file(out: Path) -> Path:
    """Return where the reference lies: beside one file of predictions, or in a folder of parts."""
    return out.with_suffix(".reference.json") if out.suffix == ".parquet" else out / "_tables" / "reference.json"


def write_reference(file: Path, reference: Reference) -> None:
    """Write a reference atomically."""
    make_folder(file.parent)
    remove_temporaries_of(file)
    write_text(file, msgspec.json.format(msgspec.json.encode(reference), indent=1).decode() + "\n")


def read_reference(file: Path, spec: EncoderSpec) -> Reference:
    """Read a reference for a model whose embeddings are of `spec`."""
    try:
        reference = convert(read_object(file, _MAX_BYTES), Reference)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: cannot be read as the reference of an archive ({error}); expected the .reference.json that "
            "ser-batch score wrote beside its predictions. Copy it again, or make it anew with --overwrite"
        ) from error
    if reference.encoder != spec.digest():
        raise InputError(
            f"{file}: the reference was made with the encoder {reference.encoder[:16]}, the model needs that of "
            f"{spec.encoder}, {spec.digest()[:16]}; give the reference of a run with such a model, or leave out "
            "--reference and the archive gets its own"
        )
    if reference.embedding is not None and len(reference.embedding) != spec.embedding_size:
        raise InputError(
            f"{file}: the embedding has {len(reference.embedding)} numbers, expected {spec.embedding_size}; "
            "copy the file again"
        )
    return reference


def given_reference(text: str, spec: EncoderSpec, segments: SegmentMode) -> Reference:
    """Return what ``--reference FILE|none`` stands for."""
    if text == "none":
        return no_reference(spec, segments)
    try:
        return read_reference(to_path(text), spec)
    except FileNotFoundError:
        raise UsageError(
            f"--reference {text}: no such file; expected the .reference.json beside another run's predictions, or none"
        ) from None
