"""A model folder: find it, load it, check it, and what makes it that very model."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ser_batch.config.features import AnyFeatureSpec, EncoderSpec, FeatureSpec
from ser_batch.config.option_values import MAX_SAMPLING_RATE
from ser_batch.config.options import HEAD_RECIPE, Estimator
from ser_batch.config.variants import CLEAN
from ser_batch.errors import EncoderError, ModelError, UsageError, did_you_mean
from ser_batch.model.prediction import Predictor, tempered
from ser_batch.model.schema import CrossCorpus, ModelSchema, model_id_of, read_schema
from ser_batch.model.sklearn_check import check_archive, load_estimator
from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import REFERENCES, HeadModel, load_heads
from ser_batch.network.out_of_domain import Domain, summary_features
from ser_batch.storage.installed import INSTALLED_ENCODERS, INSTALLED_MODELS

if TYPE_CHECKING:
    from ser_batch.network import numpy_inference


def network_contents(configuration: Mapping[str, Any], weights: Any) -> bytes:
    """Return what identifies a network: a .keras file's own bytes differ from save to save."""
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode())
    for weight in weights:
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.digest()


MODEL_FILE = INSTALLED_MODELS.file
CARD_FILE = "MODEL_CARD.md"
# in the model folder: an encoder that is not one of ser-batch's own
ENCODER_FOLDER = "encoder"
TELEPHONE_RATE = 8000
TELEPHONE_VARIANTS = {"telephone", "g711", "gsm"}
MODEL_FILES = {
    "network": "network.keras",
    "svm": "estimator.skops",
    "forest": "estimator.skops",
    "logistic": "estimator.skops",
}
# may be used commercially, with attribution
DEFAULT_MODEL = "open"
# the models of this project, by the distribution that brings them
DISTRIBUTIONS = {"fast": "ser-batch", DEFAULT_MODEL: "ser-batch", "research": "ser-batch-research"}


@dataclasses.dataclass(frozen=True)
class Model:
    """A checked model folder."""

    folder: Path  # where it lies
    schema: ModelSchema[AnyFeatureSpec]  # model.json

    @property
    def model_id(self) -> str:
        """16 hex digits that stand for network, scaler, labels and spec."""
        return self.schema.model_id

    @property
    def estimator(self) -> Estimator:
        """What kind of model it is."""
        return self.schema.estimator

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the probabilities."""
        return self.schema.labels

    @property
    def feature_spec(self) -> AnyFeatureSpec:
        """How features are computed for this model: MFCCs, or the embeddings of an encoder."""
        return self.schema.feature_spec

    @property
    def spec(self) -> FeatureSpec:
        """How MFCCs are computed for this model; `feature_spec` of a model on embeddings is another one."""
        assert isinstance(self.feature_spec, FeatureSpec)
        return self.feature_spec

    @property
    def is_head_model(self) -> bool:
        """Whether it is made of heads on embeddings."""
        return self.schema.recipe == HEAD_RECIPE

    @property
    def takes_embeddings(self) -> bool:
        """Whether it is applied to the embeddings of an encoder, else to MFCCs."""
        return isinstance(self.feature_spec, EncoderSpec)

    def encoder_place(self) -> str:
        """Return where `segments.front_ends.front_end` finds the encoder: its name if installed, else its folder.

        Raises
        ------
        EncoderError
            It is neither installed nor in the model folder.
        """
        spec = self.feature_spec
        assert isinstance(spec, EncoderSpec)
        own = self.folder / ENCODER_FOLDER
        if own.is_dir():
            return str(own.resolve())
        if spec.encoder in INSTALLED_ENCODERS:
            return spec.encoder
        raise EncoderError(
            f"{self.folder}: the model needs the encoder {spec.encoder}, which is neither installed nor in {own}; "
            f"expected {' or '.join(INSTALLED_ENCODERS)}, or the folder that `ser-batch encoder convert` made "
            f"of {spec.source} there"
        )

    @property
    def lowest_rate(self) -> int:
        """Sampling rate, in Hz, below which recordings lack bands that the training recordings had.

        Telephone copies of what was recorded count as recordings of a telephone, for models on embeddings.
        """
        training = self.schema.training
        rate = min(self.feature_spec.sampling_rate, training.lowest_sampling_rate or MAX_SAMPLING_RATE)
        steps = {step for variant in training.variants for step in variant.split("+")}
        return min(rate, TELEPHONE_RATE) if self.takes_embeddings and steps & TELEPHONE_VARIANTS else rate

    @property
    def cross_corpus(self) -> Mapping[str, CrossCorpus]:
        """The figures on corpora that were left out, by their name; empty where none was."""
        return self.schema.metrics.held_out_corpora if self.schema.metrics else {}

    @property
    def regimes(self) -> Mapping[str, Mapping[str, float]]:
        """UAR, accuracy and number of labels on held-out recordings, by regime; empty where none was measured."""
        found: dict[str, Mapping[str, float]] = {}
        for regime, conditions in (self.schema.metrics.regimes if self.schema.metrics else {}).items():
            figures = conditions.get(CLEAN) or next(iter(conditions.values()), None)
            if figures is not None:
                n_labels = max(1, len(figures.recalls))
                found[regime] = {"uar": figures.uar, "accuracy": figures.accuracy, "n_labels": n_labels}
        return found

    @property
    def recommended_model(self) -> str | None:
        """Name of an installed model that is measured on corpora left out, where this one is not."""
        default = INSTALLED_MODELS.get(DEFAULT_MODEL)
        if self.cross_corpus or default is None:
            return None
        return DEFAULT_MODEL if load_model(default).cross_corpus else None

    @property
    def domain(self) -> Domain | None:
        """What tells which embeddings are out of domain; None for models that do not know."""
        return self.schema.domain

    @property
    def n_numbers(self) -> int:
        """Numbers per segment that a classical model takes: an embedding, or mean and deviation of MFCCs."""
        spec = self.feature_spec
        return spec.embedding_size if isinstance(spec, EncoderSpec) else 2 * spec.n_mfcc

    def predictor(self) -> Predictor:
        """Load the network or estimator and return what turns MFCCs, or embeddings, into probabilities.

        Raises
        ------
        ModelError
            Network and model.json do not belong together.
        """
        path = self.folder / MODEL_FILES[self.estimator]
        if self.estimator == "network":
            network, scaler, temperature = self.network(), self.scaler, self.schema.temperature
            return lambda mfcc, n_frames, heard=None: tempered(
                network.predict(scaler.transform(mfcc, n_frames, heard)), temperature
            )
        check_archive(path)
        contents = path.read_bytes()
        self._check_id(contents)
        try:
            estimator = load_estimator(contents, self.n_numbers)
            tried = estimator.predict_proba(np.zeros((1, self.n_numbers), dtype=np.float32))
            self._check_tried(np.asarray(tried))
        except ModelError:
            raise
        except Exception as error:  # skops raises whatever its parts do on a broken file
            raise ModelError(f"{path}: cannot be read as a skops file ({error}); train again") from error
        if isinstance(self.feature_spec, EncoderSpec):
            return lambda embedding, _n_frames, _heard=None: np.asarray(
                estimator.predict_proba(embedding), dtype=np.float64
            )
        return lambda mfcc, n_frames, _heard=None: np.asarray(
            estimator.predict_proba(summary_features(mfcc, n_frames)), dtype=np.float64
        )

    def head_model(self) -> HeadModel:
        """Load the heads.

        Raises
        ------
        ModelError
            Heads and model.json do not belong together.
        """
        path = self.folder / MODEL_FILES["network"]
        heads, configuration, weights = load_heads(path, self.scaler, len(self.labels))
        self._check_id(network_contents(configuration, weights))
        for reference in REFERENCES:
            if reference not in heads.members:
                raise ModelError(f"{path}: has no heads with the reference {reference}; copy the folder again")
        without, of_calls = self.schema.temperature_without_reference, self.schema.temperature_of_calls
        assert without is not None
        assert of_calls is not None
        return HeadModel(heads, self.labels, self.schema.temperature, without, of_calls)

    @property
    def scaler(self) -> Scaler:
        """What the features of a network are scaled by."""
        assert self.schema.scaler is not None
        return self.schema.scaler

    def network(self) -> "numpy_inference.Network":
        """Load the network, with its weights by layer.

        Raises
        ------
        ModelError
            Network and model.json do not belong together.
        """
        from ser_batch.network import numpy_inference

        path = self.folder / MODEL_FILES["network"]
        network = numpy_inference.load_network(path)
        self._check_id(network_contents(network.configuration, network.weights))
        try:
            tried = network.predict(np.zeros((1, self.spec.n_frames, self.spec.n_mfcc), dtype=np.float32))
        except Exception as error:  # whatever NumPy raises on weights that do not go together
            raise ModelError(f"{path}: the network fails ({error}); train again") from error
        self._check_tried(tried)
        return network

    def _check_tried(self, probabilities: npt.NDArray[Any]) -> None:
        """Refuse a model that gives something else than a probability a label, found out on one silent segment."""
        expected = (1, len(self.labels))
        is_right = probabilities.shape == expected and probabilities.dtype.kind == "f"
        if not (is_right and np.isfinite(probabilities).all() and abs(probabilities.sum() - 1) < 1e-3):
            raise ModelError(
                f"{self.folder / MODEL_FILES[self.estimator]}: gives no probabilities of the {len(self.labels)} labels "
                f"in {MODEL_FILE} (but numbers of shape {probabilities.shape}); copy the whole folder again, or train "
                "again"
            )

    def _check_id(self, contents: bytes) -> None:
        if model_id_of(contents, self.schema) != self.model_id:
            raise ModelError(
                f"{self.folder}: {MODEL_FILE} and {MODEL_FILES[self.estimator]} are not those that were saved "
                "together; copy the whole folder again, or train again"
            )


def load_model(folder: Path) -> Model:
    """Check a model folder and read its model.json; the network itself is read by `Model.predictor`.

    Raises
    ------
    ModelError
        A file is missing or altered, a field of model.json is of a wrong type or range, or the folder was written by
        a newer version.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ModelError(f"{folder}: no {MODEL_FILE}; expected a folder made by `ser-batch train`")
    model = Model(folder, read_schema(path))
    name = MODEL_FILES[model.estimator]
    if name not in model.schema.files:
        raise ModelError(f"{path}: files names no {name}, so it may be altered; copy the whole folder again")
    if not (folder / name).is_file():
        raise ModelError(f"{folder / name}: missing; copy the whole folder again, or train again")
    with (folder / name).open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != model.schema.files[name]:
        raise ModelError(f"{folder / name}: altered since it was saved; copy the whole folder again, or train again")
    return model


def unknown_model(name: str) -> str:
    """Return what a message says of a name that is neither a folder nor an installed model."""
    if name in DISTRIBUTIONS:
        return f"the model {name} is not installed; pip install {DISTRIBUTIONS[name]}"
    hint = did_you_mean(name, {*INSTALLED_MODELS, *DISTRIBUTIONS})
    return f"no such folder; expected one, or {', '.join(INSTALLED_MODELS)}{hint}"


def find_model(model: str | None, *, option: str = "--model") -> Model:
    """Return the model that scoring uses.

    Parameters
    ----------
    model
        A folder, or the name of an installed model. None: ``model`` in the working directory if it is there, else the
        default model.
    option
        What the error calls it by.

    Raises
    ------
    UsageError
        There is no such folder or name.
    ModelError
        The folder cannot be used, or the distribution that brings the model is broken.
    """
    folder = Path("model" if model is None else model)
    name = DEFAULT_MODEL if model is None else model
    if folder.is_dir():
        return load_model(folder)
    if name in INSTALLED_MODELS:
        return load_model(INSTALLED_MODELS[name])
    raise UsageError(f"{option} {name}: {unknown_model(name)}")
