"""All kinds of sounds by name, with the lines and rooms that change them."""

import functools
from collections.abc import Callable

import numpy as np

from ser_batch.audio.perturb import changed
from ser_batch.audio.resampling import Resampler
from ser_batch.sounds import music, noises, telephone
from ser_batch.sounds.shaping import Floats, Samples, band, filtered, log_uniform

Maker = Callable[[int, int, np.random.Generator], Floats]  # samples, their rate in Hz, what to draw from

KINDS: dict[str, Maker] = {
    "band": music.band_of_several,
    **{instrument.__name__: functools.partial(music.solo, instrument) for instrument in music.INSTRUMENTS},
    **{
        maker.__name__: maker
        for maker in (
            *(music.drums, music.pad, music.lead),
            *(telephone.dtmf, telephone.call_progress, telephone.special_information, telephone.hold_beeps),
            *(telephone.fsk, telephone.modem, telephone.bell, telephone.comfort_noise),
            *(noises.steady, noises.hum, noises.engine, noises.wind, noises.rain, noises.applause, noises.knocks),
            *(noises.chirps, noises.siren, noises.alarm, noises.tones, noises.bursts),
        )
    },
}
# drawn with equal chances: clean twice, telephones, rooms
_LINES = (None, None, "g711", "telephone+g711", "room", "room+telephone+g711", "gsm")


def sound(kind: str, generator: np.random.Generator, *, seconds: float, sampling_rate: int) -> Samples:
    """Make a sound that is not speech, as a recording would have it."""
    # It is filtered, in a room, with noise or through a telephone at random.
    n = round(seconds * sampling_rate)
    made = KINDS[kind](n, sampling_rate, generator)
    if generator.random() < 0.3:
        low_hz = log_uniform(generator, 30, 400)
        made = filtered(made, sampling_rate, band(low_hz, log_uniform(generator, 1500, 0.5 * sampling_rate)))
    made = made / max(float(np.abs(made).max()), 1e-9)
    if generator.random() < 0.5:
        made = made + 10 ** (-generator.uniform(15, 60) / 20) * made.std() * generator.standard_normal(n)
    samples = (made / max(float(np.abs(made).max()), 1e-9)).astype(np.float32)
    line = _LINES[generator.integers(len(_LINES))]
    if line is not None:
        samples, rate = changed(samples, sampling_rate, line, seed=int(generator.integers(2**31)), content_hash=kind)
        samples = Resampler(rate, sampling_rate).feed(samples, last=True) if rate != sampling_rate else samples
    samples = np.pad(samples[:n], (0, max(0, n - len(samples))))
    level = 10 ** (-generator.uniform(0, 40) / 20)
    return np.asarray(samples * np.float32(level / max(float(np.abs(samples).max()), 1e-9)), dtype=np.float32)
