"""What a network is fed: rows of the table, read, changed and scaled when a batch asks for them.

The table may be larger than memory, so nothing is read ahead of time.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch import bundle
from ser_batch.network.augmentation import augmented, masked
from ser_batch.network.recipes import Recipe
from ser_batch.tables import KEY, Features, Mfcc

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


class Scaled:
    """Scaled MFCCs of rows of the table.

    Parameters
    ----------
    data
        The table.
    rows
        Row numbers, shape (n,).
    scaler
        Fitted on the training part.
    """

    def __init__(self, data: Features, rows: Numbers, scaler: bundle.Scaler) -> None:
        self._data, self._rows, self._scaler = data, rows, scaler

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, numbers: Numbers | slice) -> Array:
        rows = self._rows[numbers]
        return self._scaler.transform(self._data.mfcc[rows], self._data.n_frames[rows])


class TrainingSegments:
    """The segments of a training part; a batch has each in one of its variants, changed as the recipe says.

    Parameters
    ----------
    data
        The table; rows of one segment stand beside each other.
    rows
        Row numbers of the training part, rising.
    y
        Label numbers of all rows of the table.
    n_labels
        Classes.
    scaler
        Fitted on the training part.
    recipe
        How much is changed.
    """

    def __init__(
        self, data: Features, rows: Numbers, y: Numbers, n_labels: int, scaler: bundle.Scaler, recipe: Recipe
    ) -> None:
        self._data, self._scaler, self._recipe = data, scaler, recipe
        self._rows = rows
        _, self._first, self._n_variants = np.unique(segment_numbers(data)[rows], return_index=True, return_counts=True)
        self._targets = np.eye(n_labels, dtype=np.float32)[y[rows[self._first]]]

    def __len__(self) -> int:
        return len(self._first)

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[Array, Array]:
        """Return scaled MFCCs, shape (n, n_frames, n_mfcc), and targets, shape (n, n_labels), of segments."""
        variants = generator.integers(self._n_variants[numbers])
        rows = self._rows[self._first[numbers] + variants]
        mfcc, n_frames, targets = self._data.mfcc[rows], self._data.n_frames[rows], self._targets[numbers]
        changes = self._recipe.augmentation
        if changes is not None:
            mfcc, n_frames = augmented(mfcc, n_frames, changes, self._data.spec, generator)
        x = self._scaler.transform(mfcc, n_frames)
        if changes is not None:
            x = masked(x, n_frames, changes, generator)
        if self._recipe.mixup:
            return _mixed(x, targets, self._recipe.mixup, generator)
        return x, targets


def segment_numbers(data: Features) -> Numbers:
    """Return a number for each row's segment, shape (rows,), rising; variants share one."""
    return data.rows.select(pl.struct(KEY[:-1]).rle_id().cast(pl.Int64)).to_series().to_numpy()


def _mixed(x: Array, targets: Array, concentration: float, generator: np.random.Generator) -> tuple[Array, Array]:
    """Mix each segment with another one; its own label keeps the larger share."""
    share = generator.beta(concentration, concentration, len(x)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    other = generator.permutation(len(x))
    mixed = x * share[:, None, None] + x[other] * (1 - share)[:, None, None]
    return mixed, targets * share[:, None] + targets[other] * (1 - share)[:, None]


def fit_scaler(mfcc: Mfcc, n_frames: Numbers, rows: Numbers) -> bundle.Scaler:
    """Fit mean and deviation of each coefficient on the real frames of `rows`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for chunk in chunks(rows):
        real = np.arange(mfcc.shape[1]) < n_frames[chunk, None]
        scaler.partial_fit(mfcc[chunk][real].astype(np.float64))
    return bundle.Scaler(tuple(map(float, scaler.mean_)), tuple(map(float, scaler.scale_)))


def chunks(rows: Numbers) -> list[Numbers]:
    """Cut row numbers into stretches of about 1024, 28 MB of MFCCs."""
    return np.array_split(rows, max(1, len(rows) // 1024))
