"""What several test files share."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")  # a test that imports Keras by itself gets the same one

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


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up corpus of 120 clips, 4 speakers, 8 emotions."""
    from ser_batch.synth import synth

    return synth(tmp_path_factory.mktemp("corpus") / "audio", repetitions=1).folder


@pytest.fixture(scope="session")
def small_features(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its features, as clips."""
    from ser_batch.config import FeaturizeOptions
    from ser_batch.featurize import featurize

    out = tmp_path_factory.mktemp("features") / "features"
    featurize(small_corpus, FeaturizeOptions(out=out, jobs=1))
    return out


@pytest.fixture(scope="session")
def small_model(small_features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained on them for three epochs."""
    from ser_batch.config import TrainOptions
    from ser_batch.train import train

    out = tmp_path_factory.mktemp("model") / "model"
    train([small_features], TrainOptions(out=out, epochs=3), say=lambda line: None)
    return out
