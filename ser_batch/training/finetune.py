"""Fine-tuning: the model of --init, its checks, and its record in model.json."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from ser_batch.config.features import PRESETS, AnyFeatureSpec, EncoderSpec
from ser_batch.config.options import HEAD_RECIPE, RecipeName, TrainOptions
from ser_batch.errors import InputError, ModelError, UsageError
from ser_batch.model.folder import Model, find_model
from ser_batch.model.schema import Initial
from ser_batch.network import numpy_inference
from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import Heads
from ser_batch.network.recipes import RECIPES
from ser_batch.storage.installed import INSTALLED_MODELS


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """A trained model that the networks of all folds start from."""

    name: str  # of an installed model, or of the model's folder
    model: Model  # the model
    network: numpy_inference.Network | Heads  # its network, with the weights of each layer, or its heads

    @property
    def recipe(self) -> RecipeName:
        """How its network is built."""
        assert self.model.schema.recipe is not None  # looked at by `load_start`
        return self.model.schema.recipe

    @property
    def scaler(self) -> Scaler:
        """What its network's MFCCs are scaled by."""
        # The new network keeps it: the first layer's weights and all statistics of batch normalisation are those of
        # numbers in this scale. A scaler fitted anew would hide how the new recordings differ, and on few of them it
        # would be a rough one. No held-out row of the new table has a part in it.
        return self.model.scaler

    def begin(self, network: Any, member: int, labels: Sequence[str]) -> None:
        """Give a new network, built with one member, the weights to start from; see `architectures.start_from`."""
        from ser_batch.network import architectures

        assert isinstance(self.network, numpy_inference.Network)
        try:
            architectures.start_from(
                network, self.network.layer_weights, member=member, labels=labels, known=self.model.labels
            )
        except ValueError as error:
            raise ModelError(
                f"{self.model.folder}: {error}; a network of the recipe {self.recipe} is built otherwise by this "
                "version. Train that model again, or leave --init out"
            ) from error

    def begin_heads(self, network: Any, labels: Sequence[str]) -> None:
        """Give new heads the weights to start from; see `head_training.start_from`."""
        from ser_batch.network import head_training

        assert isinstance(self.network, Heads)
        try:
            head_training.start_from(network, self.network, labels=labels, known=self.model.labels)
        except ValueError as error:
            raise ModelError(
                f"{self.model.folder}: {error}; this version builds heads otherwise. Train that model again, or leave "
                "--init out"
            ) from error

    def check_spec(self, spec: AnyFeatureSpec) -> None:
        """Refuse features that the network does not know."""
        learned = self.model.feature_spec
        if learned.digest() == spec.digest():
            return
        own, given = learned.to_dict(), spec.to_dict()
        if isinstance(learned, EncoderSpec):
            what = f"embeddings of {spec.encoder}" if isinstance(spec, EncoderSpec) else "MFCCs"
            raise InputError(
                f"the features are {what}, --init {self.name} learned from embeddings of {learned.encoder} (SHA-256 "
                f"{learned.sha256[:16]}); featurize again: ser-batch featurize AUDIO --features {learned.encoder} "
                "--out OTHER, with the labels as before"
            )
        differing = [
            f"{name} is {given.get(name)!r} and was {own[name]!r}" for name in own if given.get(name) != own[name]
        ]
        preset = next((name for name, known in PRESETS.items() if known == learned), None)
        way_out = (
            f"featurize again: ser-batch featurize AUDIO --preset {preset} --out OTHER, with the labels as before"
            if preset
            else "no preset of this version computes what it learned from, so choose another --init"
        )
        raise InputError(
            f"the features are of another spec than --init {self.name} learned from: {'; '.join(differing)}; {way_out}"
        )

    def record(self) -> Initial:
        """Return what model.json keeps of it, and of what it started from itself."""
        own = self.model.schema
        return Initial(
            model_id=own.model_id,
            recipe=own.recipe,
            labels=own.labels,
            license=own.license,
            training=own.training,
            init=own.init,
        )

    def seen_corpora(self, rows: pl.DataFrame) -> tuple[str, ...]:
        """Return the corpora and datasets of rows that the model, or one that it started from, learned from."""
        # Which recordings these were is not known, so it goes by names: of datasets, of corpora, of what licenses are
        # of.
        seen: set[str] = set()
        licenses: set[str] = set()
        record: Initial | None = self.record()
        while record:
            seen.update(record.training.datasets, record.training.corpora)
            licenses.add(record.license.lower())
            record = record.init
        corpora, datasets = (set(rows[column].drop_nulls()) for column in ("corpus", "dataset"))
        # as a word: RESD is not ESD
        licensed = {
            corpus
            for corpus in corpora
            if any(re.search(rf"(?<!\w){re.escape(corpus)}(?!\w)", license) for license in licenses)
        }
        return tuple(sorted((corpora | datasets) & seen | licensed))


def load_start(options: TrainOptions) -> Start | None:
    """Load what `options.init` names; None where it names nothing."""
    if options.init is None:
        return None
    model = find_model(options.init, option="--init")
    if model.folder.resolve() == options.out.resolve():
        raise UsageError(f"--init {options.init}: the new model would take its place; choose another --out")
    recipe = model.schema.recipe
    recipes = (*RECIPES, HEAD_RECIPE)
    if model.estimator != "network" or recipe not in recipes:
        raise UsageError(
            f"--init {options.init}: a model of {recipe or model.estimator}; expected a network of the recipe "
            f"{' or '.join(recipes)}"
        )
    if options.recipe not in (None, recipe):
        raise UsageError(
            f"--init {options.init} is a network of the recipe {recipe}, --recipe says {options.recipe}; leave "
            "--recipe out, or name another model"
        )
    if options.normalize not in (None, model.schema.normalize):
        raise UsageError(
            f"--init {options.init} is normalized by {model.schema.normalize}, --normalize says {options.normalize}; "
            "leave --normalize out, or name another model"
        )
    network = model.head_model().heads if model.is_head_model else model.network()
    return Start(INSTALLED_MODELS.name_of(model.folder) or model.folder.resolve().name, model, network)


def with_inherited(license: str, start: Start | None) -> str:
    """Return the license of a model whose own corpora have `license`: what it started from is still in it."""
    inherited = start.model.schema.license if start else ""
    if license in inherited:
        return inherited
    return license if inherited in license else f"{inherited}; {license}"
