"""The first stage: recordings to segments to MFCCs, one Parquet row a segment.

Called, the package itself is the function of the library, `called.featurize`.

`intervals` says which stretches become segments, `cutting` decodes and computes; only workers load them.
"""

from ser_batch.config.calling import make_callable
from ser_batch.featurize import called
from ser_batch.featurize.called import Featurized
from ser_batch.featurize.stage import FeaturizeSummary, featurize, labelled, named_corpus, nothing_done
from ser_batch.featurize.work import FeaturizeWork

__all__ = ["FeaturizeSummary", "FeaturizeWork", "Featurized", "featurize", "labelled", "named_corpus", "nothing_done"]

make_callable(__name__, called.featurize)
