"""Features folders as arrays."""

import dataclasses
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.config.features import PRESETS, AnyFeatureSpec, EncoderSpec, FeatureSpec, Spec_co, convert_with_spec
from ser_batch.config.segmentation import Segmentation
from ser_batch.config.structs import read_object
from ser_batch.errors import InputError, UsageError, did_you_mean
from ser_batch.storage.paths import refuse_undecodable
from ser_batch.tables.mfcc_array import IN_MEMORY_BYTES, Array, Mfcc, MfccFile, chunks, make_mfcc, read_arrays
from ser_batch.tables.parquet import concat, part_files, read_parts
from ser_batch.tables.schemas import KEY, LABEL_PREFIX, array_columns, segment_columns

if TYPE_CHECKING:
    import polars as pl  # loaded by the functions that return frames: workers need none of it


class FolderSpec(msgspec.Struct, Generic[Spec_co], frozen=True, kw_only=True):
    """What spec.json says of a features folder, as far as it is read."""

    # how features were computed, and how recordings were cut
    feature_spec: Spec_co
    segmentation: Segmentation
    encoder_folder: str | None = None  # where the encoder was; None for one that ships with ser-batch, and for MFCCs


@dataclasses.dataclass(frozen=True)
class Features:
    """One or more features folders as one table, without digital silence and rows without an emotion.

    Parameters
    ----------
    rows
        All columns but the arrays, in the order of the key; shares of votes, ``p_<label>``, where a folder has them.
    values
        What the front end computed, float32: MFCCs, shape (n, n_frames, n_mfcc), padded with 0.0, an array or a file to
        be read by row numbers; or embeddings, shape (n, embedding_size), an array. See `mfcc` and `embedding`.
    counts
        Real frames or tokens, int64, shape (n,). See `n_frames` and `n_tokens`.
    spec, segmentations
        How they were computed, and how each folder's recordings were cut.
    n_unlabelled
        Rows left out.
    n_silent
        Segments left out because they are digital silence.
    encoder_folder
        See `FolderSpec`.
    """

    rows: "pl.DataFrame"
    values: Mfcc
    counts: npt.NDArray[np.int64]
    spec: AnyFeatureSpec
    segmentations: tuple[Segmentation, ...]
    n_unlabelled: int
    n_silent: int = 0
    encoder_folder: str | None = None

    @property
    def mfcc_spec(self) -> FeatureSpec:
        """The spec of the MFCCs.

        Raises
        ------
        InputError
            The features are embeddings; `mfcc` and `n_frames` raise it too.
        """
        if isinstance(self.spec, EncoderSpec):
            raise InputError(f"the features are {_what(self.spec)}; expected MFCCs, featurize with --features mfcc")
        return self.spec

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The spec of the encoder.

        Raises
        ------
        InputError
            The features are MFCCs; `embedding` and `n_tokens` raise it too.
        """
        if isinstance(self.spec, FeatureSpec):
            raise InputError(
                f"the features are {_what(self.spec)}; expected embeddings, featurize with --features whisper-tiny.en, "
                "or another encoder"
            )
        return self.spec

    @property
    def mfcc(self) -> Mfcc:
        """MFCCs, float32, shape (n, n_frames, n_mfcc), padded with 0.0; an array, or a file read by row numbers."""
        _ = self.mfcc_spec
        return self.values

    @property
    def n_frames(self) -> npt.NDArray[np.int64]:
        """Real frames of each segment's MFCCs, shape (n,)."""
        _ = self.mfcc_spec
        return self.counts

    @property
    def embedding(self) -> Array:
        """Embeddings, float32, shape (n, embedding_size)."""
        _ = self.encoder_spec
        assert not isinstance(self.values, MfccFile)  # `load_features` holds embeddings in memory
        return self.values

    @property
    def n_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens that each segment's embedding was pooled over, shape (n,)."""
        _ = self.encoder_spec
        return self.counts

    def chunks_of_values(self) -> Iterator[Array]:
        """Yield `values` in the order of the rows, about 1024 rows at a time."""
        for rows in chunks(np.arange(len(self.rows))):
            yield self.values[rows]


def load_features(
    folders: Sequence[Path],
    *,
    wanted: Mapping[str, Collection[str]] | None = None,
    scratch: Path | None = None,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> Features:
    """Read features folders.

    Parameters
    ----------
    folders
        Made by featurize with one front end and one spec of it.
    wanted
        Columns of strings, and their values that rows are to have; other rows are left out.
    scratch
        Folder for the MFCCs of a table that is too large for memory; None is the system's for temporary files.
    in_memory_bytes
        What MFCCs may take before they go to a file; embeddings, a few kB each, always stay in memory.

    Raises
    ------
    UsageError
        A folder is not there.
    InputError
        A folder holds no features, front ends or specs differ, a key occurs twice, nothing is labelled, nothing is
        wanted, or all of it is silence.
    OutputError
        There is no room in `scratch`.
    """
    import pyarrow.compute as pc  # slow to load, and no worker needs it

    specs = [read_features_spec(folder) for folder in folders]
    spec = specs[0].feature_spec
    for folder, other in zip(folders[1:], specs[1:], strict=True):
        _check_same(spec, other.feature_spec, folders[0], folder)
    names = [name for name, _ in segment_columns(spec)]
    tables = [read_parts(folder, names, with_votes=True) for folder in folders]
    table = concat(tables)
    n_all = table.num_rows
    table = table.append_column("place", pa.array(np.arange(n_all)))  # in the order of the parts
    for name, kept in (wanted or {}).items():
        there = table[name].unique().drop_null().to_pylist()
        table = table.filter(pc.is_in(table[name], pa.array(kept, pa.string())))
        if not table.num_rows:
            raise InputError(
                f"{folders[0]}: no row has the {name} {' or '.join(sorted(kept))}; there are "
                f"{', '.join(sorted(there)) or 'none'}{did_you_mean(min(kept), there)}"
            )
    n_wanted = table.num_rows
    table = table.filter(table["emotion"].is_valid())
    if not table.num_rows:
        raise InputError(
            f"{folders[0]}: no row has an emotion; name the files as a known corpus does, or give "
            "`ser-batch featurize --labels FILE`"
        )
    unlabelled = n_wanted - table.num_rows
    segments = [name for name in KEY if name != "variant"]
    n_silent = table.filter(table["rms_dbfs"].is_null()).group_by(segments).aggregate([]).num_rows
    table = table.filter(table["rms_dbfs"].is_valid())
    if not table.num_rows:
        raise InputError(
            f"{folders[0]}: all {n_silent} segments with an emotion are digital silence; are these the right "
            "recordings, or the right --channels?"
        )
    import polars as pl

    # parts come in the order of the shards; sorting makes a training the same whatever the shards were
    table = table.take(pc.sort_indices(table, [(name, "ascending") for name in KEY]))
    row_of_place = np.full(n_all, -1)
    places = table["place"].to_numpy()
    row_of_place[places] = np.arange(table.num_rows)
    rows = pl.from_arrow(table.drop_columns(["place"]))
    assert isinstance(rows, pl.DataFrame)
    twice = rows.filter(rows.select(KEY).is_duplicated())
    if len(twice):
        raise InputError(
            f"{twice['path'][0]}: stands twice in the features (dataset {twice['dataset'][0]}); leave one folder "
            "out, or featurize it with another --name"
        )
    values: Mfcc
    if isinstance(spec, EncoderSpec):
        values, count = np.empty((len(rows), spec.embedding_size), dtype=np.float32), "n_tokens"
    else:
        shape = (len(rows), spec.n_frames, spec.n_mfcc)
        values, count = make_mfcc(shape, scratch or Path(tempfile.gettempdir()), in_memory_bytes), "n_frames"
    place = 0
    ((column, _), *_) = array_columns(spec)
    for read in read_arrays([part for folder in folders for part in part_files(folder)], column):
        row_numbers = row_of_place[place : place + len(read)]
        labelled = row_numbers >= 0
        values[row_numbers[labelled]] = read[labelled]
        place += len(read)
    return Features(
        rows=rows,
        values=values,
        counts=rows[count].cast(pl.Int64).to_numpy(),
        spec=spec,
        segmentations=tuple(own.segmentation for own in specs),
        n_unlabelled=unlabelled,
        n_silent=n_silent,
        encoder_folder=specs[0].encoder_folder,
    )


def corpora(rows: "pl.DataFrame") -> "pl.Series":
    """Return the corpus of each row; where none is known, the name of its dataset stands for it."""
    import polars as pl

    return rows.select(pl.coalesce("corpus", "dataset")).to_series().alias("corpus")


def vote_columns(rows: "pl.DataFrame") -> dict[str, str]:
    """Return the columns of shares of votes, by label; none where no folder has any."""
    return {name.removeprefix(LABEL_PREFIX): name for name in rows.columns if name.startswith(LABEL_PREFIX)}


def _check_same(first: AnyFeatureSpec, other: AnyFeatureSpec, first_folder: Path, folder: Path) -> None:
    """Refuse features that were computed otherwise than those of the first folder."""
    if first.digest() == other.digest():
        return
    made = f"{folder} has {_what(other)}, {first_folder} {_what(first)}"
    if type(first) is not type(other):
        raise InputError(
            f"{folder}: features of another front end than {first_folder}: {made}. Featurize both with the same "
            "--features"
        )
    now = other.to_dict()
    differing = "; ".join(
        f"{name} is {value!r} there and {now[name]!r} here"
        for name, value in first.to_dict().items()
        if now[name] != value
    )
    option = "--features" if isinstance(first, EncoderSpec) else "--preset"
    raise InputError(
        f"{folder}: features of another spec than {first_folder}: {differing}. {made}; featurize both with the same "
        f"{option}"
    )


def _what(spec: AnyFeatureSpec) -> str:
    """Return what features are, for messages."""
    if isinstance(spec, EncoderSpec):
        return f"embeddings of the encoder {spec.encoder}"
    preset = next((name for name, known in PRESETS.items() if known == spec), None)
    return f"MFCCs of the preset {preset}" if preset else f"MFCCs at {spec.sampling_rate} Hz"


def read_features_spec(folder: Path) -> FolderSpec[AnyFeatureSpec]:
    """Read the spec.json of a features folder.

    Raises
    ------
    UsageError
        There is no such folder.
    InputError
        It holds no features, or its spec.json cannot be read.
    """
    refuse_undecodable(folder)
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder; expected features, made by `ser-batch featurize AUDIO --out {folder}`"
        )
    path = folder / "spec.json"
    try:
        spec: FolderSpec[AnyFeatureSpec] = convert_with_spec(read_object(path), FolderSpec)
        return spec
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no spec.json; expected a folder made by `ser-batch featurize AUDIO --out {folder}`"
        ) from None
    except (OSError, ValueError, UsageError) as error:
        raise InputError(f"{path}: cannot be read ({error}); featurize again with --overwrite") from error
