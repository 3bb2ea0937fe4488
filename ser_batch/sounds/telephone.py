"""Signals of the telephone network: dialing, call progress, hold, ringing, fax and modem.

References
----------
.. [1] ITU-T Q.23: frequencies of push-button signals. Q.24: their length.
.. [2] ITU-T E.180 and its Supplement 2: dial, ringing, busy, congestion and special information tones by country.
.. [3] ITU-T T.30 (CNG 1100 Hz, CED 2100 Hz), V.21 (980/1180 and 1650/1850 Hz, 300 baud), V.23 (1300/2100 Hz, 1200
   baud), Bell 103 (1070/1270 and 2025/2225 Hz), V.22 (carriers at 1200 and 2400 Hz, 600 baud).
"""

import numpy as np

from ser_batch.sounds.shaping import (
    Floats,
    band,
    colored_noise,
    envelope,
    falling,
    filtered,
    log_uniform,
    periodic,
    put,
    sine,
    times_s,
)

DTMF_ROWS_HZ, DTMF_COLUMNS_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
# frequencies together, and seconds on and off in turn; none is without end
CALL_PROGRESS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "dial, North America": ((350, 440), ()),
    "dial, Europe": ((425,), ()),
    "dial, Great Britain": ((350, 450), ()),
    "dial, France": ((330, 440), ()),
    "dial, Italy": ((425,), (0.2, 0.2, 0.6, 1.0)),
    "dial, Japan": ((400,), ()),
    "ringing, North America": ((440, 480), (2.0, 4.0)),
    "ringing, Europe": ((425,), (1.0, 4.0)),
    "ringing, Great Britain": ((400, 450), (0.4, 0.2, 0.4, 2.0)),
    "ringing, France": ((440,), (1.5, 3.5)),
    "ringing, Japan": ((384, 416), (1.0, 2.0)),
    "ringing, India": ((375, 425), (0.4, 0.2, 0.4, 2.0)),
    "busy, North America": ((480, 620), (0.5, 0.5)),
    "busy, Europe": ((425,), (0.5, 0.5)),
    "busy, Great Britain": ((400,), (0.375, 0.375)),
    "busy, Spain": ((425,), (0.2, 0.2)),
    "congestion, North America": ((480, 620), (0.25, 0.25)),
    "congestion, Europe": ((425,), (0.25, 0.25)),
    "congestion, Great Britain": ((400,), (0.4, 0.35, 0.225, 0.525)),
    "off hook, North America": ((1400, 2060, 2450, 2600), (0.1, 0.1)),
    "call waiting, Europe": ((425,), (0.2, 0.6, 0.2, 3.0)),
    "call waiting, North America": ((440,), (0.3, 3.0)),
    "recording, North America": ((1400,), (0.5, 3.0)),
}
SPECIAL_INFORMATION_HZ = (950, 1400, 1800)


def _gate(pattern_s: tuple[float, ...], n: int, rate: int, start_s: float) -> Floats:
    """Return 1 where a cadence is on and 0 where it is off, with edges of 5 ms."""
    if not pattern_s:
        return np.ones(n)
    ends = np.cumsum(pattern_s)
    step = np.searchsorted(ends, (times_s(n, rate) + start_s) % ends[-1], side="right")
    edge = np.hanning(max(3, rate // 100))
    return np.convolve((step % 2 == 0).astype(float), edge / edge.sum(), mode="same")


def dtmf(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make keys of a telephone, pressed by a machine or by hand."""
    out = np.zeros(n)
    on_s, off_s = generator.uniform(0.05, 0.35), generator.uniform(0.04, 0.5)
    twist = 10 ** (generator.uniform(-4, 4) / 20)
    at_s = generator.uniform(0, 0.3)
    while at_s * rate < n:
        length = round(on_s * generator.uniform(0.8, 1.25) * rate)
        key = sine(generator.choice(DTMF_ROWS_HZ), length, rate)
        key += twist * sine(generator.choice(DTMF_COLUMNS_HZ), length, rate)
        put(out, key * envelope(length, rate, attack_s=0.003, decay_per_s=0, release_s=0.003), round(at_s * rate))
        at_s += length / rate + off_s * generator.uniform(0.7, 1.4)
    return out


def call_progress(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make dial, ringing, busy and such tones of several countries."""
    frequencies_hz, pattern_s = CALL_PROGRESS[str(generator.choice(list(CALL_PROGRESS)))]
    tone = sum((sine(hz * generator.uniform(0.98, 1.02), n, rate) for hz in frequencies_hz), np.zeros(n))
    # the segment has some of the tone in it
    start_s = generator.uniform(0, 0.7 * pattern_s[0]) if pattern_s else 0.0
    return tone * _gate(pattern_s, n, rate, start_s)


def special_information(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make the three rising tones before an announcement of the network, again and again."""
    out, length = np.zeros(n), round(rate * generator.uniform(0.25, 0.38))
    pause, first = round(rate * generator.uniform(0.0, 1.0)), round(rate * generator.uniform(0, 0.5))
    while first < n:
        for hz in SPECIAL_INFORMATION_HZ:
            put(out, sine(hz, length, rate), first)
            first += length + rate // 100
        first += pause
    return out


def hold_beeps(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make short beeps with long pauses: held lines, queues, answering machines."""
    out = np.zeros(n)
    hz, length_s, every_s = log_uniform(generator, 300, 3000), generator.uniform(0.05, 0.8), generator.uniform(0.8, 4.0)
    strengths = falling(int(generator.integers(1, 6)), generator.uniform(0.7, 3))
    n_beeps, step = int(generator.integers(1, 4)), generator.choice([0.75, 0.8, 1.0, 1.0, 1.25, 1.5])
    at_s = generator.uniform(0, 0.6)
    while at_s * rate < n:
        for i in range(n_beeps):
            length = round(length_s * rate)
            beep = periodic(hz * step**i, length, rate, strengths)
            beep *= envelope(length, rate, attack_s=0.005, decay_per_s=0, release_s=0.01)
            put(out, beep, round((at_s + i * 1.4 * length_s) * rate))
        at_s += every_s + n_beeps * 1.4 * length_s
    return out


def fsk(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make a modem or a fax that shifts between two tones, maybe after its answer tone."""
    pairs = ((980, 1180, 300), (1650, 1850, 300), (1300, 2100, 1200), (1070, 1270, 300), (2025, 2225, 300))
    low, high, baud = pairs[generator.integers(len(pairs))]
    bits = generator.integers(0, 2, n * baud // rate + 2)
    hz = np.where(bits[(times_s(n, rate) * baud).astype(np.int64)] == 1, low, high).astype(float)
    if generator.random() < 0.5:
        hz[: round(generator.uniform(0.5, 3) * rate)] = generator.choice([1100, 2100])
    return sine(hz, n, rate)


def modem(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make a carrier that changes its phase and strength at random, as data over a telephone do."""
    baud, carrier_hz = ((600, 1200), (600, 2400), (2400, 1800))[generator.integers(3)]
    steps = (times_s(n, rate) * baud).astype(np.int64)
    symbols = generator.integers(0, 16, int(steps[-1]) + 1)
    strength = np.where(symbols < 8, 0.5, 1.0)
    out = strength[steps] * np.sin(2 * np.pi * (carrier_hz * times_s(n, rate) + (symbols % 8)[steps] / 8))
    return filtered(out, rate, band(300, 3400, order=4))


def bell(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make the ringer of a telephone: a bell struck 15 to 30 times a second, or an electronic warble."""
    on_s, off_s = generator.uniform(0.8, 2.0), generator.uniform(0.5, 3.0)
    gate = _gate((on_s, off_s), n, rate, generator.uniform(0, 0.5))
    strikes_hz = generator.uniform(12, 30)
    if generator.random() < 0.5:
        partials = (
            log_uniform(generator, 500, 1800) * np.array([1, 1.5, 2.1, 2.8, 4.1]) * generator.uniform(0.97, 1.03, 5)
        )
        since_s = (times_s(n, rate) * strikes_hz % 1) / strikes_hz
        tone = sum((sine(hz, n, rate) * 0.7**i for i, hz in enumerate(partials)), np.zeros(n))
        tone *= 0.3 + np.exp(-generator.uniform(20, 120) * since_s)
        return tone * gate
    first_hz = log_uniform(generator, 500, 2200)
    chosen = (times_s(n, rate) * strikes_hz).astype(np.int64) % generator.integers(2, 4)
    hz = first_hz * np.array([1.0, generator.uniform(1.1, 1.5), generator.uniform(1.2, 2.0)])[chosen]
    return periodic(hz, n, rate, falling(7, generator.uniform(0.8, 3))) * gate


def comfort_noise(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make an open line: hiss, hum and clicks."""
    out = filtered(colored_noise(n, rate, generator, generator.uniform(0, 2)), rate, band(200, 3600))
    out /= out.std()
    hum_hz = generator.choice([50, 60, 100, 120])
    out += generator.uniform(0, 2) * periodic(hum_hz, n, rate, falling(19, generator.uniform(0.5, 2)))
    clicks = generator.random(n) < generator.choice([0, 2, 20]) / rate
    return np.asarray(out + clicks * generator.standard_normal(n) * 30)
