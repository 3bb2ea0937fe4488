"""What is known of corpora: what their file names say, and the terms that a model trained on them inherits.

One more corpus is one more `Corpus` in corpus/english.py or corpus/other_languages.py, or a `LabelTable` in
corpus/publisher_tables.py if a table has its labels, then its name here and in `CorpusName` of config/options.py, and
its rows in docs/tables.md.
"""

from collections.abc import Iterable

from ser_batch.corpus.conventions import Corpus, Source
from ser_batch.corpus.english import CREMA_D, ENTERFACE, ESD, JL, RAVDESS, SAVEE, TESS
from ser_batch.corpus.other_languages import CAFE, EMODB, EMOVO, MESD, NEMO, OREAU, RESD, SHEMO, SUBESCO
from ser_batch.corpus.publisher_tables import PUBLISHER_TABLES
from ser_batch.corpus.records import Metadata

# those whose names tell
CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        *(RAVDESS, CREMA_D, EMODB, SAVEE, TESS),
        *(JL, SUBESCO, MESD, OREAU, RESD, ENTERFACE, CAFE, NEMO, EMOVO, SHEMO, ESD),
    )
}

# a corpus that goes by its folder first: another one may have such names, too
_IN_ORDER = sorted(CORPORA.values(), key=lambda corpus: corpus.folder is None)

# and those whose labels are in a table
SOURCES: dict[str, Source] = {**CORPORA, **{table.source.name: table.source for table in PUBLISHER_TABLES}}


def parse_name(name: str, *, folder: str = "", corpus: str = "auto") -> Metadata | None:
    """Read what a file name says, by the corpus whose names look like that.

    Parameters
    ----------
    name
        File name without folders, such as ``03-01-06-01-02-01-12.wav``.
    folder
        Name of the folder it lies in, which says something in some corpora: the speaker in one distribution of SAVEE,
        the emotion in ESD, and that it is Oreau or ShEMO at all.
    corpus
        ``auto`` for any, ``none`` for none, or the one that the name is to belong to.

    Returns
    -------
    Metadata or None
        None where the name is of no such corpus, impossible codes (RAVDESS's emotion 09, actor 25) included.

    Examples
    --------
    >>> parse_name("03-01-06-01-02-01-12.wav").emotion
    'fearful'
    >>> parse_name("1001_DFA_ANG_XX.wav").speaker
    'crema-d-1001'
    >>> parse_name("10a01Na.wav", folder="sessn").corpus, parse_name("10a01Na.wav").corpus
    ('oreau', 'emodb')
    >>> parse_name("03-01-09-01-02-01-12.wav") is None
    True
    """
    if corpus != "auto":
        return CORPORA[corpus].parse(name, folder, is_asked_for=True) if corpus in CORPORA else None
    return next((said for one in _IN_ORDER if (said := one.parse(name, folder, is_asked_for=False)) is not None), None)


def licence_of(corpora: Iterable[str]) -> str:
    """Return the licenses that a model trained on some corpora inherits, in words; empty where none is known.

    Corpora that are not known here are the user's own.
    """
    terms = [SOURCES[name].terms for name in sorted(set(corpora)) if name in SOURCES]
    return ("all of these hold: " if len(terms) > 1 else "") + "; ".join(terms)


def sources_of(corpora: Iterable[str]) -> list[str]:
    """Return who made the corpora, for a model's attribution; those that are not known here are left out."""
    return [SOURCES[name].attribution for name in sorted(set(corpora)) if name in SOURCES]
