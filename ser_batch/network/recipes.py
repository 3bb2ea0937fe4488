"""Recipes of networks and heads: their hyperparameters, chosen as docs/results.md tells."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes of the MFCCs of a training batch, each drawn anew for every segment."""

    # share of the segments that noise is added to, and the least and most dB that their mean power exceeds it by
    noise_share: float
    noise_db: tuple[float, float]
    level_db: float  # standard deviation of a gain
    # most that the mel axis is stretched or squeezed, as a share (vocal tract length perturbation, Jaitly & Hinton
    # 2013)
    warp: float
    shift: int  # most frames that the segment is moved, earlier or later
    # most frames of each of two masked stretches, and most masked neighbouring coefficients (SpecAugment, Park et al.
    # 2019)
    mask_frames: int
    mask_coefficients: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained."""

    epochs: int  # passes over the training segments, each in one of its variants
    batch: int  # segments
    # the largest; it falls to 0 along a cosine, after a twentieth of all steps of rise where there is weight decay
    learning_rate: float
    weight_decay: float = 0.0  # decoupled (Loshchilov & Hutter 2019), with the optimizer Muon; 0.0 is plain Adam
    label_smoothing: float = 0.0  # share of the target spread over all labels (Szegedy et al. 2016)
    # both parameters of the Beta distribution that mixes two segments and their labels (Zhang et al. 2018); 0.0 is none
    mixup: float = 0.0
    augmentation: Augmentation | None = None  # changes of the MFCCs, or None
    # of several corpora, the share of the segments of a batch that are filled up with others of the same speaker and
    # label, and cut anywhere, as windows of a call are
    joined_share: float = 0.0
    # of models that are normalized by speaker, the share of the segments of a batch that are scaled by what they hold
    # themselves, as where there is no other speech of the speaker
    alone_share: float = 0.0
    members: int = 1  # networks whose probabilities are averaged; each is watched on a development part of its own
    has_development: bool = False  # whether a part of the training recordings is set apart for the temperature
    # of several corpora, each fills a share of an epoch in proportion to its number of segments to the first power, and
    # in it each label in proportion to its number to the second: 1 is as they come, 0 is the same for all. One corpus
    # is always trained on as it comes
    corpus_power: float = 0.0
    label_power: float = 0.0

    @property
    def tuning(self) -> "Recipe":
        """How a network of this recipe goes on from one that is trained already."""
        # A lower rate: at the full one the first steps, taken while the output layer knows nothing of its new labels,
        # may undo what the network came with (Kumar et al. 2022). Fewer epochs, as it has most of the way behind it,
        # and more of them learn a few hundred segments by heart. Half the batch: a table of 40 segments then gives two
        # steps an epoch instead of one.
        # Chosen on one trial with one seed, so that differences of .03 decide nothing: recipe published, from RAVDESS
        # to 40 segments in new words, tried on 320 segments of other speakers. From nothing UAR .52, loss 1.81; these
        # numbers .57, 1.15; after 30 epochs .49, 1.14. In batches of 8 for 30 epochs: a tenth of the rate .46, 1.17,
        # right on 62 % of its own training segments; the full rate .57, 1.68, as often right but far too sure.
        return dataclasses.replace(
            self, epochs=TUNING_EPOCHS, learning_rate=self.learning_rate * TUNING_RATE_SHARE, batch=self.batch // 2
        )


TUNING_EPOCHS = 50
TUNING_RATE_SHARE = 0.3

RECIPES: Mapping[str, Recipe] = {
    # the published method: Adam on categorical cross-entropy, 100 epochs
    "published": Recipe(epochs=100, batch=32, learning_rate=1e-3),
    "robust": Recipe(
        epochs=200,
        batch=32,
        learning_rate=4e-3,
        weight_decay=0.05,
        label_smoothing=0.1,
        mixup=0.2,
        augmentation=Augmentation(
            noise_share=0.5,
            noise_db=(0.0, 25.0),
            level_db=2.5,
            warp=0.12,
            shift=20,
            mask_frames=12,
            mask_coefficients=3,
        ),
        joined_share=0.25,
        alone_share=0.3,
        members=2,
        has_development=True,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """How heads on embeddings are built and trained."""

    # passes over the training segments, each in one of its variants; segments per step
    epochs: int
    batch: int
    # of AdamW (Loshchilov & Hutter 2019); the rate falls to 0 along a cosine
    learning_rate: float
    weight_decay: float
    label_smoothing: float  # share of the target spread over all labels
    hidden: int  # width of the hidden layer
    # share of the numbers that are left out
    input_dropout: float
    hidden_dropout: float
    references: tuple[str, ...]  # what embeddings are taken relative to, see `network.heads`
    members: int  # heads per reference whose log-probabilities are averaged
    # least and most share of neutral speech in a reference; each epoch draws it anew for each archive and speaker
    neutral_shares: tuple[float, float]
    archive_segments: int  # segments that the reference of an archive is the mean of
    channel_segments: tuple[int, ...]  # those of a channel, one of these numbers each time
    # with --init, penalty on the squared distance from the weights it starts from, for 100 new segments; with more of
    # them it is less in proportion
    near: float
    # see `Recipe`; labels count the same in one corpus, too
    corpus_power: float = 0.0
    label_power: float = 0.0


HEAD = HeadRecipe(
    epochs=14,
    batch=128,
    learning_rate=1e-3,
    weight_decay=0.05,
    label_smoothing=0.1,
    hidden=64,
    input_dropout=0.3,
    hidden_dropout=0.5,
    references=("archive", "channel", "none"),
    members=5,
    neutral_shares=(0.05, 1.0),
    archive_segments=240,
    channel_segments=(12, 24, 48),
    near=0.01,
)
