"""The third stage: recordings to predictions, one row a segment, and tables of calls and labels beside them."""

from ser_batch.score.stage import ScoreSummary, score
from ser_batch.score.work import STATUS_LOW_RATE, STATUS_OK, STATUS_SILENT, ScoreWork

__all__ = ["STATUS_LOW_RATE", "STATUS_OK", "STATUS_SILENT", "ScoreSummary", "ScoreWork", "score"]
