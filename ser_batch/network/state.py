"""State of a training between two epochs, as plain arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """All that the next step of a training depends on, but for its data and settings."""

    epoch: int  # how many are done
    # the network's variables in Keras's order, states of its random generators among them, then those of the optimizer;
    # of a finished network its own alone
    arrays: Sequence[npt.NDArray[Any]]
