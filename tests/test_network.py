"""The networks: what goes in and out, that the same seed gives the same numbers, and that NumPy gives Keras's."""

import json
import zipfile

import keras
import numpy as np
import pytest

from ser_batch.bundle import shipped
from ser_batch.errors import BundleError
from ser_batch.network import inference, training


@pytest.fixture(scope="module")
def model():
    training.set_seed(0)
    return training.build("seed", 174, 40, 8)


def test_probabilities_do_not_depend_on_how_many_come_at_once(model):
    x = np.random.default_rng(0).normal(size=(70, 174, 40)).astype(np.float32)
    together = training.predict(model, x)
    assert together.shape == (70, 8)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    alone = np.concatenate([training.predict(model, x[i : i + 1]) for i in (0, 63, 64, 69)])
    np.testing.assert_array_equal(alone, together[[0, 63, 64, 69]])


def test_the_network_is_small_and_takes_the_published_input(model):
    assert model.input_shape == (None, 174, 40)
    assert model.count_params() < 1_000_000


def test_training_learns_and_repeats():
    random = np.random.default_rng(1)
    y = np.arange(96) % 2
    x = random.normal(size=(96, 174, 40)).astype(np.float32) + y[:, None, None] * np.float32(0.5)

    def fitted(epochs):
        losses = []
        training.set_seed(3)
        model = training.build("seed", 174, 40, 2)
        training.fit(
            model, x, y, n_labels=2, epochs=epochs, seed=3, on_epoch=lambda _, logs: losses.append(logs["loss"])
        )
        return losses, training.predict(model, x)

    losses, p = fitted(30)
    assert losses[-1] < losses[0] / 2
    assert (p.argmax(axis=1) == y).mean() > 0.9
    losses, p = fitted(2)
    again, p_again = fitted(2)
    assert losses == again
    np.testing.assert_array_equal(p, p_again)


def test_nothing_is_compiled_after_the_first_epoch():
    from jax import monitoring

    x = np.zeros((70, 174, 40), dtype=np.float32)  # two whole batches and a rest
    model = training.build("seed", 174, 40, 2)
    compiled = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    counts = []

    def on_epoch(epoch, logs):
        training.predict(model, x[:epoch])  # another number of rows each time
        counts.append(len(compiled))

    training.fit(model, x, np.arange(70) % 2, n_labels=2, epochs=4, seed=0, on_epoch=on_epoch)
    monitoring.clear_event_listeners()
    assert counts[0] > 0, "the listener hears nothing, so this test would prove nothing"
    assert counts[1:] == [counts[0]] * 3


def with_random_statistics(model):
    """Move batch normalisation away from mean 0 and variance 1, where a forgotten term would not show."""
    random = np.random.default_rng(5)
    model.set_weights(
        [weight + random.uniform(0.1, 0.5, weight.shape) * (weight.ndim == 1) for weight in model.get_weights()]
    )
    return model


@pytest.mark.parametrize("shape", [(174, 40, 8), (173, 13, 2)])
def test_numpy_gives_what_keras_gives(shape, tmp_path):
    n_frames, n_mfcc, n_labels = shape
    training.set_seed(4)
    model = with_random_statistics(training.build("seed", n_frames, n_mfcc, n_labels))
    training.save(model, tmp_path / "network.keras")
    x = np.random.default_rng(0).normal(size=(21, n_frames, n_mfcc)).astype(np.float32)
    expected = training.predict(model, x)
    found = inference.load(tmp_path / "network.keras").predict(x)
    assert np.ptp(expected, axis=0).max() > 0.01, "all rows are alike, so this test would prove little"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_normalisation_is_not_folded_into_a_convolution_that_others_use(tmp_path):
    inputs = keras.Input((11, 3), name="mfcc")
    normal = keras.layers.BatchNormalization(name="before")(inputs)
    convolved = keras.layers.Conv1D(4, 4, padding="same", use_bias=False, name="convolution")(normal)
    both = keras.layers.Concatenate(name="both")(
        [convolved, keras.layers.BatchNormalization(name="after")(convolved)],
    )
    mean = keras.layers.GlobalAveragePooling1D(name="mean")(both)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="probabilities")(mean))
    training.save(with_random_statistics(model), tmp_path / "network.keras")
    x = np.random.default_rng(0).normal(size=(5, 11, 3)).astype(np.float32)
    found = inference.load(tmp_path / "network.keras").predict(x)
    np.testing.assert_allclose(found, training.predict(model, x), atol=1e-5)
    assert inference.load(tmp_path / "network.keras").predict(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", list(shipped()))
def test_numpy_gives_what_keras_gives_for_the_shipped_networks(name):
    path = shipped()[name] / "network.keras"
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    x = np.random.default_rng(0).normal(size=(9, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(inference.load(path).predict(x), training.predict(model, x), atol=1e-5)


def test_a_saved_network_is_the_one_that_was_trained(model, tmp_path):
    path = tmp_path / "network.keras"
    training.save(model, path)
    loaded = inference.load(path)
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
    with pytest.raises(BundleError, match=r"network\.keras: .*'Lambda' is unknown"):
        inference.load(path)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv1D(3, 3, padding="causal", use_bias=False),
        keras.layers.Conv1D(3, 3, padding="same", strides=2, use_bias=False),
        keras.layers.Conv1D(3, 3, padding="same"),
        keras.layers.ReLU(max_value=6),
        keras.layers.MaxPooling1D(2, strides=1),
        keras.layers.Dense(3, activation="relu"),
    ],
)
def test_a_setting_that_numpy_would_get_wrong_is_refused(layer, tmp_path):
    with pytest.raises(BundleError, match=r"network\.keras: .* is unknown; upgrade"):
        inference.load(saved(layer, tmp_path))


@pytest.mark.parametrize("content", [b"PK\x03\x04 not a zip", b""])
def test_a_broken_network_file_is_a_bundle_error(content, tmp_path):
    path = tmp_path / "network.keras"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="train again"):
        inference.load(path)


def test_a_network_file_without_weights_is_a_bundle_error(model, tmp_path):
    training.save(model, tmp_path / "network.keras")
    with zipfile.ZipFile(tmp_path / "network.keras") as whole, zipfile.ZipFile(tmp_path / "cut.keras", "w") as cut:
        cut.writestr("config.json", whole.read("config.json"))
    with pytest.raises(BundleError, match="train again"):
        inference.load(tmp_path / "cut.keras")
