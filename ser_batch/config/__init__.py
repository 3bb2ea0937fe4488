"""The frozen settings that travel along the pipeline: how features are computed, how recordings are cut.

Everything that changes a value lives in one of these classes, is validated when it is made, and can be
written to JSON and compared. There is no global configuration.
"""

from ser_batch.config.encoder import AnyFeatureSpec, EncoderSpec, feature_spec_of
from ser_batch.config.job import Job, read_job
from ser_batch.config.options import (
    BASELINES,
    DEFAULT_RECIPE,
    HEAD_RECIPE,
    STAGE_INPUTS,
    STAGES,
    CorpusName,
    Estimator,
    FeaturizeOptions,
    Normalize,
    Options,
    RecipeName,
    RunOptions,
    ScoreOptions,
    SynthOptions,
    TrainOptions,
)
from ser_batch.config.places import is_remote, place
from ser_batch.config.prior import BALANCED, are_shares, check_prior, parse_prior, prior_text
from ser_batch.config.protocols import check_protocol, held_out_corpora, holds_out_corpora, speaker_folds
from ser_batch.config.raw import (
    EXAMPLE_RAW_FORMAT,
    MAX_CHANNELS,
    MAX_SAMPLING_RATE,
    MIN_SAMPLING_RATE,
    RAW_ENCODINGS,
    RawFormat,
)
from ser_batch.config.spec import PRESETS, FeatureSpec, Segmentation, SegmentMode, canonical_json
from ser_batch.config.variants import CLEAN, VARIANT_SETS, Change, Variants, changes, variant_names

__all__ = [
    "BALANCED",
    "BASELINES",
    "CLEAN",
    "DEFAULT_RECIPE",
    "EXAMPLE_RAW_FORMAT",
    "HEAD_RECIPE",
    "MAX_CHANNELS",
    "MAX_SAMPLING_RATE",
    "MIN_SAMPLING_RATE",
    "PRESETS",
    "RAW_ENCODINGS",
    "STAGES",
    "STAGE_INPUTS",
    "VARIANT_SETS",
    "AnyFeatureSpec",
    "Change",
    "CorpusName",
    "EncoderSpec",
    "Estimator",
    "FeatureSpec",
    "FeaturizeOptions",
    "Job",
    "Normalize",
    "Options",
    "RawFormat",
    "RecipeName",
    "RunOptions",
    "ScoreOptions",
    "SegmentMode",
    "Segmentation",
    "SynthOptions",
    "TrainOptions",
    "Variants",
    "are_shares",
    "canonical_json",
    "changes",
    "check_prior",
    "check_protocol",
    "feature_spec_of",
    "held_out_corpora",
    "holds_out_corpora",
    "is_remote",
    "parse_prior",
    "place",
    "prior_text",
    "read_job",
    "speaker_folds",
    "variant_names",
]
