"""The third stage: recordings to predictions, one row a segment, and tables of calls and labels beside them."""

from ser_batch.score.calls import STATUSES, CallSums
from ser_batch.score.stage import ScoreSummary, score
from ser_batch.score.work import ScoreWork

__all__ = ["STATUSES", "CallSums", "ScoreSummary", "ScoreWork", "score"]
