"""The second stage: features to a model folder with its evaluation.

Called, the package itself is the function of the library, `called.train`.
"""

from ser_batch.config.calling import make_callable
from ser_batch.train import called
from ser_batch.train.called import Trained
from ser_batch.train.stage import TrainSummary, train

__all__ = ["TrainSummary", "Trained", "train"]

make_callable(__name__, called.train)
