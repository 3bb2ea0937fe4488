"""The networks: what goes in and out, that a seed gives the same numbers, that NumPy gives Keras's; augmentation."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile

import keras
import msgspec
import numpy as np
import pytest
import scipy.fft
from helpers import jax_events
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.config.features import FeatureSpec
from ser_batch.errors import ModelError
from ser_batch.network import architectures, numpy_inference, optimization
from ser_batch.network.augmentation import N_WARPS, augmented, masked, warp_matrices
from ser_batch.network.keras_file import read_saved
from ser_batch.network.numpy_inference import convolution
from ser_batch.network.recipes import RECIPES, Augmentation
from ser_batch.storage.installed import INSTALLED_MODELS

# Compiling a network takes longer than all that is done with it, so most of the tests have these shapes in common.
N_FRAMES, N_MFCC, N_LABELS = 32, 40, 2
EPOCHS = 10


@pytest.fixture(scope="module", params=["published", "robust"])
def model(request):
    optimization.set_seed(0)
    return architectures.build(request.param, N_FRAMES, N_MFCC, N_LABELS)


def test_probabilities_do_not_depend_on_how_many_come_at_once(model):
    x = np.random.default_rng(0).normal(size=(70, N_FRAMES, N_MFCC)).astype(np.float32)
    together = optimization.predict(model, x)
    assert together.shape == (70, N_LABELS)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    alone = np.concatenate([optimization.predict(model, x[i : i + 1]) for i in (0, 63, 64, 69)])
    np.testing.assert_array_equal(alone, together[[0, 63, 64, 69]])


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_network_is_small_and_takes_the_published_input(name, tmp_path):
    model = architectures.build(name, 174, 40, 8, members=RECIPES[name].members)
    assert model.input_shape == (None, 174, 40)
    assert model.output_shape == (None, 8)
    assert model.count_params() <= 3_000_000
    optimization.save(model, tmp_path / "network.keras")
    assert (tmp_path / "network.keras").stat().st_size <= 5_000_000


# --- training -----------------------------------------------------------------------------------------------------


class Made:
    """Noise, with something added where the label is 1; and which segments were asked for, in their order."""

    is_masked = False

    def __init__(self, n: int, n_frames: int = N_FRAMES, n_mfcc: int = N_MFCC) -> None:
        self.y = np.arange(n) % 2
        noise = np.random.default_rng(1).normal(size=(n, n_frames, n_mfcc))
        self.x = (noise + self.y[:, None, None] * 0.5).astype(np.float32)
        self.asked: list[tuple[list[int], float]] = []

    def __len__(self) -> int:
        return len(self.y)

    def order(self, generator):
        return generator.permutation(len(self.y))

    def batch(self, numbers, generator):
        self.asked.append((numbers.tolist(), generator.random()))
        return self.x[numbers], np.eye(2, dtype=np.float32)[self.y[numbers]]


def fitted(name, seed=3, n=70, epochs=EPOCHS):
    """Train; return the loss of each epoch, how much was compiled by its end, and what the network says in the end."""
    segments = Made(n)  # eight whole batches and a rest
    optimization.set_seed(seed)
    model = architectures.build(name, N_FRAMES, N_MFCC, N_LABELS)
    losses, counts = [], []

    def on_epoch(epoch, logs):
        losses.append((epoch, logs["loss"]))
        optimization.predict(model, segments.x[:epoch])  # another number of rows each time
        counts.append(events["backend_compile_duration"])

    recipe = dataclasses.replace(RECIPES[name], batch=8)
    with jax_events() as events:
        optimization.fit(model, segments, recipe, epochs=epochs, seed=seed, on_epoch=on_epoch)
    return losses, counts, optimization.predict(model, segments.x)


@pytest.fixture(scope="module")
def trained():
    """What `fitted` returns for a recipe."""
    return functools.cache(fitted)


# the recipe robust takes ten seconds to compile
QUICK = ["published", pytest.param("robust", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", QUICK)
def test_training_learns(name, trained):
    losses, _, p = trained(name)
    assert [epoch for epoch, _ in losses] == list(range(1, EPOCHS + 1))
    assert losses[-1][1] < losses[0][1]
    assert (p.argmax(axis=1) == Made(70).y).mean() > 0.9


@pytest.mark.parametrize("name", QUICK)
def test_training_repeats_bit_for_bit_and_hangs_on_the_seed(name, trained):
    (losses, _, p), (again, _, p_again), (_, _, p_other) = trained(name), fitted(name), fitted(name, seed=4)
    assert losses == again
    np.testing.assert_array_equal(p, p_again)
    assert np.abs(p - p_other).max() > 1e-3


@pytest.mark.parametrize("name", QUICK)
def test_nothing_is_compiled_after_the_first_epoch(name, trained):
    _, counts, _ = trained(name)
    assert counts[0] > 0, "the listener hears nothing, so this test would prove nothing"
    assert counts[1:] == [counts[0]] * (EPOCHS - 1)


@pytest.mark.parametrize("name", QUICK)
def test_training_of_another_length_is_not_compiled_anew(name, trained):
    trained(name)
    with jax_events() as events:
        fitted(name, n=93, epochs=2)
    assert events["cache_hits"] > 0, "the listener hears nothing, so this test would prove nothing"
    assert events["cache_misses"] == 0


STEPS = (1, 2, 19, 20, 39, 97, 1234, 100_003)


@pytest.mark.parametrize("first", [None, 5e-5])
@pytest.mark.parametrize("steps", STEPS)
def test_the_learning_rate_is_that_of_keras(steps, first):
    import jax

    rate, rise = 1e-3, max(1, steps // 20)
    theirs = keras.optimizers.schedules.CosineDecay(rate, steps)
    if first is not None:
        theirs = keras.optimizers.schedules.CosineDecay(
            first, max(1, steps - rise), warmup_target=rate, warmup_steps=rise
        )
    ours = optimization.CosineDecay(rate, steps, first=first)
    variables = ours.made_variable(keras.optimizers.Adam(ours)).variables[-3:]

    @jax.jit
    def ours_of(step, values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return ours(step)

    drawn = np.random.default_rng(0).integers(0, steps, 100)
    values, theirs_of = [variable.value for variable in variables], jax.jit(theirs)
    for step in {0, min(1, steps - 1), min(rise, steps - 1), steps - 1, *drawn.tolist()}:
        assert ours_of(step, values) == theirs_of(step), step


WEIGHTS = """
from ser_batch.network import keras_settings
from ser_batch.network.keras_setup import keras
from test_network import *

class Constant(keras.optimizers.schedules.CosineDecay):
    def __init__(self, rate, steps, *, first=None):
        rise = max(1, steps // 20)
        if first is None:
            super().__init__(rate, steps)
        else:
            super().__init__(first, max(1, steps - rise), warmup_target=rate, warmup_steps=rise)

    def made_variable(self, optimizer):
        return optimizer

def weights(name):
    optimization.set_seed(3)
    model = architectures.build(name, N_FRAMES, N_MFCC, N_LABELS)
    recipe = dataclasses.replace(RECIPES[name], batch=8)
    optimization.fit(model, Made(93), recipe, epochs=3, seed=3, on_epoch=lambda epoch, logs: None)
    return model.get_weights()

with keras_settings.fixed_settings():
    ours = [weights(name) for name in RECIPES]
    optimization.CosineDecay = Constant
    for name, model in zip(RECIPES, ours):
        for one, other in zip(model, weights(name), strict=True):
            np.testing.assert_array_equal(one, other)
"""


@pytest.mark.slow
def test_variable_lengths_change_no_weight(root):
    """In a process of its own: networks that are compiled without optimizations differ in their last bits."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "KERAS_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests")])
    subprocess.run([sys.executable, "-c", WEIGHTS], env=environment, check=True)


def test_weight_decay_shrinks_kernels_and_neither_biases_nor_normalizations():
    layers = [keras.layers.Conv1D(2, 3), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    variables = keras.Sequential([keras.Input((5, 3)), *layers]).trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    optimizer = optimization._optimizer(RECIPES["robust"], 100)
    optimizer.apply([np.zeros(variable.shape, np.float32) for variable in variables], variables)
    shrunk = {variable.name for variable in variables if np.asarray(variable).max() < 1}
    assert {variable.name for variable in variables} - shrunk == {"bias", "gamma", "beta"}
    assert shrunk == {"kernel"}


def batches(recipe, seed, epochs, n_segments=70):
    """What a small network's training asks for: for each epoch, segments and what was drawn, batch by batch."""
    inputs = keras.Input((5, 3), name="mfcc")
    mean = keras.layers.GlobalAveragePooling1D(name="mean")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="probabilities")(mean))
    segments = Made(n_segments, 5, 3)
    asked = []
    n_batches = max(1, n_segments // recipe.batch)
    # Keras looks at one more batch before the first epoch
    optimization.fit(
        model, segments, recipe, epochs=epochs, seed=seed, on_epoch=lambda *_: asked.append(segments.asked[-n_batches:])
    )
    assert len(segments.asked) <= 1 + n_batches * epochs
    return asked


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_epoch_has_each_segment_once_and_its_rest_stands_elsewhere_in_the_next(name):
    epochs = batches(RECIPES[name], seed=0, epochs=5)
    orders = [[number for numbers, _ in epoch for number in numbers] for epoch in epochs]
    for epoch, order in zip(epochs, orders, strict=True):
        assert [len(numbers) for numbers, _ in epoch] == [32, 32]  # one size, so that nothing is compiled again
        assert len(set(order)) == 64
    assert len({tuple(order) for order in orders}) == 5
    assert set().union(*orders) == set(range(70))


def test_a_batch_hangs_on_seed_epoch_and_number_only():
    recipe = RECIPES["published"]
    epochs = batches(recipe, seed=5, epochs=3)
    assert batches(recipe, seed=5, epochs=2) == epochs[:2]
    assert batches(recipe, seed=6, epochs=2) != epochs[:2]
    drawn = [value for epoch in epochs for _, value in epoch]
    assert len(set(drawn)) == len(drawn)
    # whatever else the batches are made of
    assert [value for epoch in batches(recipe, seed=5, epochs=3, n_segments=90) for _, value in epoch] == drawn


def test_fewer_segments_than_a_batch_are_one_batch():
    epochs = batches(RECIPES["robust"], seed=0, epochs=2, n_segments=7)
    assert [[sorted(numbers) for numbers, _ in epoch] for epoch in epochs] == [[list(range(7))]] * 2


# --- several networks as one --------------------------------------------------------------------------------------


def test_a_joined_network_gives_the_mean_of_its_members():
    networks = []
    for seed in (1, 2):
        optimization.set_seed(seed)
        networks.append(with_random_statistics(architectures.build("robust", N_FRAMES, N_MFCC, N_LABELS)))
    x = np.random.default_rng(0).normal(size=(9, N_FRAMES, N_MFCC)).astype(np.float32)
    one, other = (optimization.predict(network, x) for network in networks)
    assert np.abs(one - other).max() > 0.05, "the members agree, so this test would prove nothing"
    joined = architectures.join("robust", networks)
    np.testing.assert_allclose(optimization.predict(joined, x), (one + other) / 2, atol=1e-6)
    names = [layer.name for layer in joined.layers]
    assert len(set(names)) == len(names)
    assert joined.count_params() == sum(network.count_params() for network in networks)


def test_one_network_is_joined_to_itself():
    model = architectures.build("robust", N_FRAMES, N_MFCC, N_LABELS)
    assert architectures.join("robust", [model]) is model


@pytest.mark.parametrize(("name", "members"), [("published", 1), ("robust", 1), ("robust", 2)])
def test_a_configuration_does_not_hang_on_what_was_built_before(name, members):
    configuration = architectures.build(name, N_FRAMES, N_MFCC, N_LABELS, members=members).get_config()
    keras.layers.Dense(3)
    architectures.build("published", N_FRAMES, N_MFCC, N_LABELS)
    again = architectures.build(name, N_FRAMES, N_MFCC, N_LABELS, members=members).get_config()
    assert json.dumps(again) == json.dumps(configuration)


# --- NumPy instead of Keras ---------------------------------------------------------------------------------------


def with_random_statistics(model):
    """Move batch normalisation away from mean 0 and variance 1, where a forgotten term would not show."""
    random = np.random.default_rng(5)
    model.set_weights(
        [weight + random.uniform(0.1, 0.5, weight.shape) * (weight.ndim == 1) for weight in model.get_weights()]
    )
    return model


@pytest.mark.parametrize(
    ("name", "members", "shape"),
    [
        ("published", 1, (174, 40, 8)),
        ("published", 1, (173, 13, 2)),
        ("robust", 1, (174, 40, 8)),
        ("robust", 2, (173, 13, 2)),
    ],
)
def test_numpy_gives_what_keras_gives(name, members, shape, tmp_path):
    n_frames, n_mfcc, n_labels = shape
    optimization.set_seed(4)
    model = with_random_statistics(architectures.build(name, n_frames, n_mfcc, n_labels, members=members))
    optimization.save(model, tmp_path / "network.keras")
    x = np.random.default_rng(0).normal(size=(21, n_frames, n_mfcc)).astype(np.float32)
    expected = optimization.predict(model, x)
    found = numpy_inference.load_network(tmp_path / "network.keras").predict(x)
    assert np.ptp(expected, axis=0).max() > 0.01, "all rows are alike, so this test would prove little"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def ended(inputs, x):
    """A model that ends in probabilities of what comes out of a layer under test."""
    mean = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="probabilities")(mean))


@pytest.mark.parametrize("n_frames", [10, 11])
@pytest.mark.parametrize(("width", "strides"), [(1, 2), (4, 2), (5, 2), (4, 3), (2, 3), (7, 20)])
def test_numpy_steps_over_frames_as_keras_does(n_frames, width, strides, tmp_path):
    inputs = keras.Input((n_frames, 2), name="mfcc")
    convolution = keras.layers.Conv1D(4, width, strides=strides, padding="same", use_bias=False, name="convolution")
    optimization.set_seed(0)
    model = ended(inputs, convolution(inputs))
    optimization.save(model, tmp_path / "network.keras")
    x = np.random.default_rng(0).normal(size=(5, n_frames, 2)).astype(np.float32)
    found = numpy_inference.load_network(tmp_path / "network.keras").predict(x)
    np.testing.assert_allclose(found, optimization.predict(model, x), atol=1e-6)


@pytest.mark.parametrize("n_frames", [1, 4, 30])
@pytest.mark.parametrize(("width", "step"), [*((width, 1) for width in range(1, 11)), (7, 2), (8, 3)])
def test_fewer_multiplications_give_the_same_convolution(n_frames, width, step):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, n_frames, 4)).astype(np.float32)
    kernel = generator.normal(size=(width, 4, 5)).astype(np.float32)

    found = convolution(kernel, step)(x)

    n_out = -(-n_frames // step)
    missing = max(0, (n_out - 1) * step + width - n_frames)
    padded = np.pad(x.astype(np.float64), ((0, 0), (missing // 2, missing), (0, 0)))
    expected = sum(padded[:, tap : tap + n_out * step : step][:, :n_out] @ kernel[tap] for tap in range(width))
    # float32 keeps 7 digits; what goes to the points and back loses up to 2 of them
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_a_stride_that_would_fill_the_memory_is_refused(tmp_path):
    inputs = keras.Input((4, 2), name="mfcc")
    convolved = keras.layers.Conv1D(4, 2, strides=10**9, padding="same", use_bias=False)(inputs)
    optimization.save(ended(inputs, convolved), tmp_path / "network.keras")
    tracemalloc.start()
    with pytest.raises(ModelError, match="8000000000 numbers at a time"):
        numpy_inference.load_network(tmp_path / "network.keras")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_weight_at_its_limit_is_no_warning(tmp_path):
    inputs = keras.Input((4, 2), name="mfcc")
    model = ended(inputs, keras.layers.Dense(3, activation="sigmoid", name="excitation")(inputs))
    optimization.save(model, tmp_path / "network.keras")
    x = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32) * 1e6
    found = numpy_inference.load_network(tmp_path / "network.keras").predict(x)
    np.testing.assert_allclose(found, optimization.predict(model, x), atol=1e-6)


def test_a_normalisation_is_not_folded_into_a_convolution_that_others_use(tmp_path):
    inputs = keras.Input((11, 3), name="mfcc")
    normal = keras.layers.BatchNormalization(name="before")(inputs)
    convolved = keras.layers.Conv1D(4, 4, padding="same", use_bias=False, name="convolution")(normal)
    both = keras.layers.Concatenate(name="both")(
        [convolved, keras.layers.BatchNormalization(name="after")(convolved)],
    )
    mean = keras.layers.GlobalAveragePooling1D(name="mean")(both)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="probabilities")(mean))
    optimization.save(with_random_statistics(model), tmp_path / "network.keras")
    x = np.random.default_rng(0).normal(size=(5, 11, 3)).astype(np.float32)
    found = numpy_inference.load_network(tmp_path / "network.keras").predict(x)
    np.testing.assert_allclose(found, optimization.predict(model, x), atol=1e-5)
    assert numpy_inference.load_network(tmp_path / "network.keras").predict(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", ["fast"])
def test_the_embedding_is_what_the_last_layers_take(name):
    path = INSTALLED_MODELS[name] / "network.keras"
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    x = np.random.default_rng(0).normal(size=(9, *model.input_shape[1:])).astype(np.float32)
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense) and "_probabilities" in layer.name]
    expected = keras.Model(model.inputs, [layer.input for layer in last]).predict_on_batch(x)
    np.testing.assert_allclose(
        numpy_inference.load_network(path).embed(x), np.concatenate(expected, axis=1), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", ["fast"])
def test_numpy_gives_what_keras_gives_for_the_shipped_networks(name):
    path = INSTALLED_MODELS[name] / "network.keras"
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    x = np.random.default_rng(0).normal(size=(9, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(numpy_inference.load_network(path).predict(x), optimization.predict(model, x), atol=1e-5)


@pytest.mark.parametrize("name", ["fast"])
def test_a_saved_network_is_built_anew_without_its_description(name):
    path = INSTALLED_MODELS[name] / "network.keras"
    configuration, weights = read_saved(path)

    network = architectures.rebuild(configuration, weights)

    x = np.random.default_rng(0).normal(size=(3, *network.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(
        numpy_inference.load_network(path).predict(x), optimization.predict(network, x), atol=1e-5
    )
    with pytest.raises(ValueError, match="recipe 'other'"):
        architectures.rebuild(configuration | {"name": "other"}, weights)
    missing = next(layer for layer, own in weights.items() if own and "probabilities" not in layer)
    with pytest.raises(ValueError, match=f"{missing} is missing"):
        architectures.rebuild(configuration, {layer: own for layer, own in weights.items() if layer != missing})


def test_a_saved_network_is_the_one_that_was_trained(model, tmp_path):
    path = tmp_path / "network.keras"
    optimization.save(model, path)
    loaded = numpy_inference.load_network(path)
    assert loaded.configuration == json.loads(json.dumps(model.get_config()))
    assert len(loaded.weights) == len(model.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(loaded.weights, model.get_weights(), strict=True))
    # weights of 4 bytes and little else: no optimizer
    assert path.stat().st_size < 4 * model.count_params() * 1.2 + 100_000


def saved(layer, folder):
    inputs = keras.Input((4, 2), name="mfcc")
    path = folder / "network.keras"
    keras.Model(inputs, layer(inputs)).save(path)
    return path


def test_code_in_a_network_file_is_refused(tmp_path):
    path = saved(keras.layers.Lambda(lambda x: x * 2), tmp_path)
    with pytest.raises(ModelError, match=r"network\.keras: .*'Lambda' is unknown"):
        numpy_inference.load_network(path)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv1D(3, 3, padding="causal", use_bias=False),
        keras.layers.Conv1D(3, 3, padding="same", dilation_rate=2, use_bias=False),
        keras.layers.Conv1D(3, 3, padding="same"),
        keras.layers.ReLU(max_value=6),
        keras.layers.MaxPooling1D(2, strides=1),
        keras.layers.Dense(3, activation="selu"),
        keras.layers.Dense(3, use_bias=False),
        keras.layers.BatchNormalization(center=False),
        keras.layers.GlobalMaxPooling1D(keepdims=True),
    ],
)
def test_a_setting_that_numpy_would_get_wrong_is_refused(layer, tmp_path):
    with pytest.raises(ModelError, match=r"network\.keras: .* is unknown; upgrade"):
        numpy_inference.load_network(saved(layer, tmp_path))


@pytest.mark.parametrize("content", [b"PK\x03\x04 not a zip", b""])
def test_a_broken_network_file_is_a_model_error(content, tmp_path):
    path = tmp_path / "network.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="train again"):
        numpy_inference.load_network(path)


def test_a_network_file_without_weights_is_a_model_error(model, tmp_path):
    optimization.save(model, tmp_path / "network.keras")
    with zipfile.ZipFile(tmp_path / "network.keras") as whole, zipfile.ZipFile(tmp_path / "cut.keras", "w") as cut:
        cut.writestr("config.json", whole.read("config.json"))
    with pytest.raises(ModelError, match="train again"):
        numpy_inference.load_network(tmp_path / "cut.keras")


# --- changes of the MFCCs -----------------------------------------------------------------------------------------

NOTHING = Augmentation(noise_share=0, noise_db=(0, 0), level_db=0, warp=0, shift=0, mask_frames=0, mask_coefficients=0)
SMALL = FeatureSpec(n_mels=64, n_mfcc=20, n_frames=50)
n_frames_of_segments = st.lists(st.integers(1, SMALL.n_frames), min_size=1, max_size=5)
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=50, deadline=None)


def segments_of(counts, fill=None, spec=SMALL):
    """Segments with these numbers of frames, of random bands of about -30 dB or of `fill`, and padding."""
    counts = np.asarray(counts)
    log_mel = np.random.default_rng(0).normal(-30, 10, (len(counts), spec.n_frames, spec.n_mels))
    mfcc = scipy.fft.dct(log_mel, norm="ortho")[..., : spec.n_mfcc].astype(np.float32)
    if fill is not None:
        mfcc[:] = fill
    mfcc[np.arange(spec.n_frames) >= counts[:, None]] = 0
    return mfcc, counts


def change(counts, seed=0, fill=None, **settings_):
    mfcc, counts = segments_of(counts, fill)
    changes = dataclasses.replace(NOTHING, **settings_)
    return augmented(mfcc, counts, changes, SMALL, np.random.default_rng(seed))


@quick
@given(n_frames_of_segments, seeds)
def test_no_change_is_none(counts, seed):
    mfcc, n_frames = segments_of(counts)
    before = mfcc.copy()
    out, n_out = augmented(mfcc, n_frames, NOTHING, SMALL, np.random.default_rng(seed))
    np.testing.assert_allclose(out, mfcc, atol=1e-3)
    np.testing.assert_array_equal(n_out, n_frames)
    np.testing.assert_array_equal(mfcc, before)


@quick
@given(n_frames_of_segments, seeds)
def test_whatever_is_changed_padding_is_zero_frames_fit_the_segment_and_the_seed_alone_decides(counts, seed):
    changes = RECIPES["robust"].augmentation
    assert changes is not None
    mfcc, n_frames = segments_of(counts)
    before = mfcc.copy()
    out, n_out = augmented(mfcc, n_frames, changes, SMALL, np.random.default_rng(seed))
    again, _ = augmented(mfcc, n_frames, changes, SMALL, np.random.default_rng(seed))
    other, _ = augmented(mfcc, n_frames, changes, SMALL, np.random.default_rng(seed + 1))
    assert out.dtype == np.float32
    assert out.shape == mfcc.shape
    assert ((n_out >= 1) & (n_out <= SMALL.n_frames)).all()
    assert not out[np.arange(SMALL.n_frames) >= n_out[:, None]].any()
    np.testing.assert_array_equal(out, again)
    assert not np.array_equal(out, other)
    np.testing.assert_array_equal(mfcc, before)


@pytest.mark.parametrize("ratio_db", [0.0, 15.0])
def test_noise_adds_power_to_all_bands_as_far_below_the_segment_as_was_asked_for(ratio_db):
    spec = msgspec.structs.replace(SMALL, n_mfcc=SMALL.n_mels)  # all that the spectrum holds
    mfcc, counts = segments_of([50] * 20 + [25] * 20, spec=spec)
    changes = dataclasses.replace(NOTHING, noise_share=1, noise_db=(ratio_db, ratio_db))
    out, _ = augmented(mfcc, counts, changes, spec, np.random.default_rng(0))
    before, after = (10 ** (scipy.fft.idct(x.astype(np.float64), norm="ortho") / 10) for x in (mfcc, out))
    is_real = np.arange(spec.n_frames) < counts[:, None]
    added = (after - before)[is_real]
    assert (added > -1e-4 * before[is_real]).all()
    assert (added > 0).mean() > 0.99
    power, noise = ((x.sum(axis=2) * is_real).sum(axis=1) for x in (before, after - before))
    np.testing.assert_allclose(10 * np.log10(power / noise), ratio_db, atol=1.5)


def test_noise_is_added_to_a_share_of_the_segments_and_the_others_stay():
    counts = [50] * 400
    out, _ = change(counts, noise_share=0.25, noise_db=(0, 10))
    difference = np.abs(out - segments_of(counts)[0]).max(axis=(1, 2))
    assert ((difference < 1e-3) | (difference > 1)).all()
    assert (difference > 1).mean() == pytest.approx(0.25, abs=0.1)


def test_a_gain_is_in_the_first_coefficient_alone_and_as_large_as_it_is_in_every_band():
    counts = [50] * 400
    out, _ = change(counts, level_db=3)
    added = out - segments_of(counts)[0]
    np.testing.assert_allclose(added[:, :, 1:], 0, atol=1e-2)
    np.testing.assert_allclose(added, added[:, :1].repeat(50, axis=1), atol=1e-2)  # the same throughout a segment
    # as in tests/test_mfcc.py: what a gain of the samples does
    gains_db = added[:, 0, 0] / SMALL.n_mels**0.5
    assert gains_db.std() == pytest.approx(3, rel=0.15)
    assert gains_db.mean() == pytest.approx(0, abs=0.5)


def test_warps_are_the_identity_at_no_warp():
    np.testing.assert_allclose(warp_matrices(SMALL, 0.0), [np.eye(SMALL.n_mfcc)] * N_WARPS, atol=1e-6)
    np.testing.assert_allclose(warp_matrices(SMALL, 0.12)[N_WARPS // 2], np.eye(SMALL.n_mfcc), atol=1e-6)


@pytest.mark.parametrize("center", [12, 25, 40])
def test_a_warp_moves_a_peak_of_the_spectrum_along_the_mel_axis(center):
    spec = msgspec.structs.replace(SMALL, n_mfcc=SMALL.n_mels)  # all that the spectrum holds
    log_mel = np.exp(-0.5 * ((np.arange(spec.n_mels) - center) / 2.5) ** 2)
    warped = scipy.fft.dct(log_mel, norm="ortho") @ warp_matrices(spec, 0.2)
    bands = np.arange(spec.n_mels)
    for warp, peak in zip(np.linspace(-0.2, 0.2, N_WARPS), scipy.fft.idct(warped, norm="ortho", axis=1), strict=True):
        assert (bands * peak).sum() / peak.sum() == pytest.approx(center / (1 + warp), abs=0.1)
        assert peak.max() == pytest.approx(1, abs=0.1)


def test_each_segment_is_warped_by_itself():
    out, _ = change([50] * 60, warp=0.2, fill=np.linspace(-20, 20, SMALL.n_mfcc))
    assert 5 < len(np.unique(out[:, 0, 1].round(3))) <= N_WARPS


@quick
@given(st.integers(1, SMALL.n_frames), seeds)
def test_a_shift_leaves_out_first_frames_or_repeats_the_first(n, seed):
    mfcc, counts = segments_of([n])
    mfcc[0, :n] = np.arange(1, n + 1)[:, None]
    out, (n_out,) = augmented(mfcc, counts, dataclasses.replace(NOTHING, shift=7), SMALL, np.random.default_rng(seed))
    earlier = n - n_out if n_out < n else None
    found = out[0, :n_out, 0].round(3).tolist()
    if earlier:
        assert earlier <= 7
        assert found == list(range(1 + earlier, n + 1))
    else:
        later = found.count(1) - 1
        assert 0 <= later <= 7
        assert n_out == min(n + later, SMALL.n_frames)
        assert found == ([1] * later + list(range(1, n + 1)))[:n_out]


def drawn_masks(counts, **settings_):
    """For each of 300 seeds, what of each segment's real frames was set to 0."""
    scaled, counts = segments_of(counts)
    changes = dataclasses.replace(NOTHING, **settings_)
    for seed in range(300):
        out = masked(scaled, counts, changes, np.random.default_rng(seed))
        np.testing.assert_array_equal(out[out != 0], scaled[out != 0])
        np.testing.assert_array_equal(out, masked(scaled, counts, changes, np.random.default_rng(seed)))
        yield [(segment == 0)[:n] for segment, n in zip(out, counts, strict=True)]


def test_two_stretches_of_frames_at_most_are_masked_anywhere():
    n_masked = np.zeros(50)
    for long, short in drawn_masks([50, 3], mask_frames=6):
        for is_masked in (long, short):
            assert (is_masked == is_masked[:, :1]).all()  # whole frames
        edges = np.flatnonzero(np.diff(long[:, 0], prepend=False, append=False))
        assert len(edges) <= 4
        assert long[:, 0].sum() <= 12
        n_masked += long[:, 0]
    assert n_masked.min() > 0, "some frames are never masked"


def test_neighbouring_coefficients_are_masked_throughout_anywhere():
    n_masked = np.zeros(SMALL.n_mfcc)
    for long, short in drawn_masks([50, 3], mask_coefficients=4):
        for is_masked in (long, short):
            assert (is_masked == is_masked[:1]).all()
        edges = np.flatnonzero(np.diff(long[0], prepend=False, append=False))
        assert len(edges) <= 2
        assert long[0].sum() <= 4
        n_masked += long[0]
    assert n_masked.min() > 0, "some coefficients are never masked"


def test_masks_of_no_width_are_none():
    for long, short in drawn_masks([50, 3]):
        assert not long.any()
        assert not short.any()
