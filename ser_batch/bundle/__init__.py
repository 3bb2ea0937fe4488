"""A model folder, and what turns MFCCs into probabilities by it. JSON, .keras and skops; never pickle."""

from ser_batch.bundle.checking import check_told, read_values
from ser_batch.bundle.folder import (
    BUNDLE_FILE,
    CARD_FILE,
    DEFAULT_MODEL,
    ENCODER_FOLDER,
    MODEL_FILES,
    Bundle,
    find,
    load,
    shipped,
)
from ser_batch.bundle.identity import network_contents
from ser_batch.bundle.predicting import Familiar, Predictor, summary_features, tempered
from ser_batch.bundle.saving import save, versions
from ser_batch.network.domain import Domain

__all__ = [
    "BUNDLE_FILE",
    "CARD_FILE",
    "DEFAULT_MODEL",
    "ENCODER_FOLDER",
    "MODEL_FILES",
    "Bundle",
    "Domain",
    "Familiar",
    "Predictor",
    "check_told",
    "find",
    "load",
    "network_contents",
    "read_values",
    "save",
    "shipped",
    "summary_features",
    "tempered",
    "versions",
]
