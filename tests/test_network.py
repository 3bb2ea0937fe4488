"""The networks: what goes in and out, and that the same seed gives the same numbers."""

import keras
import numpy as np
import pytest

from ser_batch import network
from ser_batch.errors import BundleError


@pytest.fixture(scope="module")
def model():
    network.set_seed(0)
    return network.build("seed", 174, 40, 8)


def test_probabilities_do_not_depend_on_how_many_come_at_once(model):
    x = np.random.default_rng(0).normal(size=(70, 174, 40)).astype(np.float32)
    together = network.predict(model, x)
    assert together.shape == (70, 8)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    alone = np.concatenate([network.predict(model, x[i : i + 1]) for i in (0, 63, 64, 69)])
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
        network.set_seed(3)
        model = network.build("seed", 174, 40, 2)
        network.fit(
            model, x, y, n_labels=2, epochs=epochs, seed=3, on_epoch=lambda _, logs: losses.append(logs["loss"])
        )
        return losses, network.predict(model, x)

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
    model = network.build("seed", 174, 40, 2)
    compiled = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    counts = []

    def on_epoch(epoch, logs):
        network.predict(model, x[:epoch])  # another number of rows each time
        counts.append(len(compiled))

    network.fit(model, x, np.arange(70) % 2, n_labels=2, epochs=4, seed=0, on_epoch=on_epoch)
    monitoring.clear_event_listeners()
    assert counts[0] > 0, "the listener hears nothing, so this test would prove nothing"
    assert counts[1:] == [counts[0]] * 3


def test_a_saved_network_predicts_the_same(model, tmp_path):
    path = tmp_path / "network.keras"
    network.save(model, path)
    loaded = network.load(path)
    x = np.random.default_rng(0).normal(size=(3, 174, 40)).astype(np.float32)
    np.testing.assert_array_equal(network.predict(loaded, x), network.predict(model, x))
    assert network.description(loaded)[0] == network.description(model)[0]
    # weights of 4 bytes and little else: no optimizer
    assert path.stat().st_size < 4 * model.count_params() * 1.2 + 100_000


def test_code_in_a_network_file_is_refused(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    path = tmp_path / "network.keras"
    model.save(path)
    with pytest.raises(BundleError, match=r"network\.keras"):
        network.load(path)


def test_a_broken_network_file_is_a_bundle_error(tmp_path):
    path = tmp_path / "network.keras"
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(BundleError, match="train again"):
        network.load(path)
