"""Folders that installed distributions bring: models and encoders, found by entry points."""

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from ser_batch.errors import EncoderError, ModelError, SerBatchError


class InstalledFolders(Mapping[str, Path]):
    """The folders of one kind that installed distributions declare, by name.

    An entry point of the group ``ser_batch.models`` or ``ser_batch.encoders`` names a package; the folder of that
    package is the model or encoder. A folder is looked up when it is asked for, so a broken distribution hides no
    other.

    Parameters
    ----------
    noun
        What a folder is: model or encoder. The group is its plural.
    file
        What each folder holds.
    error
        What to raise where a distribution is broken.
    """

    def __init__(self, noun: str, file: str, error: type[SerBatchError]) -> None:
        self._noun, self.file, self._error = noun, file, error
        self.group = f"ser_batch.{noun}s"

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(importlib.metadata.entry_points(group=self.group).names))

    def __len__(self) -> int:
        return len(importlib.metadata.entry_points(group=self.group).names)

    def __contains__(self, name: object) -> bool:
        return name in importlib.metadata.entry_points(group=self.group).names

    def __getitem__(self, name: str) -> Path:
        entries = list(importlib.metadata.entry_points(group=self.group, name=name))
        if not entries:
            raise KeyError(name)
        if len(entries) > 1:
            owners = " and ".join(sorted({_owner(entry) for entry in entries}))
            raise self._error(f"{self._noun} {name}: {owners} declare one each; uninstall all of them but one")
        return self._folder(entries[0])

    def name_of(self, folder: Path) -> str | None:
        """Return the name of the installed one that lies in `folder`; None for any other folder."""
        return next((name for name in self if self._lies_in(name, folder.resolve())), None)

    def _lies_in(self, name: str, folder: Path) -> bool:
        try:
            return self[name].resolve() == folder
        except self._error:  # it lies nowhere; who asks for it by name is told
            return False

    def _folder(self, entry: importlib.metadata.EntryPoint) -> Path:
        try:
            package = importlib.util.find_spec(entry.value)
        except Exception as error:  # of the package that it is in, which may raise anything when it is imported
            raise self._broken(entry, f"cannot be imported ({type(error).__name__}: {error})") from error
        if package is None or not package.submodule_search_locations:
            raise self._broken(entry, "is not there")
        folders = [Path(place) for place in package.submodule_search_locations]
        whole = [folder for folder in folders if (folder / self.file).is_file()]
        if not whole:
            raise self._broken(entry, f"has no {self.file}")
        return whole[0]

    def _broken(self, entry: importlib.metadata.EntryPoint, what: str) -> SerBatchError:
        owner = _owner(entry)
        return self._error(
            f"{self._noun} {entry.name}: {owner} names the package {entry.value}, which {what}; reinstall or uninstall "
            f"{owner}"
        )


def _owner(entry: importlib.metadata.EntryPoint) -> str:
    """Return the name of the distribution that declares an entry point."""
    return (entry.dist and entry.dist.name) or "a distribution without a name"


INSTALLED_MODELS = InstalledFolders("model", "model.json", ModelError)
INSTALLED_ENCODERS = InstalledFolders("encoder", "encoder.json", EncoderError)
