"""The first stage: recordings to segments to MFCCs, one Parquet row a segment.

`intervals` says which stretches become segments, `cutting` decodes and computes; only workers load them.
"""

from ser_batch.featurize.stage import FeaturizeSummary, featurize, labelled, named_corpus, nothing_done
from ser_batch.featurize.work import FeaturizeWork

__all__ = ["FeaturizeSummary", "FeaturizeWork", "featurize", "labelled", "named_corpus", "nothing_done"]
