"""What a model is familiar with: recordings unlike anything trained on are to be told apart, not guessed at."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ser_batch import bundle
from ser_batch.tables import Features, chunks, corpora
from ser_batch.train.corpora import even_weights
from ser_batch.train.parts import Numbers, Part

# of held-out segments
SHARE_WITHIN = 0.995
# beyond those: a few corpora do not span all microphones and lines that speech comes through (docs/results.md)
MARGIN = 1.25
# in units of an MFCC; what never changes, in digital silence, has no deviation
_LEAST_SCALE = 0.001

Floats = npt.NDArray[np.float64]


def familiar_with(data: Features, final: Part, parts: Sequence[Part]) -> bundle.Familiar | None:
    """Return what a model is familiar with; None where nothing is held out that could tell how far new speech lies.

    Parameters
    ----------
    data
        The table.
    final
        What the model is trained on. Corpora count the same in its mean and deviation.
    parts
        The trainings with held-out rows. The limit is `MARGIN` times the distance that `SHARE_WITHIN` of these are
        within, each tried by the part that does not know it: under ``--split corpus`` a limit for speech of other
        corpora, else for other speakers.
    """
    if not parts:
        return None
    rows = np.arange(len(data.rows))
    statistics = np.concatenate(
        [bundle.summary_features(data.mfcc[chunk], data.n_frames[chunk]) for chunk in chunks(rows)]
    )
    of_corpus = np.unique(corpora(data.rows).to_numpy(), return_inverse=True)[1]
    distances, weights = [], []
    for part in parts:
        mean, scale = _moments(statistics, of_corpus, part.train)
        off = (statistics[part.test] - mean) / scale
        distances.append(np.sqrt((off**2).mean(axis=1)))
        weights.append(even_weights(of_corpus[part.test]))
    limit = MARGIN * _quantile(np.concatenate(distances), np.concatenate(weights), SHARE_WITHIN)
    mean, scale = _moments(statistics, of_corpus, final.train)
    return bundle.Familiar(_rounded(mean), _rounded(scale), round(limit, 3))


def _moments(statistics: npt.NDArray[np.float32], of_corpus: Numbers, rows: Numbers) -> tuple[Floats, Floats]:
    weights = even_weights(of_corpus[rows])
    own = statistics[rows].astype(np.float64)
    mean = np.average(own, axis=0, weights=weights)
    variance = np.average((own - mean) ** 2, axis=0, weights=weights)
    return mean, np.maximum(np.sqrt(variance), _LEAST_SCALE)


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
