"""Oscillators, envelopes and filters of the sounds."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_TABLE_SIZE = 2048


def times_s(n: int, rate: int) -> Floats:
    """Return the time of each of `n` samples, in s."""
    return np.asarray(np.arange(n) / rate)


def sine(frequency_hz: float | Floats, n: int, rate: int, phase: float = 0.0) -> Floats:
    """Return a sine whose frequency is one number or one per sample, shape (n,)."""
    cycles = np.cumsum(np.broadcast_to(frequency_hz, n)) / rate
    return np.asarray(np.sin(2 * np.pi * (cycles + phase)))


def periodic(frequency_hz: float | Floats, n: int, rate: int, strengths: Floats) -> Floats:
    """Return a tone of harmonics, shape (n,); those beyond half the sampling rate are left out."""
    frequency_hz = np.broadcast_to(frequency_hz, n)
    n_below = int(0.5 * rate / max(float(frequency_hz.max()), 1.0))
    table = _table(tuple(strengths[: max(1, n_below)]))
    cycles = np.cumsum(frequency_hz) / rate
    return np.asarray(table[(cycles * _TABLE_SIZE).astype(np.int64) % _TABLE_SIZE])


@functools.lru_cache(maxsize=64)
def _table(strengths: tuple[float, ...]) -> Floats:
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex128)
    spectrum[1 : len(strengths) + 1] = -0.5j * _TABLE_SIZE * np.asarray(strengths)
    return np.fft.irfft(spectrum, _TABLE_SIZE)


def falling(n: int, slope: float) -> Floats:
    """Return strengths of a fundamental and its harmonics that fall with their number, shape (n,)."""
    return np.asarray(np.arange(1, n + 1, dtype=np.float64) ** -slope)


def envelope(n: int, rate: int, *, attack_s: float, decay_per_s: float, release_s: float) -> Floats:
    """Return a rise, an exponential decay and a fade at the end, shape (n,)."""
    t = times_s(n, rate)
    rise = np.minimum(1.0, (t + 1 / rate) / max(attack_s, 1 / rate))
    fade = np.minimum(1.0, t[::-1] / max(release_s, 1 / rate))
    return np.asarray(rise * np.exp(-decay_per_s * t) * fade)


def filtered(samples: Floats, rate: int, gain: Callable[[Floats], Floats]) -> Floats:
    """Return samples with each frequency, in Hz, multiplied by its gain."""
    n = len(samples)
    spectrum = np.fft.rfft(samples, 2 * n)  # twice as long, so that nothing comes round
    return np.asarray(
        np.fft.irfft(spectrum * gain(np.asarray(np.fft.rfftfreq(2 * n, 1 / rate), dtype=np.float64)), 2 * n)[:n]
    )


def band(low_hz: float, high_hz: float, *, order: float = 2.0) -> Callable[[Floats], Floats]:
    """Return the gain of a band-pass with soft edges."""
    return lambda hz: np.asarray(
        1 / np.sqrt((1 + (low_hz / np.maximum(hz, 1e-3)) ** (2 * order)) * (1 + (hz / high_hz) ** (2 * order)))
    )


def peaks(centers_hz: Floats, widths_hz: Floats, strengths: Floats) -> Callable[[Floats], Floats]:
    """Return the gain of resonances at `centers_hz`."""
    return lambda hz: np.asarray(
        (strengths[:, None] / (1 + ((hz - centers_hz[:, None]) / widths_hz[:, None]) ** 2)).sum(axis=0)
    )


def colored_noise(n: int, rate: int, generator: np.random.Generator, exponent: float) -> Floats:
    """Return noise whose power falls with frequency to the power of `exponent`: 0 white, 1 pink, 2 brown."""
    white = generator.standard_normal(n)
    return filtered(white, rate, lambda hz: np.asarray(np.maximum(hz, 30.0) ** (-exponent / 2)))


def slow_noise(n: int, rate: int, generator: np.random.Generator, cutoff_hz: float) -> Floats:
    """Return a random curve of about unit deviation that varies slower than `cutoff_hz`, shape (n,)."""
    n_knots = max(4, int(np.ceil(n / rate * cutoff_hz)) + 3)
    knots = generator.standard_normal(n_knots)
    return np.interp(np.linspace(0, n_knots - 1, n), np.arange(n_knots), knots)


def put(out: Floats, part: Floats, first: int) -> None:
    """Add a part to `out` from sample `first` on, as far as there is room."""
    if first < len(out):
        out[first : first + len(part)] += part[: len(out) - first]


def scattered(n: int, rate: int, generator: np.random.Generator, per_s: float) -> npt.NDArray[np.int64]:
    """Return positions of random events, at least one, `per_s` per second on average."""
    count = max(1, int(generator.poisson(per_s * n / rate)))
    return np.sort(generator.integers(0, n, count))


def log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    """Return a number from `low` to `high`, each octave as likely."""
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))
