"""What a model.json holds at the least, for tests that write one."""

from typing import Any

from ser_batch.config.features import convert_with_spec
from ser_batch.model.schema import ModelSchema, TrainedModel

MINIMAL: dict[str, Any] = {
    "schema_version": 1,
    "estimator": "network",
    "recipe": "published",
    "epochs": 1,
    "split": "speaker",
    "vocal_channel": "both",
    "test_vocal_channel": "both",
    "train_variants": ["clean"],
    "conditions": ["clean"],
    "baselines": [],
    "seed": 0,
    "seeds": 1,
    "data_hash": "0" * 64,
    "segmentation": [],
    "description": "1D CNN.",
    "temperature": 1.0,
    "training": {"n_rows": 9, "n_recordings": 9, "n_speakers": 2, "datasets": ["d"]},
    "metrics": None,
    "cross_validated": False,
    "license": "",
    "seconds": 1.0,
}
# what is added when a model is saved
SAVED = {"model_id": "0123456789abcdef", "created": "today", "versions": {"numpy": "2"}, "files": {}}


def trained(values: dict[str, Any]) -> TrainedModel:
    """Return values of a model.json as they are before the model is saved."""
    return convert_with_spec(values, TrainedModel)


def schema(values: dict[str, Any]) -> ModelSchema:
    """Return values of a model.json as they are read."""
    return convert_with_spec(values, ModelSchema)
