"""Changes of the waveform: speed, level, noise, rooms, codecs, lost packets.

As augmentation they show training what recordings go through; as conditions they measure what it costs. All that is
random is drawn from the seed, the recording's content and the variant's name, whoever computes it and when.
"""

import functools
import hashlib
import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.fft
import soundfile

from ser_batch.audio.resampling import Resampler
from ser_batch.audio.sound import Samples
from ser_batch.config.variants import Change, changes

# Speech is measured against noise below this frequency: noise at 20 kHz harms no one, and no telephone carries it.
BAND_HZ = 4000.0
TELEPHONE_RATE = 8000
WIDEBAND_RATE = 16_000  # what calls over the internet and low bit rate MP3 have
# of the levels 0 (best) to 1 that libsndfile maps to bit rates: about 16 kbit/s of Opus, 18 of MP3
_OPUS_COMPRESSION, _MP3_COMPRESSION = 0.96, 0.99
PACKET_S = 0.02
MEAN_BURST_PACKETS = 2.0


def changed(
    samples: Samples, sampling_rate: int, variant: str, *, seed: int, content_hash: str, place: str = ""
) -> tuple[Samples, int]:
    """Return a variant of a segment.

    Parameters
    ----------
    samples
        Shape (n,), n at least 1, full scale 1.0.
    sampling_rate
        In Hz.
    variant
        Steps joined by ``+``; see `ser_batch.config.variants.changes`.
    seed, content_hash, place
        What random draws follow from; `place` tells segments of one recording apart.

    Returns
    -------
    tuple of array of float32, shape (m,), and int
        The samples and their rate in Hz: that of the last codec, else the source's.

    Raises
    ------
    soundfile.SoundFileError
        The codec could not take the segment.
    """
    digest = hashlib.sha256(f"{seed}/{content_hash}/{variant}/{place}".encode()).digest()
    generator = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    for change in changes(variant):
        samples, sampling_rate = _CHANGES[change.name](samples, sampling_rate, change, generator)
    return samples, sampling_rate


def _resampled(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    return Resampler(from_rate, to_rate).feed(samples, last=True)


def _level(samples: Samples, rate: int, change: Change, _: np.random.Generator) -> tuple[Samples, int]:
    return samples * np.float32(10 ** (change.amount / 20)), rate


def _clip(samples: Samples, rate: int, change: Change, _: np.random.Generator) -> tuple[Samples, int]:
    """Cut off what exceeds full scale once the loudest sample is `amount` dB above it; the level stays."""
    ceiling = np.abs(samples).max() / 10 ** (change.amount / 20)
    return np.clip(samples, -ceiling, ceiling), rate


def _speed(samples: Samples, rate: int, change: Change, _: np.random.Generator) -> tuple[Samples, int]:
    """Play faster or slower, pitch and all: as many samples as at the rate divided by the factor."""
    return _resampled(samples, rate, round(rate / change.amount)), rate


def _noise(samples: Samples, rate: int, change: Change, generator: np.random.Generator) -> tuple[Samples, int]:
    """Add steady noise: white, pink, brown, or shaped as the segment's own spectrum, each as often."""
    # The ratio of the energies, over the whole segment and up to `BAND_HZ`, is `amount` dB.
    n_fft = scipy.fft.next_fast_len(len(samples), real=True)
    spectrum = scipy.fft.rfft(samples, n_fft)
    frequencies_hz = np.fft.rfftfreq(n_fft, 1 / rate).astype(np.float32)
    color = generator.integers(4)
    if color == 3:
        shape = np.sqrt(_smooth(np.abs(spectrum) ** 2, round(50 * n_fft / rate)))  # no harmonics: 100 Hz wide
    else:
        # power falls with 1, 1/f or 1/f**2 above 50 Hz
        shape = np.maximum(frequencies_hz, 50) ** np.float32(-color / 2)
    # white noise has such a spectrum; it goes round without a seam, so what is left of it is as loud at its ends
    white = generator.standard_normal(2 * len(shape), dtype=np.float32).view(np.complex64)
    noise = scipy.fft.irfft(shape * white, n_fft)[: len(samples)]
    band = frequencies_hz <= BAND_HZ
    energies = [float((np.abs(part[band]) ** 2).sum()) for part in (spectrum, scipy.fft.rfft(noise, n_fft))]
    if not all(energies):  # a silent segment stays silent
        return samples, rate
    noise *= (energies[0] / energies[1] / 10 ** (change.amount / 10)) ** 0.5
    return samples + noise, rate


def _smooth(values: npt.NDArray[np.float32], half_width: int) -> npt.NDArray[np.float32]:
    """Return the mean of each value and `half_width` neighbours on both sides."""
    sums = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    first = np.maximum(np.arange(len(values)) - half_width, 0)
    last = np.minimum(np.arange(len(values)) + half_width + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first), dtype=np.float32)


def _room(samples: Samples, rate: int, _: Change, generator: np.random.Generator) -> tuple[Samples, int]:
    """Reverberate: direct sound and noise that dies away exponentially (Polack 1988)."""
    # The reverberation time is 0.2 to 0.8 s, the direct sound -3 to 9 dB over the reverberation, which begins 2 to 20
    # ms later.
    reverberation_s, direct_db = generator.uniform(0.2, 0.8), generator.uniform(-3.0, 9.0)
    delay = round(generator.uniform(0.002, 0.02) * rate)
    times_s = np.arange(round(reverberation_s * rate)) / rate
    tail = generator.standard_normal(len(times_s)) * 10 ** (-3 * times_s / reverberation_s)  # 60 dB down at the end
    tail *= 10 ** (-direct_db / 20) / np.sqrt((tail**2).sum())
    response = np.concatenate(([1.0], np.zeros(max(0, delay - 1)), tail)).astype(np.float32)
    n = len(samples) + len(response) - 1
    n_fft = scipy.fft.next_fast_len(n, real=True)
    heard = scipy.fft.irfft(scipy.fft.rfft(samples, n_fft) * scipy.fft.rfft(response, n_fft), n_fft)[: len(samples)]
    return np.asarray(heard), rate


def _telephone(samples: Samples, rate: int, _: Change, __: np.random.Generator) -> tuple[Samples, int]:
    """Keep what an analogue line carries, 300 to 3400 Hz (ITU-T G.712), at 8 kHz."""
    narrow = _resampled(samples, rate, TELEPHONE_RATE)
    # 50 ms longer: what rings on at one end must not come round to the other
    n_fft = scipy.fft.next_fast_len(len(narrow) + TELEPHONE_RATE // 20, real=True)
    hz = np.fft.rfftfreq(n_fft, 1 / TELEPHONE_RATE)
    gain = np.clip((hz - 200) / 100, 0, 1) * np.clip((3600 - hz) / 200, 0, 1)
    heard = scipy.fft.irfft(scipy.fft.rfft(narrow, n_fft) * gain, n_fft)[: len(narrow)]
    return heard.astype(np.float32), TELEPHONE_RATE


def _loss(samples: Samples, rate: int, change: Change, generator: np.random.Generator) -> tuple[Samples, int]:
    """Lose packets of 20 ms in bursts of two on average (Gilbert 1960); what is lost is silent."""
    packet = round(PACKET_S * rate)
    n = -(-len(samples) // packet)
    share = change.amount / 100
    stays_lost = 1 - 1 / MEAN_BURST_PACKETS
    becomes_lost = share / (1 - share) / MEAN_BURST_PACKETS
    drawn = generator.random(n)
    is_lost = drawn < share  # the first one; each other hangs on the one before
    for i in range(1, n):
        is_lost[i] = drawn[i] < (stays_lost if is_lost[i - 1] else becomes_lost)
    heard = np.where(np.repeat(is_lost, packet)[: len(samples)], np.float32(0), samples)
    return np.asarray(heard, dtype=np.float32), rate


def _codec(
    samples: Samples,
    rate: int,
    _: Change,
    __: np.random.Generator,
    *,
    codec_rate: int,
    container: str,
    subtype: str,
    compression: float | None = None,
) -> tuple[Samples, int]:
    """Encode and decode at the codec's rate; what exceeds full scale is clipped there as anywhere."""
    if rate < codec_rate:  # a narrowband call over a wideband codec
        codec_rate = TELEPHONE_RATE
    narrow = np.clip(_resampled(samples, rate, codec_rate), -1.0, 1.0)
    stream = io.BytesIO()
    # silence behind it: the very end of a stream may fade, and no codec returns less than it was given
    followed = np.pad(narrow, (0, codec_rate // 50))
    soundfile.write(stream, followed, codec_rate, subtype, format=container, compression_level=compression)
    stream.seek(0)
    decoded, _ = soundfile.read(stream, dtype="float32")
    return decoded[: len(narrow)], codec_rate


_CHANGES: dict[str, Callable[[Samples, int, Change, np.random.Generator], tuple[Samples, int]]] = {
    "clip": _clip,
    "g711": functools.partial(_codec, codec_rate=TELEPHONE_RATE, container="WAV", subtype="ULAW"),
    "gsm": functools.partial(_codec, codec_rate=TELEPHONE_RATE, container="WAV", subtype="GSM610"),
    "level": _level,
    "loss": _loss,
    "mp3": functools.partial(
        _codec,
        codec_rate=WIDEBAND_RATE,
        container="MP3",
        subtype="MPEG_LAYER_III",
        compression=_MP3_COMPRESSION,
    ),
    "noise": _noise,
    "opus": functools.partial(
        _codec, codec_rate=WIDEBAND_RATE, container="OGG", subtype="OPUS", compression=_OPUS_COMPRESSION
    ),
    "room": _room,
    "speed": _speed,
    "telephone": _telephone,
}
