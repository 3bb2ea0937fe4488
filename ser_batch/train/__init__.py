"""The second stage: features to a model folder with its evaluation."""

from ser_batch.train.stage import TrainSummary, train

__all__ = ["TrainSummary", "train"]
