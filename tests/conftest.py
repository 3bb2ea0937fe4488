"""What several test files share."""

import contextlib
import dataclasses
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest
import quick_networks  # noqa: F401 - half of the time goes into compiling
from model_json import MINIMAL, trained

os.environ.setdefault("KERAS_BACKEND", "jax")  # a test that imports Keras by itself gets the same one
# a few small networks are trained again and again; JAX compiles each of them once for all tests, also for those of
# pytest-xdist's other workers, which are given the first process's environment. A limit makes it lock the folder.
COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="ser-batch-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(2 * 1024**3)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

Once = Callable[[str, Callable[[Path], object]], Path]
ROOT = Path(__file__).parent.parent


def pytest_collection() -> None:
    gc.disable()  # nothing that is imported is garbage


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    if COMPILED is not None:
        shutil.rmtree(COMPILED, ignore_errors=True)


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


def state_of(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files below a folder."""
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(str(path), status.st_size, status.st_mtime_ns) for path, status in files]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Once]:
    """A folder for all to read: ``once(name, make)``, filled by the first process, ``make(folder)``."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made: dict[Path, list[tuple[str, int, int]]] = {}

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with filelock.FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process in which it failed
                folder.mkdir()
                make(folder)
                done.touch()
            made[folder] = state_of(folder)
        return folder

    yield folder_of
    for folder, state in made.items():
        assert state_of(folder) == state, f"a test has changed {folder}, which is for all to read"


@pytest.fixture(scope="session")
def small_corpus(once: Once) -> Path:
    """A made-up corpus of 120 clips, 4 speakers, 8 emotions."""
    from ser_batch.synth import synth

    return once("small_corpus", lambda folder: synth(folder / "audio", repetitions=1)) / "audio"


@pytest.fixture(scope="session")
def small_features(small_corpus: Path, once: Once) -> Path:
    """Its features, as clips."""
    from ser_batch.config.options import FeaturizeOptions
    from ser_batch.featurization import featurize

    def make(folder: Path) -> None:
        featurize(small_corpus, FeaturizeOptions(out=folder / "features", jobs=1))

    return once("small_features", make) / "features"


@pytest.fixture(scope="session")
def small_model(small_features: Path, once: Once) -> Path:
    """A network of the recipe published trained on them for three epochs."""
    from ser_batch.config.options import TrainOptions
    from ser_batch.training.run import train

    def make(folder: Path) -> None:
        train([small_features], TrainOptions(out=folder / "model", recipe="published", epochs=3), say=lambda line: None)

    return once("small_model", make) / "model"


@contextlib.contextmanager
def networks_of_one_layer() -> Iterator[None]:
    import keras

    from ser_batch.network import architectures
    from ser_batch.network.recipes import HEAD, RECIPES

    def build(inputs, n_labels, prefix):
        mean = keras.layers.GlobalAveragePooling1D(name=f"{prefix}mean")(inputs)
        return keras.layers.Dense(n_labels, activation="softmax", name=f"{prefix}probabilities")(mean)

    with pytest.MonkeyPatch.context() as patch:
        for name in RECIPES:
            patch.setitem(architectures._BUILDERS, name, build)
        for module in ("heads", "run"):
            patch.setattr(f"ser_batch.training.{module}.HEAD", dataclasses.replace(HEAD, hidden=8, members=1))
        patch.setattr("ser_batch.training.out_of_domain.SOUNDS_PER_KIND", 1)
        yield


@pytest.fixture
def small_networks() -> Iterator[None]:
    """Networks of one layer under the names of the recipes, for tests of what they are fed and what comes of it."""
    with networks_of_one_layer():
        yield


@pytest.fixture(scope="session")
def smaller() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """The same for fixtures that outlive a test: ``with smaller(): train(...)``."""
    return networks_of_one_layer


@pytest.fixture(scope="session")
def small_variants(once: Once) -> Path:
    """Features of 64 clips by 8 speakers in 3 variants; angry is never sung.

    Each speaker says both statements happy, sad and angry, and sings one of them happy and sad.
    """
    return once("small_variants", featurize_variants) / "features"


def featurize_variants(folder: Path) -> None:
    from ser_batch.config.options import FeaturizeOptions
    from ser_batch.featurization import featurize
    from ser_batch.synth import synth

    for clip in synth(folder / "ravdess", actors=8, repetitions=1, sampling_rate=8000).out.rglob("*.wav"):
        modality, _, emotion, intensity, statement, *others = clip.name.split("-")
        if emotion in ("03", "04") and (intensity, statement) == ("02", "01"):
            clip.rename(clip.with_name("-".join((modality, "02", emotion, intensity, statement, *others))))
        elif emotion not in ("03", "04", "05") or intensity != "01":
            clip.unlink()
    out = folder / "features"
    options = FeaturizeOptions(out=out, preset="telephone", variants="clean,g711,noise10", jobs=1)
    featurize(folder / "ravdess", options)


@pytest.fixture(scope="session")
def small_robust(small_variants: Path, once: Once) -> Path:
    """Small networks trained on them by the recipe robust for two epochs, two speakers held out."""
    from ser_batch.config.options import TrainOptions
    from ser_batch.training.run import train

    def make(folder: Path) -> None:
        options = TrainOptions(
            out=folder / "model", recipe="robust", epochs=2, split="speaker", conditions="clean,g711",
            baselines="majority,logistic",
        )  # fmt: skip
        with networks_of_one_layer():
            train([small_variants], options, say=lambda line: None)

    return once("small_robust", make) / "model"


@pytest.fixture(scope="session")
def small_heads(small_corpus: Path, once: Once) -> Path:
    """A model folder of untrained heads on the embeddings of the encoder that ships: three labels, a prior."""
    return once("small_heads", lambda folder: save_heads(small_corpus, folder / "heads")) / "heads"


def save_heads(small_corpus: Path, folder: Path) -> None:
    import numpy as np
    import soundfile

    from ser_batch.encoder.model import load_encoder
    from ser_batch.model.saving import save_model
    from ser_batch.network import head_training, optimization
    from ser_batch.network.recipes import HEAD
    from ser_batch.storage.installed import INSTALLED_ENCODERS

    loaded = load_encoder(INSTALLED_ENCODERS["whisper-tiny.en"])
    embeddings = []
    for path in sorted(small_corpus.rglob("*.wav"))[:8]:
        segment = loaded.segment()
        segment.feed(soundfile.read(path, dtype="float32")[0][:16_000])
        embeddings.append(segment.finish().values)
    labels = ("angry", "happy", "neutral")
    optimization.set_seed(1)
    network = head_training.build(loaded.spec.embedding_size, len(labels), HEAD.references, HEAD)
    generator = np.random.default_rng(1)
    for layer in network.layers:
        if layer.name.endswith("_share"):
            layer.set_weights([generator.normal(0, 0.1, layer.get_weights()[0].shape)])
    folder.mkdir()
    values = MINIMAL | {
        "description": "Heads on embeddings of whisper-tiny.en",
        "recipe": "head",
        "split": "none",
        "feature_spec": loaded.spec.to_dict(),
        "feature_spec_hash": loaded.spec.digest(),
        "labels": list(labels),
        "scaler": {
            "mean": np.mean(embeddings, axis=0).tolist(),
            "scale": np.maximum(np.std(embeddings, axis=0), 1e-3).tolist(),
        },
        "temperature": 1.5,
        "temperature_without_reference": 1.25,
        "temperature_of_calls": 1.0,
        "prior": {"neutral": 0.5},
        "training": {"n_rows": 8, "n_recordings": 8, "n_speakers": 1, "datasets": ["voices"]},
    }
    save_model(folder, trained(values), network, "{model_id}\n")
