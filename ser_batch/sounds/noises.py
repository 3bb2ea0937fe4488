"""Noise of machines, weather and hands, and alarms."""

import numpy as np

from ser_batch.sounds.shaping import (
    Floats,
    band,
    colored_noise,
    envelope,
    falling,
    filtered,
    log_uniform,
    peaks,
    periodic,
    put,
    scattered,
    sine,
    slow_noise,
    times_s,
)


def steady(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make white to brown noise, or noise with a few resonances."""
    out = colored_noise(n, rate, generator, generator.uniform(-0.5, 2.5))
    if generator.random() < 0.5:
        count = int(generator.integers(1, 6))
        centers = np.array([log_uniform(generator, 80, 0.4 * rate) for _ in range(count)])
        shape = peaks(centers, centers * generator.uniform(0.02, 0.5, count), generator.uniform(0.3, 1, count))
        out = filtered(out, rate, lambda hz: 0.05 + shape(hz))
    return out


def hum(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make mains or a transformer, with some hiss."""
    slope = generator.uniform(0.2, 2)
    strengths = generator.uniform(0.1, 1, 40) / np.arange(1, 41) ** slope
    out = periodic(generator.choice([50, 60, 100, 120]), n, rate, strengths)
    return np.asarray(out + generator.uniform(0, 0.3) * out.std() * generator.standard_normal(n))


def engine(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make a motor, a fan, a drill, a vacuum cleaner: a low tone that wavers, in noise."""
    speed_hz = log_uniform(generator, 15, 400) * (1 + generator.uniform(0, 0.1) * slow_noise(n, rate, generator, 1.0))
    strengths = generator.uniform(0.05, 1, 60) / np.arange(1, 61) ** generator.uniform(0.2, 1.5)
    tone = periodic(np.maximum(speed_hz, 5), n, rate, strengths)
    noise = colored_noise(n, rate, generator, generator.uniform(0, 2))
    noise *= 1 + generator.uniform(0, 0.8) * sine(speed_hz / generator.choice([1, 2, 4]), n, rate)
    return np.asarray(tone / tone.std() + generator.uniform(0.1, 3) * noise / noise.std())


def wind(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make gusts, surf, passing cars: noise that swells."""
    noise = colored_noise(n, rate, generator, generator.uniform(0.5, 2.5))
    swell = np.exp(generator.uniform(0.3, 1.5) * slow_noise(n, rate, generator, log_uniform(generator, 0.2, 3)))
    low = filtered(noise, rate, band(40, log_uniform(generator, 200, 3000)))
    return swell * low


def rain(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make drops, frying, crackle: many short ticks over a hiss."""
    ticks = np.zeros(n)
    positions = scattered(n, rate, generator, log_uniform(generator, 20, 2000))
    heights = generator.standard_normal(len(positions)) * np.exp(generator.standard_normal(len(positions)))
    np.add.at(ticks, positions, heights)
    ticks = filtered(ticks, rate, band(log_uniform(generator, 200, 3000), 0.45 * rate))
    return np.asarray(ticks / ticks.std() + generator.uniform(0, 1) * generator.standard_normal(n))


def applause(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make hands that clap, from a few to a hall."""
    out = np.zeros(n)
    length = round(0.05 * rate)
    t = times_s(length, rate)
    for first in scattered(n, rate, generator, log_uniform(generator, 4, 300)):
        clap = filtered(
            generator.standard_normal(length), rate, band(generator.uniform(500, 1200), generator.uniform(1500, 4000))
        )
        put(out, generator.uniform(0.2, 1) * clap * np.exp(-generator.uniform(60, 250) * t), int(first))
    return out


def knocks(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make steps, a keyboard, a door, dishes: single hits of something that rings."""
    out = np.zeros(n)
    count, length = int(generator.integers(1, 6)), round(generator.uniform(0.03, 0.5) * rate)
    centers = np.array([log_uniform(generator, 80, 6000) for _ in range(count)])
    decays = log_uniform(generator, 8, 150) * generator.uniform(0.5, 2, count)
    t = times_s(length, rate)
    every_s, jitter = log_uniform(generator, 0.07, 1.2), generator.uniform(0, 0.6)
    at_s = generator.uniform(0, min(0.5, every_s))
    while at_s * rate < n:
        strengths = generator.uniform(0.2, 1, count)
        ring = (strengths * np.sin(2 * np.pi * centers * t[:, None]) * np.exp(-decays * t[:, None])).sum(axis=1)
        click = generator.standard_normal(length) * np.exp(-generator.uniform(80, 500) * t)
        put(out, generator.uniform(0.4, 1) * (ring + generator.uniform(0.1, 2) * click), round(at_s * rate))
        at_s += every_s * generator.uniform(1 - jitter, 1 + jitter)
    return out


def chirps(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make birds, squeaks, games: short tones that glide."""
    out = np.zeros(n)
    base_hz, spread = log_uniform(generator, 400, 4000), generator.uniform(0.1, 1.0)
    strengths = falling(9, generator.uniform(1, 4))
    for first in scattered(n, rate, generator, log_uniform(generator, 1, 8)):
        length = round(log_uniform(generator, 0.03, 0.5) * rate)
        start, end = base_hz * np.exp(generator.uniform(-spread, spread, 2))
        hz = start * (end / start) ** np.linspace(0, 1, length) ** generator.uniform(0.5, 2)
        hz = hz * (1 + generator.choice([0, 0.1, 0.3]) * sine(generator.uniform(10, 60), length, rate))
        tone = periodic(hz, length, rate, strengths)
        put(
            out,
            tone * envelope(length, rate, attack_s=0.01, decay_per_s=generator.uniform(0, 10), release_s=0.02),
            first,
        )
    return out


def siren(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make a tone that sweeps or switches: sirens, alarms, test sweeps."""
    low_hz = log_uniform(generator, 250, 1500)
    high_hz = low_hz * generator.uniform(1.15, 4)
    cycle = times_s(n, rate) * log_uniform(generator, 0.15, 12) + generator.random()
    swing = (0.5 + 0.5 * np.sin(2 * np.pi * cycle), cycle % 1, (cycle % 1 < 0.5).astype(float))[generator.integers(3)]
    hz = low_hz * (high_hz / low_hz) ** swing
    return periodic(hz, n, rate, falling(15, generator.uniform(0.5, 3)))


def alarm(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make beeps that repeat in groups: clocks, smoke detectors, monitors, trucks that back up."""
    hz, on_s = log_uniform(generator, 400, 4000), log_uniform(generator, 0.04, 0.6)
    cycle_s = on_s * generator.uniform(1.3, 3)
    per_group, t = int(generator.integers(1, 6)), times_s(n, rate)
    in_group = (t // cycle_s).astype(np.int64) % (per_group + generator.integers(0, 4)) < per_group
    is_on = (t % cycle_s < on_s) & in_group
    edge = np.hanning(max(3, rate // 200))
    gate = np.convolve(is_on.astype(float), edge / edge.sum(), mode="same")
    return periodic(hz, n, rate, falling(11, generator.uniform(0.5, 3))) * gate


def tones(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make one to four steady tones, test tones and feedback among them."""
    out = np.zeros(n)
    for _ in range(int(generator.integers(1, 5))):
        out += generator.uniform(0.2, 1) * sine(log_uniform(generator, 80, 5000), n, rate, generator.random())
    return out


def bursts(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make noise with the rhythm of speech: paper, brushes, wipers, breathing machines, a radio between stations."""
    noise = colored_noise(n, rate, generator, generator.uniform(-0.5, 2))
    center = log_uniform(generator, 200, 4000)
    noise = filtered(noise, rate, band(center / generator.uniform(1.2, 8), center * generator.uniform(1.2, 8)))
    curve = slow_noise(n, rate, generator, log_uniform(generator, 2, 12))
    return noise * np.maximum(curve - generator.uniform(-1, 0.7), 0) ** generator.uniform(0.5, 2)
