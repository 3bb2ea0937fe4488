"""Write a model folder."""

import datetime
import hashlib
import platform
from pathlib import Path
from typing import Any

from ser_batch.config.features import AnyFeatureSpec, convert_with_spec
from ser_batch.config.structs import as_json
from ser_batch.model.folder import CARD_FILE, MODEL_FILE, MODEL_FILES, Model, network_contents
from ser_batch.model.schema import ModelSchema, TrainedModel, model_id_of
from ser_batch.storage.atomic import atomic_path, write_json, write_text


def save_model(folder: Path, trained: TrainedModel[AnyFeatureSpec], model: Any, card: str) -> Model:
    """Write a model folder's network or estimator, model.json and card.

    Parameters
    ----------
    folder
        Exists; model.json is written last.
    trained
        model.json without model_id, created, versions and files.
    model
        A Keras network, or a scikit-learn estimator.
    card
        MODEL_CARD.md; ``{model_id}`` in it is filled in.
    """
    path = folder / MODEL_FILES[trained.estimator]
    with atomic_path(path) as temporary:
        if trained.estimator == "network":
            from ser_batch.network import optimization

            named = temporary.with_name(temporary.name + ".keras")  # Keras goes by the suffix
            optimization.save(model, named)
            named.replace(temporary)
            contents = network_contents(model.get_config(), model.get_weights())
        else:
            import skops.io

            skops.io.dump(model, temporary)
            contents = temporary.read_bytes()
    # as they will be read back, which the id is of
    values = as_json(trained)
    trained = convert_with_spec(values, TrainedModel)
    values |= {
        "model_id": model_id_of(contents, trained),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
    }
    schema: ModelSchema[AnyFeatureSpec] = convert_with_spec(values, ModelSchema)
    write_text(folder / CARD_FILE, card.replace("{model_id}", schema.model_id))
    write_json(folder / MODEL_FILE, as_json(schema))
    return Model(folder, schema)


def versions() -> dict[str, str]:
    """Return the versions of Python and the libraries that decide the numbers."""
    import importlib.metadata  # slow to load, and no worker needs it

    packages = (
        "ser-batch",
        "numpy",
        "scipy",
        "soxr",
        "soundfile",
        "scikit-learn",
        "keras",
        "jax",
        "jaxlib",
        "skops",
    )
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
