"""Where things lie: a path of this machine, or the address of an object store, such as ``s3://bucket/calls``."""

import os
from pathlib import Path
from typing import Any, cast

from ser_batch.errors import UsageError


def place(text: str | os.PathLike[str]) -> Path:
    """Return the path of a name, or for an address what can be used as one: a ``UPath`` of universal-pathlib.

    Raises
    ------
    UsageError
        It is an address, and what reads such is not installed.
    """
    if is_remote(text):
        return cast("Path", text)
    name = os.fspath(text)
    if "://" not in name:
        return Path(name)
    try:
        from upath import UPath

        # other machines write there too, so what was listed a moment ago is no longer true
        address: Any = UPath(name.rstrip("/"), use_listings_cache=False)
        _ = address.fs
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{name}: cannot be used ({error}); for s3:// install what reads it: pip install 'ser-batch[s3]'"
        ) from error
    return cast("Path", address)


def is_remote(path: object) -> bool:
    """Whether this is an address and no path of this machine."""
    return not isinstance(path, str | Path) and hasattr(path, "storage_options")
