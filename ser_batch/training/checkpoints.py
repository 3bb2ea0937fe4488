"""Checkpoints of networks: a training that was killed continues and ends with the same model."""

import contextlib
import dataclasses
import glob
import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.config.features import canonical_json
from ser_batch.model.saving import versions
from ser_batch.network.state import State
from ser_batch.storage.atomic import TEMPORARY_MARK, atomic_path, make_folder, write_text
from ser_batch.storage.lock import locked
from ser_batch.storage.paths import refuse_undecodable

# a network of the recipe robust has an epoch every few seconds, and 10 MB with its optimizer
SECONDS_BETWEEN = 30.0
_SETTINGS_FILE = "training.json"


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the place of a model for this training; what killed ones left half written there is removed."""
    refuse_undecodable(out, "choose another --out")
    make_folder(out.parent)
    with locked(out.with_name(f".{out.name}.lock"), out):
        for leftover in out.parent.glob(f".{glob.escape(out.name)}{TEMPORARY_MARK}*"):
            shutil.rmtree(leftover)
        yield


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """One network in training."""

    state: State  # after the last epoch that was kept
    history: list[dict[str, Any]]  # A row for each epoch up to then


class Checkpoints:
    """The checkpoints of one training, in a hidden folder beside the model."""

    def __init__(self, out: Path, identity: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.folder = out.with_name(f".{out.name}.unfinished")
        self._settings = canonical_json(dict(identity) | {"versions": versions()})
        if self.folder.exists() and not self._are_of_this_training():
            say(f"{out}: the training that was begun there is not gone on with, {self._differs_by()}")
            self.remove()

    def _differs_by(self) -> str:
        """Return in words what tells the training that was kept from this one."""
        try:
            kept = (self.folder / _SETTINGS_FILE).read_text(encoding="utf-8")
            then, now = ({**values, **values["versions"]} for values in map(json.loads, (kept, self._settings)))
        except (OSError, ValueError, TypeError, KeyError):
            return "as it cannot be read"
        names = [name for name in sorted({*then, *now} - {"versions"}) if then.get(name) != now.get(name)]
        return "; ".join(f"{name} was {then.get(name)} and is {now.get(name)}" for name in names)

    def prepare(self) -> None:
        """Make the folder, if it is not there."""
        if not self._are_of_this_training():
            make_folder(self.folder)
            write_text(self.folder / _SETTINGS_FILE, self._settings)

    def _are_of_this_training(self) -> bool:
        file = self.folder / _SETTINGS_FILE
        return file.is_file() and file.read_text(encoding="utf-8") == self._settings

    def remove(self) -> None:
        """Remove them all: the model is there."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def of(self, *key: str | int | bool | None) -> "CheckpointFile":
        """Return the checkpoint of one network, by all that tells it from the others of the training."""
        # names of folds come from names of corpora and files; here they are no path
        name = hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]
        return CheckpointFile(self, self.folder / f"{name}.npz")


class CheckpointFile:
    """The checkpoint of one network."""

    def __init__(self, checkpoints: Checkpoints, file: Path) -> None:
        self._checkpoints, self._file = checkpoints, file
        self._kept = time.monotonic()

    def load(self) -> Checkpoint | None:
        """Return what was kept; None where nothing was, or what is there cannot be read."""
        try:
            with self._file.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
                history = json.loads(str(held["history"]))
                arrays = [held[f"array_{number}"] for number in range(int(held["n_arrays"]))]
                return Checkpoint(State(int(held["epoch"]), arrays), history)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None  # the network is trained from the beginning

    def keep(self, state: Callable[[], State], history: list[dict[str, Any]], *, is_last: bool) -> None:
        """Keep a network after an epoch, if it is the last one or some time has passed since it was kept."""
        if not is_last and time.monotonic() - self._kept < SECONDS_BETWEEN:
            return
        held = state()
        self._checkpoints.prepare()
        named: dict[str, Any] = {f"array_{number}": array for number, array in enumerate(held.arrays)}
        named |= {"epoch": held.epoch, "history": json.dumps(history), "n_arrays": len(held.arrays)}
        with atomic_path(self._file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **named)
        self._kept = time.monotonic()
