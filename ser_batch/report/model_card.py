"""MODEL_CARD.md of a model folder."""

from ser_batch.config.features import AnyFeatureSpec
from ser_batch.model.schema import TrainedModel
from ser_batch.report.evaluation import RESAMPLED
from ser_batch.report.html import render
from ser_batch.report.regimes import regimes_shown


def model_card(model: TrainedModel[AnyFeatureSpec]) -> str:
    """Return MODEL_CARD.md of what a model.json says."""
    # ``{model_id}`` stands in it where the id goes, which is not known before the model is saved.
    metrics = model.metrics
    return render(
        "model_card.md.j2",
        model=model,
        metrics=metrics,
        training=model.training,
        regimes=regimes_shown(metrics.regimes if metrics else {}),
        resampled=RESAMPLED[metrics.resampled if metrics else None],
    )
