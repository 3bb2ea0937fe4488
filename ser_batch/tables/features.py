"""Features folders as arrays."""

import dataclasses
import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.config import FeatureSpec, Segmentation
from ser_batch.errors import InputError, UsageError, did_you_mean
from ser_batch.tables.files import concat, part_files, read_parts
from ser_batch.tables.mfccs import IN_MEMORY_BYTES, Mfcc, make_mfcc, read_mfcc
from ser_batch.tables.schemas import KEY, LABEL_PREFIX, SEGMENT_COLUMNS

if TYPE_CHECKING:
    import polars as pl  # loaded by the functions that return frames: workers need none of it


@dataclasses.dataclass(frozen=True)
class Features:
    """One or more features folders as one table, rows without an emotion left out.

    Parameters
    ----------
    rows
        All columns but the arrays, in the order of the key; shares of votes, ``p_<label>``, where a folder has them.
    mfcc
        float32, shape (n, n_frames, n_mfcc), padded with 0.0; an array, or a file to be read by row numbers.
    n_frames
        Real frames, int64, shape (n,).
    spec, segmentations
        How they were computed, and how each folder's recordings were cut.
    n_unlabelled
        Rows left out.
    n_copies
        Recordings that stand in more than one folder, told by their bytes.
    """

    rows: "pl.DataFrame"
    mfcc: Mfcc
    n_frames: npt.NDArray[np.int64]
    spec: FeatureSpec
    segmentations: tuple[Segmentation, ...]
    n_unlabelled: int
    n_copies: int = 0


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
        Made by featurize with one spec.
    wanted
        Columns of strings, and their values that rows are to have; other rows are left out.
    scratch
        Folder for the MFCCs of a table that is too large for memory; None is the system's for temporary files.
    in_memory_bytes
        What MFCCs may take before they go to a file.

    Raises
    ------
    UsageError
        A folder is not there.
    InputError
        A folder holds no features, specs differ, a key occurs twice, nothing is labelled, or nothing is wanted.
    OutputError
        There is no room in `scratch`.
    """
    import pyarrow.compute as pc  # slow to load, and no worker needs it

    specs = [_read_spec(folder) for folder in folders]
    spec, _ = specs[0]
    for folder, (other, _) in zip(folders[1:], specs[1:], strict=True):
        differing = [
            f"{name} is {value!r} there and {other.to_dict()[name]!r} here"
            for name, value in spec.to_dict().items()
            if other.to_dict()[name] != value
        ]
        if differing:
            raise InputError(
                f"{folder}: features of another spec than {folders[0]}: {'; '.join(differing)}. "
                "Featurize both with the same --preset"
            )
    names = [name for name, _ in SEGMENT_COLUMNS]
    tables = [read_parts(folder, names, with_votes=True) for folder in folders]
    table = concat(tables)
    n_all = table.num_rows
    table = table.append_column("place", pa.array(np.arange(n_all)))  # in the order of the parts
    of_folder = np.repeat(np.arange(len(tables)), [own.num_rows for own in tables])
    for name, values in (wanted or {}).items():
        there = table[name].unique().drop_null().to_pylist()
        table = table.filter(pc.is_in(table[name], pa.array(values, pa.string())))
        if not table.num_rows:
            raise InputError(
                f"{folders[0]}: no row has the {name} {' or '.join(sorted(values))}; there are "
                f"{', '.join(sorted(there)) or 'none'}{did_you_mean(min(values), there)}"
            )
    n_wanted = table.num_rows
    table = table.filter(table["emotion"].is_valid())
    if not table.num_rows:
        raise InputError(
            f"{folders[0]}: no row has an emotion; name the files as a known corpus does, or give "
            "`ser-batch featurize --labels FILE`"
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
    shape = (len(rows), spec.n_frames, spec.n_mfcc)
    mfcc = make_mfcc(shape, scratch or Path(tempfile.gettempdir()), in_memory_bytes)
    place = 0
    for values in read_mfcc([part for folder in folders for part in part_files(folder)]):
        row_numbers = row_of_place[place : place + len(values)]
        labelled = row_numbers >= 0
        mfcc[row_numbers[labelled]] = values[labelled]
        place += len(values)
    return Features(
        rows=rows,
        mfcc=mfcc,
        n_frames=rows["n_frames"].cast(pl.Int64).to_numpy(),
        spec=spec,
        segmentations=tuple(segmentation for _, segmentation in specs),
        n_unlabelled=n_wanted - len(rows),
        n_copies=_n_copies(rows, of_folder[places]),
    )


def _n_copies(rows: "pl.DataFrame", of_folder: npt.NDArray[np.int64]) -> int:
    import polars as pl

    folders = rows.select("content_hash", folder=pl.Series(of_folder)).group_by("content_hash").n_unique()
    return int((folders["folder"] > 1).sum())


def corpora(rows: "pl.DataFrame") -> "pl.Series":
    """Return the corpus of each row; where none is known, the name of its dataset stands for it."""
    import polars as pl

    return rows.select(pl.coalesce("corpus", "dataset")).to_series().alias("corpus")


def vote_columns(rows: "pl.DataFrame") -> dict[str, str]:
    """Return the columns of shares of votes, by label; none where no folder has any."""
    return {name.removeprefix(LABEL_PREFIX): name for name in rows.columns if name.startswith(LABEL_PREFIX)}


def _read_spec(folder: Path) -> tuple[FeatureSpec, Segmentation]:
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder; expected features, made by `ser-batch featurize AUDIO --out {folder}`"
        )
    path = folder / "spec.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return FeatureSpec.from_dict(values["feature_spec"]), Segmentation.from_dict(values["segmentation"])
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no spec.json; expected a folder made by `ser-batch featurize AUDIO --out {folder}`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise InputError(f"{path}: cannot be read ({error}); featurize again with --overwrite") from error
