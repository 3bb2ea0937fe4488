"""Who is held out, and who is set apart for development: a recording's rows always stay together.

`folds` has the protocols, `speakers` the order in which people are drawn, `development` what is set apart of a fold's
training part.
"""

from ser_batch.splits.development import development
from ser_batch.splits.folds import PUBLISHED_FOLDS, Fold, Split, shared_speakers, split

__all__ = ["PUBLISHED_FOLDS", "Fold", "Split", "development", "shared_speakers", "split"]
