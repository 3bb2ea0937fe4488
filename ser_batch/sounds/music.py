"""Made-up music by made-up instruments.

References
----------
.. [1] Karplus, Strong (1983), Digital synthesis of plucked-string and drum timbres, Computer Music Journal 7(2).
.. [2] Chowning (1973), The synthesis of complex audio spectra by means of frequency modulation, JAES 21(7).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from ser_batch.sounds.shaping import (
    Floats,
    band,
    envelope,
    falling,
    filtered,
    log_uniform,
    periodic,
    put,
    sine,
    slow_noise,
    times_s,
)

Note = Callable[[float, int], Floats]  # frequency in Hz, samples
Instrument = Callable[[np.random.Generator, int], Note]  # and rate in Hz

_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 3, 5, 7, 8, 10),  # minor
    (0, 2, 3, 5, 7, 8, 11),  # harmonic minor
    (0, 2, 4, 7, 9),  # pentatonic
    (0, 3, 5, 6, 7, 10),  # blues
    (0, 2, 3, 5, 7, 9, 10),  # Dorian
)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Key, harmony and speed of a piece; chords change every bar of four beats."""

    root_hz: float
    scale: tuple[int, ...]
    beat_s: float
    degrees: tuple[int, ...]

    def hz(self, degree: int) -> float:
        """Return the frequency of a degree of the scale; 0 is the root."""
        octave, step = divmod(degree, len(self.scale))
        return float(self.root_hz * 2 ** (octave + self.scale[step] / 12))

    def chord(self, beat: float) -> list[int]:
        """Return the degrees of the chord at a beat."""
        root = self.degrees[int(beat // 4) % len(self.degrees)]
        return [root, root + 2, root + 4]


def _piece(generator: np.random.Generator) -> _Piece:
    scale = _SCALES[generator.integers(len(_SCALES))]
    degrees = tuple(int(degree) for degree in generator.choice([0, 0, 3, 4, 5, 1], 4))
    return _Piece(log_uniform(generator, 110, 220), scale, 60 / generator.uniform(60, 180), degrees)


def sustained(generator: np.random.Generator, rate: int) -> Note:
    """Return an instrument of harmonics: an organ, a wind or bowed instrument, a synthesizer."""
    strengths = falling(30, generator.uniform(0.4, 3.0))
    if generator.random() < 0.3:
        strengths[1::2] *= generator.uniform(0, 0.2)  # a clarinet, a square wave
    strengths *= generator.uniform(0.3, 1.0, 30)
    attack_s, decay = log_uniform(generator, 0.003, 0.25), generator.choice([0.0, 0.5, 2.0, 6.0])
    vibrato_hz, depth = generator.uniform(4, 7.5), generator.choice([0, 0.003, 0.008, 0.015])
    voices = generator.choice([1, 1, 2, 3])
    detune = 1 + generator.uniform(0.001, 0.008) * np.linspace(-1, 1, voices)

    def note(hz: float, n: int) -> Floats:
        wobble = 1 + depth * np.sin(2 * np.pi * vibrato_hz * times_s(n, rate))
        tone = sum((periodic(hz * factor * wobble, n, rate, strengths) for factor in detune), np.zeros(n))
        return np.asarray(tone * envelope(n, rate, attack_s=attack_s, decay_per_s=decay, release_s=0.03))

    return note


def struck(generator: np.random.Generator, rate: int) -> Note:
    """Return an instrument whose partials die away, the higher the sooner: a piano, a vibraphone, a bell."""
    stretch, n_partials = generator.choice([0.0, 0.0005, 0.02, 0.2]), int(generator.integers(4, 12))
    decay, slope = log_uniform(generator, 0.8, 10), generator.uniform(0.6, 2.5)

    def note(hz: float, n: int) -> Floats:
        out, t = np.zeros(n), times_s(n, rate)
        for k in range(1, n_partials + 1):
            partial_hz = hz * k * np.sqrt(1 + stretch * k**2)
            if partial_hz < 0.45 * rate:
                out += np.sin(2 * np.pi * partial_hz * t) * np.exp(-decay * (0.5 + 0.5 * k) * t) / k**slope
        return np.asarray(out * envelope(n, rate, attack_s=0.004, decay_per_s=0, release_s=0.02))

    return note


def modulated(generator: np.random.Generator, rate: int) -> Note:
    """Return an instrument of frequency modulation: electric pianos, brass, bells [2]_."""
    ratio, index = generator.choice([0.5, 1, 1, 2, 3, 1.41, 3.5]), generator.uniform(0.5, 6)
    decay, attack_s = log_uniform(generator, 0.3, 8), log_uniform(generator, 0.003, 0.1)

    def note(hz: float, n: int) -> Floats:
        t = times_s(n, rate)
        strength = envelope(n, rate, attack_s=attack_s, decay_per_s=decay, release_s=0.02)
        depth = min(index, 0.3 * rate / hz) * strength
        return np.asarray(strength * np.sin(2 * np.pi * hz * t + depth * np.sin(2 * np.pi * hz * ratio * t)))

    return note


def plucked(generator: np.random.Generator, rate: int) -> Note:
    """Return a plucked string [1]_."""
    loss, softness = generator.uniform(0.96, 0.999), generator.uniform(0.1, 0.5)

    def note(hz: float, n: int) -> Floats:
        period = max(2, round(rate / hz))
        loop = generator.uniform(-1, 1, period)
        loops = np.empty((n // period + 1, period))
        for row in loops:
            row[:] = loop
            loop = loss * ((1 - softness) * loop + softness * np.roll(loop, 1))
        return np.asarray(loops.reshape(-1)[:n] * envelope(n, rate, attack_s=0, decay_per_s=0.2, release_s=0.02))

    return note


INSTRUMENTS = (sustained, struck, modulated, plucked)


def _melody(out: Floats, piece: _Piece, note: Note, generator: np.random.Generator, rate: int, octave: int) -> None:
    degree, at_s = int(generator.integers(-2, 5)), 0.0
    legato, rests = generator.uniform(0.4, 1.3), generator.uniform(0, 0.3)
    while at_s * rate < len(out):
        length_s = piece.beat_s * generator.choice([0.25, 0.5, 0.5, 1, 1, 2])
        if generator.random() > rests:
            degree = int(np.clip(degree + generator.integers(-3, 4), -4, 9))
            hz = piece.hz(degree) * 2**octave
            put(out, generator.uniform(0.6, 1) * note(hz, round(legato * length_s * rate)), round(at_s * rate))
        at_s += length_s


def _chords(out: Floats, piece: _Piece, note: Note, generator: np.random.Generator, rate: int) -> None:
    """Play block, strummed or broken chords."""
    step, strum_s = generator.choice([0.5, 1, 2, 4]), generator.choice([0, 0, 0.015, 0.04])
    broken, octave = generator.random() < 0.4, generator.integers(0, 2)
    step = min(step, 1) / 2 if broken else step
    length = round(piece.beat_s * step * generator.uniform(0.6, 1.5) * rate)
    for i in range(int(len(out) / rate / piece.beat_s / step) + 1):
        degrees = piece.chord(i * step)
        for k, degree in enumerate([degrees[i % len(degrees)]] if broken else degrees):
            tone = note(piece.hz(degree) * 2.0**octave, length)
            put(out, tone, round((i * step * piece.beat_s + k * strum_s) * rate))


def _bass(out: Floats, piece: _Piece, note: Note, generator: np.random.Generator, rate: int) -> None:
    step = generator.choice([0.5, 1, 2])
    for i in range(int(len(out) / rate / piece.beat_s / step) + 1):
        hz = piece.hz(piece.chord(i * step)[0]) / 2
        put(out, note(hz, round(piece.beat_s * step * 0.9 * rate)), round(i * step * piece.beat_s * rate))


def _drums(out: Floats, piece: _Piece, generator: np.random.Generator, rate: int) -> None:
    """Play a kick, a snare and a cymbal that repeat a bar of sixteen steps."""
    step_s = piece.beat_s / 4
    n = round(0.35 * rate)
    t, noise = times_s(n, rate), generator.standard_normal(n)
    kick = sine(generator.uniform(40, 70) + generator.uniform(50, 200) * np.exp(-30 * t), n, rate) * np.exp(-9 * t)
    snare = filtered(noise, rate, band(generator.uniform(300, 1500), 9000)) * np.exp(-generator.uniform(8, 30) * t)
    snare += 0.5 * sine(generator.uniform(150, 330), n, rate) * np.exp(-20 * t)
    cymbal = filtered(noise, rate, band(generator.uniform(3000, 6000), 20000)) * np.exp(-generator.uniform(8, 80) * t)
    beats = np.arange(16)
    played = (
        (kick, (beats % 8 == 0) | (generator.random(16) < 0.15)),
        (0.6 * snare, (beats % 8 == 4) | (generator.random(16) < 0.1)),
        (0.4 * cymbal, (beats % generator.choice([1, 2, 4]) == 0)),
    )
    for i in range(int(len(out) / rate / step_s) + 1):
        for drum, pattern in played:
            if pattern[i % 16]:
                put(out, generator.uniform(0.7, 1) * drum, round(i * step_s * rate))


def solo(instrument: Instrument, n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make a piece for one instrument: chords, a melody or both."""
    out, piece = np.zeros(n), _piece(generator)
    note = instrument(generator, rate)
    plays = generator.integers(3)
    if plays != 0:
        _chords(out, piece, note, generator, rate)
    if plays != 1:
        _melody(out, piece, note, generator, rate, int(generator.integers(0, 3)))
    return out


def drums(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make drums alone."""
    out = np.zeros(n)
    _drums(out, _piece(generator), generator, rate)
    return out


def pad(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make slow chords of detuned saws, filtered: what fills a waiting room."""
    out, piece = np.zeros(n), _piece(generator)
    strengths = falling(39, generator.uniform(0.8, 1.6))
    length = round(generator.uniform(1.5, 5) * rate)
    for i in range(n // length + 1):
        for degree in [*piece.chord(4 * i), piece.chord(4 * i)[0] + 6]:
            for factor in (0.996, 1.0, 1.005):
                tone = periodic(piece.hz(degree) * factor, length, rate, strengths)
                put(out, tone * envelope(length, rate, attack_s=0.4, decay_per_s=0, release_s=0.4), i * length)
    return filtered(out, rate, band(60, log_uniform(generator, 500, 6000)))


def lead(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make a solo voice that glides from note to note with vibrato: a violin, a flute, a saw, a theremin."""
    piece = _piece(generator)
    degrees = np.cumsum(generator.integers(-2, 3, n // max(1, round(piece.beat_s * rate / 2)) + 2))
    hz_of = np.array([piece.hz(int(np.clip(degree, -3, 10))) for degree in degrees]) * 2 ** generator.integers(0, 3)
    steps = times_s(n, rate) / piece.beat_s * 2
    hz = hz_of[steps.astype(np.int64) // generator.choice([1, 2, 4])]
    glide = np.hanning(max(3, round(generator.uniform(0.01, 0.15) * rate)))
    hz = np.exp(np.convolve(np.pad(np.log(hz), len(glide), mode="edge"), glide / glide.sum(), "same"))[len(glide) :][:n]
    depth, vibrato_hz = generator.uniform(0, 0.02), generator.uniform(4.5, 7)
    hz = hz * (1 + depth * sine(vibrato_hz, n, rate))
    tone = periodic(hz, n, rate, falling(30, generator.uniform(0.7, 3)))
    return tone * (1 + 0.4 * slow_noise(n, rate, generator, 2.0))


def band_of_several(n: int, rate: int, generator: np.random.Generator) -> Floats:
    """Make several instruments: chords and maybe a bass, drums and a melody."""
    out, piece = np.zeros(n), _piece(generator)

    def instrument() -> Note:
        return INSTRUMENTS[generator.integers(len(INSTRUMENTS))](generator, rate)

    def add(strength: float, play: Callable[[Floats], None]) -> None:
        part = np.zeros(n)
        play(part)
        np.add(out, part * strength / max(part.std(), 1e-9), out=out)

    add(1.0, lambda part: _chords(part, piece, instrument(), generator, rate))
    if generator.random() < 0.7:
        add(generator.uniform(0.4, 1.2), lambda part: _bass(part, piece, instrument(), generator, rate))
    if generator.random() < 0.6:
        add(generator.uniform(0.4, 1.2), lambda part: _drums(part, piece, generator, rate))
    if generator.random() < 0.7:
        add(generator.uniform(0.5, 1.5), lambda part: _melody(part, piece, instrument(), generator, rate, 1))
    return out
