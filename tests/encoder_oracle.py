"""What Hugging Face transformers gives for three recordings and for a small random encoder: tests/data/encoder.npz.

The tests take recordings and random weights from here and compare without PyTorch. Run by hand, in an environment of
its own, to make the values anew:

    python -m venv oracle-venv
    oracle-venv/bin/pip install -r tests/benchmark/requirements-transformers.txt
    ser-batch download whisper-tiny.en
    oracle-venv/bin/python tests/encoder_oracle.py whisper-tiny.en
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

VALUES = Path(__file__).parent / "data" / "encoder.npz"
RATE = 16_000
TOKEN = 320  # samples
# samples: none of the first two is a whole number of tokens
LENGTHS = {"short": 11_681, "window": 64_640, "longer": 100_007}
# of an encoder that is small, has 128 mel bands, and blocks after which all is read, the final norm too
WIDTH, HEADS, BLOCKS, BANDS, POSITIONS = 128, 2, 3, 128, 1500
# tokens that are kept of each recording, as shares of its length
KEPT = (0.0, 0.3, 0.6, 0.999)


def uniform(n, seed):
    """Return numbers from -1 to 1 that are the same with every version of NumPy."""
    return (np.random.PCG64(seed).random_raw(n) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1


def recording(name):
    """Return a voice of harmonics whose pitch and loudness glide, and some noise; shape (n,)."""
    n = LENGTHS[name]
    seed = list(LENGTHS).index(name)
    times_s = np.arange(n) / RATE
    pitch_hz = 110 * (1 + seed / 2) * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * times_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE
    vowel_hz = 700 + 400 * np.sin(2 * np.pi * 1.3 * times_s)
    voice = sum(np.sin(k * phase) / (1 + ((k * pitch_hz - vowel_hz) / 300) ** 2) for k in range(1, 30))
    loudness = np.maximum(np.sin(2 * np.pi * 1.9 * times_s), 0) ** 0.5
    return (0.1 * voice * loudness + 0.003 * uniform(n, seed)).astype(np.float32)


def padded(samples):
    """Return samples with zeros after them, up to a whole number of tokens."""
    return np.pad(samples, (0, -len(samples) % TOKEN))


def places(n_tokens):
    """Return the numbers of the tokens that are kept."""
    return [int(share * n_tokens) for share in KEPT]


def random_weights():
    """Return the weights of the small encoder, by Hugging Face's names, in float16."""
    shapes = {"conv1.weight": (WIDTH, BANDS, 3), "conv1.bias": (WIDTH,)}
    shapes |= {"conv2.weight": (WIDTH, WIDTH, 3), "conv2.bias": (WIDTH,), "embed_positions.weight": (POSITIONS, WIDTH)}
    norms = ["layer_norm"]
    for block in range(BLOCKS):
        name = f"layers.{block}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{name}.self_attn.{part}.weight"] = (WIDTH, WIDTH)
            if part != "k_proj":
                shapes[f"{name}.self_attn.{part}.bias"] = (WIDTH,)
        shapes |= {f"{name}.fc1.weight": (4 * WIDTH, WIDTH), f"{name}.fc1.bias": (4 * WIDTH,)}
        shapes |= {f"{name}.fc2.weight": (WIDTH, 4 * WIDTH), f"{name}.fc2.bias": (WIDTH,)}
        norms += [f"{name}.self_attn_layer_norm", f"{name}.final_layer_norm"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    weights = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        scale = 1.0 if len(shape) == 1 else 2 / np.sqrt(np.prod(shape[1:]))
        weights[name] = (scale * uniform(int(np.prod(shape)), seed).reshape(shape)).astype(np.float16)
    return weights


def outputs(encoder, mel):
    """Return what goes out of the convolutions, of each block and of the final norm, shape (tokens, outputs, width)."""
    import torch

    n_tokens = mel.shape[-1] // 2
    found: dict[int, Any] = {}
    hooks = [encoder.layers[0].register_forward_pre_hook(lambda _, given: found.__setitem__(0, given[0]))]
    for i, layer in enumerate([*encoder.layers, encoder.layer_norm], start=1):
        hooks.append(layer.register_forward_hook(lambda _module, _given, out, i=i: found.__setitem__(i, out)))
    positions = encoder.embed_positions
    whole = positions.weight.data
    # transformers refuses what is not 30 s: cut the positions, and say that this is all
    positions.weight.data, positions.num_embeddings = whole[:n_tokens], n_tokens
    encoder.config.max_source_positions = encoder.max_source_positions = n_tokens
    with torch.no_grad():
        encoder(torch.from_numpy(mel[None]))
    positions.weight.data, positions.num_embeddings = whole, len(whole)
    for hook in hooks:
        hook.remove()
    tensors = [found[i][0] if isinstance(found[i], tuple) else found[i] for i in sorted(found)]
    return np.stack([tensor.squeeze(0).numpy() for tensor in tensors], axis=1)


def main():
    """Make the values."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.set_num_threads(1)
    config = WhisperConfig(
        d_model=WIDTH,
        encoder_layers=BLOCKS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH,
        num_mel_bins=BANDS,
    )
    small = WhisperEncoder(config).eval()
    small.load_state_dict(
        {name: torch.from_numpy(array.astype(np.float32)) for name, array in random_weights().items()}
    )
    tiny = WhisperModel.from_pretrained(sys.argv[1], dtype=torch.float32).encoder.eval()
    values = {}
    for name in LENGTHS:
        samples = padded(recording(name))
        kept = places(len(samples) // TOKEN)
        for kind, encoder, bands, read in (("tiny", tiny, 80, (1, 2, 3)), ("small", small, BANDS, range(BLOCKS + 2))):
            extractor = WhisperFeatureExtractor(feature_size=bands)
            given = extractor(samples, sampling_rate=RATE, padding="do_not_pad", return_tensors="np")
            found = outputs(encoder, given["input_features"][0])
            values[f"{kind}_{name}"] = found[kept][:, list(read)].astype(np.float32)
    np.savez_compressed(VALUES, **values)
    print(f"{VALUES}: {VALUES.stat().st_size} bytes, { ({name: array.shape for name, array in values.items()}) }")


if __name__ == "__main__":
    main()
