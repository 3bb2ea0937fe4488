"""Encoder folders: those that are installed, by name, and what their encoder.json says."""

import importlib.metadata
import importlib.util
from pathlib import Path

import msgspec

from ser_batch.config import EncoderSpec
from ser_batch.errors import EncoderError, UsageError, did_you_mean

SPEC_FILE = "encoder.json"
GRAPH_FILE = "encoder.onnx"
ENTRY_POINTS = "ser_batch.encoders"
_PACKAGE_FOLDER = Path(__file__).parent.parent / "encoders"


def shipped() -> dict[str, Path]:
    """Return the folders of the encoders that are installed, by name.

    These are the ones inside ser-batch, and those of other distributions: an entry point of the group
    ``ser_batch.encoders`` names a package whose folder holds encoder.json and encoder.onnx.

    Raises
    ------
    EncoderError
        A distribution names a package that is not there.
    """
    folders = {path.parent.name: path.parent for path in sorted(_PACKAGE_FOLDER.glob(f"*/{SPEC_FILE}"))}
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        folders.setdefault(entry.name, _folder_of(entry))
    return folders


def find(encoder: str | Path) -> Path:
    """Return the folder of an encoder.

    Parameters
    ----------
    encoder
        A folder, or the name of an installed encoder. A folder of that name comes first.

    Raises
    ------
    UsageError
        There is neither.
    """
    folder = Path(encoder)
    if folder.is_dir():
        return folder
    known = shipped()
    if str(encoder) in known:
        return known[str(encoder)]
    raise UsageError(
        f"encoder {encoder}: no such folder or installed encoder; expected a folder made by `ser-batch encoder "
        f"convert`, or {', '.join(known)}{did_you_mean(str(encoder), known)}"
    )


def read_spec(folder: Path) -> EncoderSpec:
    """Read the encoder.json of a folder.

    Raises
    ------
    EncoderError
        It is missing, not JSON, or a field is missing, unknown, of another type or out of its range.
    """
    path = folder / SPEC_FILE
    try:
        values = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise EncoderError(f"{folder}: no {SPEC_FILE}; expected a folder made by `ser-batch encoder convert`") from None
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except msgspec.DecodeError as error:
        raise EncoderError(f"{path}: not JSON ({error}); copy the whole folder again, or convert again") from error
    if not isinstance(values, dict):
        raise EncoderError(f"{path}: expected an object; copy the whole folder again, or convert again")
    try:
        return EncoderSpec.from_dict(values)
    except UsageError as error:
        raise EncoderError(f"{path}: {error}; copy the whole folder again, or convert again") from error


def _folder_of(entry: importlib.metadata.EntryPoint) -> Path:
    """Return the folder of the package that an entry point names."""
    try:
        found = importlib.util.find_spec(entry.value)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        owner = entry.dist.name if entry.dist else "a distribution"
        raise EncoderError(
            f"encoder {entry.name}: {owner} names the package {entry.value}, which is not there; reinstall or "
            f"uninstall {owner}"
        )
    return Path(next(iter(found.submodule_search_locations)))
