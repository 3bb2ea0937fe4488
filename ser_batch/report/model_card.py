"""MODEL_CARD.md of a model folder."""

from collections.abc import Mapping
from typing import Any

from ser_batch.report.html import render
from ser_batch.report.regimes import regimes_shown


def model_card(model: Mapping[str, Any]) -> str:
    """Return MODEL_CARD.md of the values of a model.json."""
    # ``{model_id}`` stands in it where the id goes, which is not known before the model is saved.
    metrics = model["metrics"]
    regimes = regimes_shown(metrics.get("regimes", {}))
    return render("model_card.md.j2", model=model, metrics=metrics, training=model["training"], regimes=regimes)
