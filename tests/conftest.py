"""What several test files share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real recordings, which are not part of the project."""
    folder = Path(os.environ.get("SER_BATCH_SHARED", ROOT.parent / "shared"))
    if not (folder / "ravdess").is_dir():
        pytest.skip(f"{folder} holds no real recordings; name the folder in SER_BATCH_SHARED")
    return folder
