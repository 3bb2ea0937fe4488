"""The first stage: recordings to segments to features, one Parquet row per segment.

Called, the package itself is the function of the library, `called.featurize`.

`intervals` says which stretches become segments, `cutting` decodes them and feeds their samples to one of the
`front_ends`, which computes MFCCs or embeddings; only workers load these.
"""

from ser_batch.config.calling import make_callable
from ser_batch.featurize import called
from ser_batch.featurize.called import Featurized
from ser_batch.featurize.stage import FeaturizeSummary, featurize, labelled, named_corpus, nothing_done
from ser_batch.featurize.work import FeaturizeWork

__all__ = ["FeaturizeSummary", "FeaturizeWork", "Featurized", "featurize", "labelled", "named_corpus", "nothing_done"]

make_callable(__name__, called.featurize)
