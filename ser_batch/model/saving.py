"""Write a model folder."""

import datetime
import hashlib
import io
import platform
import re
import zipfile
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
            contents = _estimator_bytes(model)
            temporary.write_bytes(contents)
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


def _estimator_bytes(estimator: Any) -> bytes:
    """Return a skops file that is the same for the same estimator."""
    # skops names parts by their addresses in memory and dates them; here they are numbered as they come
    import skops.io

    numbers: dict[str, str] = {}

    def numbered(text: str) -> str:
        pattern = r'(?<="__id__": )[0-9]+|[0-9]+(?=\.np[yz]\b)'
        return re.sub(pattern, lambda found: numbers.setdefault(found[0], str(len(numbers))), text)

    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as dumped, zipfile.ZipFile(file, "w") as archive:
        schema = numbered(dumped.read("schema.json").decode())
        parts = {numbered(name): dumped.read(name) for name in dumped.namelist() if name != "schema.json"}
        for name, contents in {**parts, "schema.json": schema.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), contents)
    return file.getvalue()


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
