"""Checkpoints of Hugging Face and CTranslate2 to encoder folders; what is no checkpoint of Whisper."""

import itertools
import json
import shutil
import struct
import sys

import encoder_oracle as oracle
import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

from ser_batch.cli.commands import cli
from ser_batch.encoder.convert import convert, default_outputs, read_outputs
from ser_batch.encoder.model import GRAPH_FILE, Encoder, load_encoder, read_encoder_spec
from ser_batch.errors import EncoderError, OutputError, UsageError

pytest.importorskip("onnx", reason='needs pip install "ser-batch[encoders]"')
pytest.importorskip("safetensors", reason='needs pip install "ser-batch[encoders]"')

ALL_OUTPUTS = range(oracle.BLOCKS + 2)
CONFIG = {"model_type": "whisper", "encoder_attention_heads": oracle.HEADS, "_name_or_path": "openai/whisper-made-up"}
KINDS = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16"}
KINDS[np.dtype(np.int8)] = "I8"


def write_safetensors(path, arrays):
    """Write the format by hand: the size of the header, the header, the numbers."""
    header, content = {}, b""
    for name, array in arrays.items():
        start = len(content)
        content += array.tobytes()
        header[name] = {"dtype": KINDS[array.dtype], "shape": array.shape, "data_offsets": (start, len(content))}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def hugging_face(folder, weights=None, prefix="model.encoder.", **config):
    """Make a checkpoint as Hugging Face has it, with a decoder that nobody needs."""
    folder.mkdir()
    arrays = {f"{prefix}{name}": array for name, array in (weights or oracle.random_weights()).items()}
    arrays["model.decoder.embed_tokens.weight"] = np.ones((5, 3), dtype=np.float32)
    write_safetensors(folder / "model.safetensors", arrays)
    (folder / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    return folder


def ctranslate2_text(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def ctranslate2(folder, weights=None, *, version=6, specification="WhisperSpec", prefix="encoder/", change=None):
    """Make a checkpoint as CTranslate2 writes it: queries, keys and values in one, keys with a bias of zeros."""
    folder.mkdir()
    weights = weights or oracle.random_weights()
    arrays: dict[str, np.ndarray] = {
        "num_heads": np.array(oracle.HEADS, dtype=np.int16),
        "pre_norm": np.array(1, dtype=np.int8),
    }
    for convolution in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            arrays[f"{convolution}/{part}"] = weights[f"{convolution}.{part}"]
    arrays["position_encodings/encodings"] = weights["embed_positions.weight"]
    linear = {"self_attention/linear_1": "self_attn.out_proj", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
    norms = {"self_attention/layer_norm": "self_attn_layer_norm", "ffn/layer_norm": "final_layer_norm"}
    for block in range(oracle.BLOCKS):
        own, theirs = f"layers.{block}.", f"layer_{block}/"
        attention = f"{own}self_attn."
        parts = [weights[f"{attention}{part}_proj.weight"] for part in "qkv"]
        arrays[f"{theirs}self_attention/linear_0/weight"] = np.concatenate(parts)
        queries, values = (weights[f"{attention}{part}_proj.bias"] for part in "qv")
        arrays[f"{theirs}self_attention/linear_0/bias"] = np.concatenate((queries, 0 * queries, values))
        for name, same in linear.items():
            arrays |= {f"{theirs}{name}/{part}": weights[f"{own}{same}.{part}"] for part in ("weight", "bias")}
        for name, same in norms.items():
            arrays[f"{theirs}{name}/gamma"] = weights[f"{own}{same}.weight"]
            arrays[f"{theirs}{name}/beta"] = weights[f"{own}{same}.bias"]
    arrays |= {"layer_norm/gamma": weights["layer_norm.weight"], "layer_norm/beta": weights["layer_norm.bias"]}
    if change:
        change(arrays)
    kinds = [np.dtype(kind) for kind in (np.float32, np.int8, np.int16, np.int32, np.float16)]
    named = {f"{prefix}{name}": array for name, array in arrays.items()} | {"decoder/scale": np.ones(1, np.float32)}
    content = struct.pack("<I", version) + ctranslate2_text(specification) + struct.pack("<II", 3, len(named))
    for name, array in named.items():
        content += ctranslate2_text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        content += struct.pack("<BI", kinds.index(array.dtype), array.nbytes) + array.tobytes()
    (folder / "model.bin").write_bytes(content + struct.pack("<I", 0))
    return folder


def tokens_of(folder, name="window"):
    return load_encoder(folder).tokens(oracle.recording(name))


@pytest.mark.parametrize("name", oracle.LENGTHS)
def test_all_outputs_of_a_small_encoder_are_those_of_hugging_face(tmp_path, name):
    """With 128 mel bands, and the final norm."""
    made = convert(hugging_face(tmp_path / "source"), tmp_path / "out", outputs=ALL_OUTPUTS)
    found = tokens_of(made.out, name)
    wanted = np.load(oracle.VALUES)[f"small_{name}"]
    assert np.abs(found[oracle.places(len(found))] - wanted).max() < 2e-3
    assert (np.abs(wanted).max(axis=(0, 2)) > 1).all()


def test_what_is_converted_says_where_it_comes_from(tmp_path):
    made = convert(hugging_face(tmp_path / "source"), tmp_path / "deep" / "whisper-made-up")
    spec = read_encoder_spec(made.out)
    assert spec == made.encoder
    assert (spec.encoder, spec.license) == ("whisper-made-up", "MIT")
    assert spec.source == "https://huggingface.co/openai/whisper-made-up"
    assert spec.revision.startswith("model.safetensors with SHA-256 ")
    assert (spec.n_mels, spec.width, spec.outputs, spec.max_tokens) == (oracle.BANDS, oracle.WIDTH, (1, 2), 1500)
    assert (made.n_blocks, made.n_bytes) == (oracle.BLOCKS, (made.out / GRAPH_FILE).stat().st_size)
    assert sorted(path.name for path in made.out.iterdir()) == ["encoder.json", "encoder.onnx"]
    assert [path.name for path in made.out.parent.iterdir()] == ["whisper-made-up"]


def test_weights_of_somebody_else_are_under_no_license_that_is_known(tmp_path):
    source = hugging_face(tmp_path / "source", _name_or_path="somebody/whisper-tuned")
    assert convert(source, tmp_path / "out").encoder.license == "see source"
    assert convert(source, tmp_path / "out", license="CC BY 4.0", overwrite=True).encoder.license == "CC BY 4.0"


def test_only_the_blocks_that_are_read_are_in_the_file(tmp_path):
    source = hugging_face(tmp_path / "source")
    sizes = [convert(source, tmp_path / str(last), outputs=(last,)).n_bytes for last in ALL_OUTPUTS]
    block = 2 * 12 * oracle.WIDTH**2
    assert all(after - before > block for before, after in itertools.pairwise(sizes[:4]))
    assert sizes[4] - sizes[3] < 3000


def test_outputs_come_in_the_order_asked_for(tmp_path):
    source = hugging_face(tmp_path / "source")
    some, reversed_ = (convert(source, tmp_path / f"{o[0]}-{o[1]}", outputs=o).out for o in ((0, 2), (2, 0)))
    assert np.array_equal(tokens_of(some), tokens_of(reversed_)[:, ::-1])


@pytest.mark.parametrize("prefix", ["encoder.", "model.encoder."])
@pytest.mark.parametrize("kind", [np.float32, ml_dtypes.bfloat16])
def test_names_and_kinds_of_numbers_make_no_difference(tmp_path, prefix, kind):
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in oracle.random_weights().items()}
    half = {name: array.astype(np.float16) for name, array in rounded.items()}
    given = {name: array.astype(kind) for name, array in rounded.items()}
    first = convert(hugging_face(tmp_path / "half", half), tmp_path / "first")
    second = convert(hugging_face(tmp_path / "given", given, prefix), tmp_path / "second")
    assert first.encoder.sha256 == second.encoder.sha256


@pytest.mark.parametrize("as_file", [True, False])
def test_ctranslate2_gives_the_same_encoder(tmp_path, as_file):
    source = ctranslate2(tmp_path / "ctranslate2")
    first = convert(hugging_face(tmp_path / "source"), tmp_path / "first")
    second = convert(source / "model.bin" if as_file else source, tmp_path / "second", license="MIT", origin="here")
    assert first.encoder.sha256 == second.encoder.sha256
    assert (second.encoder.source, second.encoder.license) == ("here", "MIT")


@pytest.mark.parametrize(
    ("n_blocks", "outputs"),
    [(1, (1,)), (2, (1,)), (4, (1, 2, 3)), (6, (2, 3, 4, 5)), (12, (4, 6, 8, 10)), (24, (8, 12, 16, 20))],
)
def test_outputs_that_are_read_by_default(n_blocks, outputs):
    assert default_outputs(n_blocks) == outputs


def test_the_default_outputs_of_every_size_are_those_of_the_encoder():
    for n_blocks in range(1, 40):
        outputs = default_outputs(n_blocks)
        assert len(set(outputs)) == len(outputs)
        assert 1 <= outputs[0] <= outputs[-1] <= n_blocks


def drop(name):
    return lambda arrays: arrays.pop(name)


def quantize(arrays):
    arrays["layer_0/ffn/linear_0/weight"] = arrays["layer_0/ffn/linear_0/weight"].astype(np.int8)


def give_keys_a_bias(arrays):
    arrays["layer_1/self_attention/linear_0/bias"] = np.ones(3 * oracle.WIDTH, dtype=np.float16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "decoder/"}, "holds no encoder, perhaps only a decoder"),
        ({"change": quantize}, "layer_0/ffn/linear_0/weight is int8; expected float32 or float16"),
        ({"specification": "TransformerSpec"}, "a model of TransformerSpec; expected WhisperSpec"),
        ({"version": 5}, "version 6 .it begins with 5."),
        ({"change": give_keys_a_bias}, r"layers\.1\.self_attn\.k_proj\.bias is not zero"),
        ({"change": drop("num_heads")}, "no encoder/num_heads"),
        ({"change": drop("conv1/weight")}, "expected conv1.weight with three dimensions"),
        ({"change": drop("layer_1/ffn/linear_1/bias")}, r"layers\.1\.fc2\.bias is missing; expected shape \(128,\)"),
    ],
)
def test_a_ctranslate2_file_of_something_else_is_refused(tmp_path, options, message):
    source = ctranslate2(tmp_path / "source", **options)
    with pytest.raises(EncoderError, match=message):
        convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_ctranslate2_file_that_is_cut_short_is_refused(tmp_path, share):
    path = ctranslate2(tmp_path / "source") / "model.bin"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * (len(content) - 60))])
    with pytest.raises(EncoderError, match="cut short"):
        convert(path, tmp_path / "out")


@pytest.mark.parametrize("content", [b"PK\3\4" * 50, b"\x80\x02}q\x00." * 50, b"\6\0\0\0" + b"\xff" * 99_999])
def test_a_file_that_is_no_ctranslate2_file_is_refused(tmp_path, content):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(EncoderError, match=r"no model\.bin of CTranslate2"):
        convert(tmp_path / "model.bin", tmp_path / "out")


def without(name):
    return {key: array for key, array in oracle.random_weights().items() if key != name}


def with_array(name, array):
    return oracle.random_weights() | {name: array}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (without("conv1.weight"), "no encoder of Whisper"),
        (without("embed_positions.weight"), "no encoder of Whisper"),
        (without("layers.2.self_attn.v_proj.bias"), r"v_proj\.bias is missing; expected shape \(128,\)"),
        (with_array("layers.0.fc1.weight", np.ones((128, 128), np.float16)), r"of shape \(128, 128\).* \(512, 128\)"),
        (with_array("conv2.bias", np.full(128, np.nan, np.float16)), "conv2.bias holds nan; expected finite numbers"),
        (with_array("conv2.bias", np.full(128, 1e6, np.float32)), "conv2.bias holds 1000000.0; expected finite"),
        (with_array("conv2.bias", np.ones(128, np.int8)), "weights of type .*int8; expected float16, bfloat16 or"),
        (with_array("layers.4.fc1.bias", np.ones(512, np.float16)), r"blocks \[0, 1, 2, 4\]; expected all from 0 on"),
        ({"weight": np.ones(3, np.float32)}, "no encoder of Whisper"),
    ],
)
def test_weights_that_are_not_those_of_whisper_are_refused(tmp_path, weights, message):
    source = hugging_face(tmp_path / "source", weights)
    with pytest.raises(EncoderError, match=message):
        convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "wav2vec2"}, "model_type 'wav2vec2'; expected 'whisper'"),
        ({"encoder_attention_heads": "two"}, "encoder_attention_heads 'two'; expected a number"),
        ({"encoder_attention_heads": 3}, "3 heads in a width of 128; expected a divisor"),
        ({"activation_function": "relu"}, "activation_function 'relu'.* expected 'gelu'"),
        ({"scale_embedding": True}, "scale_embedding True"),
    ],
)
def test_a_configuration_of_something_else_is_refused(tmp_path, config, message):
    with pytest.raises(EncoderError, match=message):
        convert(hugging_face(tmp_path / "source", **config), tmp_path / "out")


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    source = hugging_face(tmp_path / "source")
    out = tmp_path / "out"
    content = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(content[:-9])
    with pytest.raises(
        EncoderError, match=r"model\.safetensors: cannot be read as safetensors .* fetch the file again"
    ):
        convert(source, out)
    (source / "model.safetensors").write_bytes(content)
    (source / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"config\.json: cannot be read"):
        convert(source, out)
    (source / "config.json").unlink()
    with pytest.raises(EncoderError, match=r"config\.json: missing"):
        convert(source, out)
    (source / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"no model\.safetensors and no model\.bin"):
        convert(source, out)
    (source / "model.safetensors.index.json").touch()
    with pytest.raises(EncoderError, match=r"in several parts"):
        convert(source, out)
    with pytest.raises(UsageError, match="no such file or folder"):
        convert(tmp_path / "nowhere", out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tiny.en.pt"])
def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path, name):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / name).symlink_to("/dev/full")  # reading it would never end
    for source in (tmp_path / "source", tmp_path / "source" / name):
        if source.is_dir() or source.is_file():
            with pytest.raises(EncoderError, match=rf"{name}: a pickle.* use model\.safetensors of the same"):
                convert(source, tmp_path / "out")


@pytest.mark.parametrize("outputs", [(0, 5), (-1,), (1, 1)])
def test_outputs_that_are_not_there_are_refused(tmp_path, outputs):
    with pytest.raises(UsageError, match=r"expected different numbers from 0 to 4: .* has 3 blocks"):
        convert(hugging_face(tmp_path / "source"), tmp_path / "out", outputs=outputs)


@pytest.mark.parametrize("text", ["", "1,,2", "1;2", "-1", "1.5", "one", "1" * 5000])
def test_what_is_no_list_of_outputs_is_refused(text):
    with pytest.raises(UsageError, match="expected numbers of outputs, such as 1,2,3"):
        read_outputs(text)


def test_what_lies_in_the_way_is_kept(tmp_path):
    source, out = hugging_face(tmp_path / "source"), tmp_path / "out"
    out.mkdir()  # an empty folder is no obstacle
    first = convert(source, out, outputs=(1,))
    with pytest.raises(OutputError, match=r"holds an encoder already; .* --overwrite"):
        convert(source, out, outputs=(2,))
    assert load_encoder(out).spec == first.encoder
    assert convert(source, out, outputs=(2,), overwrite=True).encoder == load_encoder(out).spec != first.encoder
    (out / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"holds something else \(notes.txt\)"):
        convert(source, out, overwrite=True)
    with pytest.raises(OutputError, match="a file; name a folder"):
        convert(source, out / "notes.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_an_encoder_that_fails_when_it_is_tried_is_not_written(tmp_path, monkeypatch):
    source, out = hugging_face(tmp_path / "source"), tmp_path / "out"
    convert(source, out)
    before = read_encoder_spec(out)
    monkeypatch.setattr(Encoder, "tokens", lambda _self, samples: np.full((1, 2, 128), np.nan))
    with pytest.raises(EncoderError, match="numbers that are not finite"):
        convert(source, out, outputs=(3,), overwrite=True)
    assert load_encoder(out).spec == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize("name", ["", "a/b", "two words", "x" * 101])
def test_a_name_that_no_table_could_hold_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"expected letters, digits, .* give one with --name"):
        convert(hugging_face(tmp_path / "source"), tmp_path / "out", name=name)


@pytest.mark.parametrize("package", ["onnx", "safetensors"])
def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf'needs {package} .*pip install "ser-batch\[encoders\]"'):
        convert(hugging_face(tmp_path / "source"), tmp_path / "out")


def test_the_command(tmp_path):
    source, out = hugging_face(tmp_path / "source"), tmp_path / "out"
    done = CliRunner().invoke(cli, ["encoder", "convert", str(source), str(out), "--outputs", "1,3"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{out}: encoder out, outputs 1, 3 of 3 blocks, width 128, 512 numbers per segment, 1.8 MB" in done.stdout
    again = CliRunner().invoke(cli, ["encoder", "convert", str(source), str(out)])
    assert again.exit_code == 1
    shutil.rmtree(source)
    assert CliRunner().invoke(cli, ["encoder", "convert", str(source), str(out), "--overwrite"]).exit_code == 2
    assert load_encoder(out).spec.outputs == (1, 3)
