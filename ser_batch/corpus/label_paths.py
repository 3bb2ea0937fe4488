"""Paths of a labels file to recordings; where they name none, why that probably is."""

import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from ser_batch.corpus.manifest import Recording


class LabelPaths:
    """The paths of recordings, to be found by what a labels file calls them."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._known = {recording.path for recording in recordings}
        self._alike: dict[str, list[str]] | None = (
            None  # by their names, whatever folder, suffix, case and Unicode form
        )

    def path_of(self, cell: str) -> str:
        """Return the recording that a cell names, or the cell's text where there is none.

        A path may begin with ``./``, have backslashes, and spaces around it that are no part of the name.
        """
        if cell in self._known:
            return cell
        text = cell.strip()
        ways = (text, posixpath.normpath(text), posixpath.normpath(text.replace("\\", "/")))
        return next((way for way in ways if way in self._known), text)

    def __contains__(self, path: str) -> bool:
        return path in self._known

    def advice(self, paths: Sequence[str]) -> str | None:
        """Return which recording the first of some unknown paths means that can be guessed, and what to change."""
        if not paths:
            return None
        if self._alike is None:
            self._alike = {}
            for path in sorted(self._known):
                self._alike.setdefault(_folded(PurePosixPath(path).stem), []).append(path)
        for path in paths:
            own = posixpath.normpath(path.replace("\\", "/"))
            alike = self._alike.get(_folded(PurePosixPath(own).stem))
            if alike:
                meant = max(alike, key=lambda known: _n_same_at_the_end(own, known))
                return f"{path!r} is probably the recording {meant!r}: {'; '.join(_changes(own, meant))}"
        return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _folders(path: str) -> list[str]:
    """Return the folders of a path from the last to the first."""
    return path.split("/")[-2::-1]


def _n_same_at_the_end(path: str, other: str) -> int:
    pairs = list(zip(_folders(path), _folders(other), strict=False))
    return next((i for i, (one, two) in enumerate(pairs) if _folded(one) != _folded(two)), len(pairs))


def _changes(path: str, meant: str) -> Sequence[str]:
    """Return what has to be done to a path to make it the one that is meant."""
    n = _n_same_at_the_end(path, meant)
    front, missing = _folders(path)[n:][::-1], _folders(meant)[n:][::-1]
    changes = [f"remove {'/'.join(front)}/ from the front"] if front else []
    changes += [f"put {'/'.join(missing)}/ in front"] if missing else []
    own, wanted = path.split("/")[-n - 1 :], meant.split("/")[-n - 1 :]
    suffix, wanted_suffix = PurePosixPath(path).suffix, PurePosixPath(meant).suffix
    if suffix != wanted_suffix:
        changes.append(f"end it in {wanted_suffix}" + (f", not in {suffix}" if suffix else ""))
        own[-1], wanted[-1] = PurePosixPath(path).stem, PurePosixPath(meant).stem
    form = next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, meant)), "its own")
    own_nfc, wanted_nfc = ([unicodedata.normalize("NFC", part) for part in parts] for parts in (own, wanted))
    if own != wanted and own_nfc == wanted_nfc:
        changes.append(f"write it in the Unicode form {form}, as the file's name is")
    elif own_nfc != wanted_nfc:
        changes.append("write capitals and small letters as in the file's name")
    return changes
