"""Read the tensors of weights, whoever wrote them and wherever they are, without ever running code out of a file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from vitcli.errors import DataError, WeightsError
from vitcli.weights.checkpoint_folders import check_format
from vitcli.weights.fetch import WEB, fetch, is_remote
from vitcli.weights.hub_folder import is_hub_folder, read_meta, weights_in
from vitcli.weights.manifest import verify_manifest
from vitcli.weights.mindspore import is_mindspore, read_mindspore
from vitcli.weights.npz import read_npz
from vitcli.weights.torch_file import read_torch

#: in the metadata of a safetensors file: what this project knows of the weights, as JSON
PACKED = "vitcli"
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
#: how the names of the trained network begin in the state of byol-pytorch's learner
LEARNER = "online_encoder.net."
#: the entries beside tensors that are understood here; under the same names, trainers keep texts of their own
TYPES = {
    **dict.fromkeys(("recipe", "options", "preprocessing", "config", "preprocessor_config"), dict), "class_names": list
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Tensors under the names of the file, less the prefixes of wrappers; `meta` is what else the file says."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    source: str = "memory"


def read_weights(source: str | Path, *, use_ema: bool = False) -> Weights:
    """The weights in `source`, on the CPU.

    Args:
        source: a checkpoint directory of this project, a folder of timm's or transformers' with its config.json, or a
            file: safetensors, PyTorch (.pth, .pt, .pth.tar, .bin), Google's .npz, MindSpore's .ckpt. The kind is told
            by the content, not by the name. Or an address for `fetch`.
        use_ema: take the moving average of the weights; a file without one is refused.

    Raises:
        DataError: there is no such file, or it is empty, cut off or not a weights file.
        WeightsError: it holds objects other than tensors and plain values, or no weights.
        UsageError: an address that cannot be fetched here.
    """
    path = fetch(source)
    beside: dict[str, Any] = {}
    if path.is_dir():
        if not is_hub_folder(path):
            return _read_checkpoint(path, use_ema=use_ema)
        beside, path = read_meta(path), weights_in(path) or path
    try:
        tensors, meta = _read_file(path, use_ema=use_ema)
    except DataError:
        if str(source).startswith(WEB):  # the next attempt shall download it again
            path.unlink(missing_ok=True)
        raise
    name = str(source) if is_remote(source) else str(path)
    meta = {key: value for key, value in meta.items() if isinstance(value, TYPES.get(key, object))}
    tensors = {_without_prefixes(key): tensor for key, tensor in tensors.items()}
    if of_learner := {key.removeprefix(LEARNER): tensors[key] for key in tensors if key.startswith(LEARNER)}:
        tensors, meta = of_learner, meta | {"learner": LEARNER}
    return Weights(tensors, meta | beside, name)


def _read_file(path: Path, *, use_ema: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    kind = _kind_of(path)
    if kind == "torch":
        return read_torch(path, use_ema=use_ema)
    if use_ema:
        raise WeightsError(f"{path} holds one set of weights, not a moving average beside it")
    if kind == "mindspore":
        return read_mindspore(path)
    return _read_safetensors(path) if kind == "safetensors" else (read_npz(path), {})


def _read_checkpoint(directory: Path, *, use_ema: bool) -> Weights:
    if (directory / "checkpoints").is_dir():
        raise WeightsError(
            f"{directory} is a run", help=f"give one of its checkpoints: {directory / 'checkpoints' / 'best'}"
        )
    problems = verify_manifest(directory)
    if problems:
        raise DataError(f"checkpoint {directory} is damaged: {'; '.join(problems)}", help="use an older checkpoint")
    path = directory / ("ema.safetensors" if use_ema else "model.safetensors")
    if not path.exists():
        raise WeightsError(f"checkpoint {directory} has no {path.name}")
    tensors, _ = _read_safetensors(path)
    try:
        meta = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"checkpoint {directory}: state.json cannot be read ({error})") from error
    check_format(meta, directory)
    return Weights(tensors, meta, str(path))


def _kind_of(path: Path) -> str:
    """The format, "safetensors", "torch", "npz" or "mindspore", by the first bytes; DataError for anything else."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise DataError(f"{path} is empty", help="download it again")
    if head.startswith(b"PK"):  # a zip archive, PyTorch's or NumPy's; the name of its first entry tells
        return "npz" if head[30 : 30 + int.from_bytes(head[26:28], "little")].endswith(b".npy") else "torch"
    if head.startswith(b"\x80"):  # the plain pickle of PyTorch before 1.6
        return "torch"
    if head[8:9] == b"{":  # behind the length of the header
        return "safetensors"
    if head.lstrip().startswith(b"<"):
        raise DataError(f"{path} is a web page, not weights", help="the download was refused; fetch the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a pointer of git-lfs, not weights", help="run `git lfs pull`")
    if is_mindspore(head):
        return "mindspore"
    raise DataError(f"{path} is neither a safetensors nor a PyTorch file, nor NumPy's .npz, nor MindSpore's .ckpt")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, _unpacked(dict(file.metadata() or {}))
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged or cut off ({error})", help="download or copy it again") from error


def _unpacked(metadata: dict[str, str]) -> dict[str, Any]:
    """The texts that safetensors keeps beside tensors, with `PACKED` taken apart."""
    try:
        packed = json.loads(metadata.get(PACKED, "{}"))
    except ValueError:
        return metadata
    rest = {name: text for name, text in metadata.items() if name != PACKED}
    return rest | packed if isinstance(packed, dict) else metadata


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name.replace("._orig_mod.", ".")
