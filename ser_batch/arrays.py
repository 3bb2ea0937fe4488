"""Types of arrays, by their elements."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]  # features, weights
Floats = npt.NDArray[np.float64]  # probabilities, sums, weights of rows
Numbers = npt.NDArray[np.int64]  # row numbers, label numbers, counts
Flags = npt.NDArray[np.bool_]
