"""The third stage: recordings to predictions, one row a segment, and tables of calls and labels beside them.

Called, the package itself is the function of the library, `called.score`.
"""

from ser_batch.config.calling import make_callable
from ser_batch.score import called
from ser_batch.score.called import Scored
from ser_batch.score.calls import STATUSES, CallSums
from ser_batch.score.stage import ScoreSummary, score
from ser_batch.score.work import ScoreWork

__all__ = ["STATUSES", "CallSums", "ScoreSummary", "ScoreWork", "Scored", "score"]

make_callable(__name__, called.score)
