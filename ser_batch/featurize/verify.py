"""Recordings drawn at random, compared with what librosa itself computes."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from ser_batch.config import CLEAN, FeaturizeOptions
from ser_batch.corpus import Recording, fetched
from ser_batch.errors import SerBatchError
from ser_batch.tables import read_parts


def verify(options: FeaturizeOptions, recordings: Iterable[Recording]) -> tuple[int, float]:
    """Compare recordings drawn at random with what librosa itself computes for them.

    Returns
    -------
    tuple of int and float
        How many were compared, and the largest absolute difference of any coefficient.
    """
    import librosa
    import pyarrow.compute as pc
    import soundfile

    files = {recording.path: recording for recording in recordings}
    table = read_parts(options.out, ["path", "variant", "n_frames", "mfcc"])
    is_there = pc.is_in(table["path"], pa.array(list(files), pa.string()))
    table = table.filter(pc.and_(is_there, pc.equal(table["variant"], CLEAN)))
    spec, n_compared, largest = options.spec, 0, 0.0
    assert spec is not None  # `FeaturizeOptions` refuses --verify with an encoder
    for number in np.random.default_rng().permutation(table.num_rows):
        if n_compared == options.verify:
            break
        (row,) = table.slice(number, 1).to_pylist()
        try:
            with fetched(files[row["path"]]) as readable, open(readable.file, "rb") as stream:  # noqa: PTH123 - bytes
                samples, rate = librosa.load(stream, sr=spec.sampling_rate)
        except (soundfile.SoundFileError, ValueError, TypeError):
            continue  # what librosa does not open: GSM, what FFmpeg decodes, and what has no header
        n_compared += 1
        powers = librosa.feature.melspectrogram(
            y=samples,
            sr=rate,
            n_fft=spec.n_fft,
            win_length=spec.win_length,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
        )
        reference = np.max if spec.level == "peak" else 1.0
        decibels = librosa.power_to_db(powers, ref=reference, amin=spec.amin, top_db=spec.top_db)
        expected = librosa.feature.mfcc(S=decibels, n_mfcc=spec.n_mfcc)
        frames = np.asarray(row["mfcc"], dtype=np.float32)[: row["n_frames"]]
        if expected.T[: spec.n_frames].shape != frames.shape:
            raise SerBatchError(f"{row['path']}: librosa finds {expected.shape[1]} frames, the table has {len(frames)}")
        largest = max(largest, float(np.abs(expected.T[: spec.n_frames] - frames).max()))
    return n_compared, largest
