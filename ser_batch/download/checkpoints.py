"""Fetch the weights of speech encoders: config.json and model.safetensors of Whisper from Hugging Face."""

from dataclasses import dataclass
from pathlib import Path

from ser_batch.download.fetching import Report, fetch
from ser_batch.download.ravdess import DownloadSummary, check_address
from ser_batch.errors import OutputError, UsageError, did_you_mean

HUGGING_FACE = "https://huggingface.co/openai"


@dataclass(frozen=True)
class Checkpoint:
    """One revision of the files of a checkpoint, which its publisher cannot change.

    Parameters
    ----------
    revision
        The commit on Hugging Face.
    config
        Git's hash of config.json as a blob, which names the file there.
    weights
        SHA-256 of model.safetensors, which names it there.
    """

    revision: str
    config: str
    weights: str


CHECKPOINTS: dict[str, Checkpoint] = {
    "whisper-tiny.en": Checkpoint(
        "87c7102498dcde7456f24cfd30239ca606ed9063",
        "31c9f364d610705cd391e465d49df5f8e77fd868",
        "db59695928ded6043adaef491a53ef4e12da9611184d77c53baa691a60b958ad",
    ),
    "whisper-tiny": Checkpoint(
        "169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        "417aa9de49a132dd3eb6a56d3be2718b15f08917",
        "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395",
    ),
    "whisper-base.en": Checkpoint(
        "911407f4214e0e1d82085af863093ec0b66f9cd6",
        "0e9af059a5d452f97d3493ffb4da98712c8fd711",
        "d4dd5542fd6a1d35639e21384238f3bfe6c557c849d392b5905d33ee29e71db5",
    ),
    "whisper-base": Checkpoint(
        "e37978b90ca9030d5170a5c07aadb050351a65bb",
        "708cca09e7e8a9364e444efe8b4f9c2691fc5f51",
        "07cadb9f25677c8d50df603e66a98fbd842cce45047139baeb16e6219a1e807b",
    ),
    "whisper-small.en": Checkpoint(
        "e8727524f962ee844a7319d92be39ac1bd25655a",
        "441d82a4be08ee59609c374a4d5082641677466e",
        "6014ac49b506df900f66f4aca6b0801eed7245594ace97bcaf73e0ae5b863066",
    ),
    "whisper-small": Checkpoint(
        "973afd24965f72e36ca33b3055d56a652f456b4d",
        "113bb3efe3a7396f2ea629eef12637bd8085238d",
        "1d7734884874f1a1513ed9aa760a4f8e97aaa02fd6d93a3a85d27b2ae9ca596b",
    ),
    "whisper-medium": Checkpoint(
        "abdf7c39ab9d0397620ccaea8974cc764cd0953e",
        "eda91ab1edc34a7c54512ed7a53e643b202387af",
        "62f73550fa6db24b0c6f6c5962bd0dae80fa644e93cde9cd9c3792971b47fd28",
    ),
    "whisper-large-v2": Checkpoint(
        "ae4642769ce2ad8fc292556ccea8e901f1530655",
        "1ce74630ed587e80f3db2b3d434f7026327f131e",
        "57a1ba2a82c093cabff2541409ae778c97145378b9ddfa722763cb1cb8f9020b",
    ),
    "whisper-large-v3": Checkpoint(
        "06f233fe06e710322aca913c1bc4249a0d71fce1",
        "14c6c8cf48b64ebb1cb8b637e2b0fab3a9774972",
        "a8e94b85976e5864ba3e9525c7e6c83b2a1eca42d4b797a0c7c24d778e40fd95",
    ),
    "whisper-large-v3-turbo": Checkpoint(
        "41f01f3fe87f28c78e2fbf8b568835947dd65ed9",
        "ad2f44ff1ed66e12765b2392dc041469db91a462",
        "542566a422ae4f3fd23f1ba11add198fca01bbf82e66e6a2857b3f608b1eb9d1",
    ),
}


def download_checkpoint(
    name: str,
    out: Path,
    *,
    url: str | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report | None = None,
) -> DownloadSummary:
    """Fetch the weights of an encoder, for `ser-batch encoder convert`.

    The same call does only what is missing, as `download_ravdess`.

    Parameters
    ----------
    name
        Such as ``whisper-base``.
    out
        The folder to write to; made if it is not there.
    url
        The folder on the web that holds config.json and model.safetensors; None: the fixed revision on Hugging Face.
    checkpoint
        The checksums; None takes those that are known for `name`.
    report
        Called as ``report(file_name, bytes_done, bytes_total)`` for every piece that came.

    Raises
    ------
    UsageError
        There is no checkpoint of that name, or `url` is not an address on the web.
    DownloadError
        A file cannot be fetched, or has another checksum.
    OutputError
        `out` cannot be written.
    """
    checkpoint = checkpoint or CHECKPOINTS.get(name)
    if checkpoint is None:
        raise UsageError(
            f"{name}: no such checkpoint; expected one of {', '.join(CHECKPOINTS)}{did_you_mean(name, CHECKPOINTS)}"
        )
    address = url or f"{HUGGING_FACE}/{name}/resolve/{checkpoint.revision}"
    check_address(address)
    checksums = {"config.json": f"git:{checkpoint.config}", "model.safetensors": f"sha256:{checkpoint.weights}"}
    fetched: list[str] = []
    already_here: list[str] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, checksum in checksums.items():
            came = fetch(file, checksum, f"{address.rstrip('/')}/{file}", out.absolute(), report)
            (fetched if came else already_here).append(file)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}). Name another folder with --out") from error
    return DownloadSummary(out, 0, tuple(fetched), tuple(already_here))
