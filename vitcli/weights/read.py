"""Read the tensors of a weights file, whatever wrote it, without ever running code out of it."""

import argparse
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from vitcli.errors import DataError, WeightsError
from vitcli.weights.manifest import verify_manifest

WRAPPERS = ("state_dict", "model", "model_state_dict")
EMA_WRAPPERS = ("state_dict_ema", "model_ema", "ema")
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


@dataclass(frozen=True)
class Weights:
    """Tensors under the names of the file, less the prefixes of wrappers; `meta` is what else the file says."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    source: str = "memory"


def read_weights(path: str | Path, *, use_ema: bool = False) -> Weights:
    """The weights in `path`, on the CPU.

    Args:
        path: a checkpoint directory of this project, or a file of safetensors or PyTorch (.pth, .pt, .pth.tar, .bin).
            The kind is told by the content, not by the name.
        use_ema: take the moving average of the weights; a file without one is refused.

    Raises:
        DataError: there is no such file, or it is empty, cut off or not a weights file.
        WeightsError: it holds objects other than tensors and plain values, or no weights.
    """
    path = Path(path)
    if path.is_dir():
        return _read_checkpoint(path, use_ema=use_ema)
    kind = _kind_of(path)
    if kind == "safetensors":
        if use_ema:
            raise WeightsError(f"{path} holds one set of weights, not a moving average beside it")
        tensors, meta = _read_safetensors(path)
    else:
        tensors, meta = _unwrap(_read_torch(path), path, use_ema=use_ema)
    return Weights({_without_prefixes(name): tensor for name, tensor in tensors.items()}, meta, str(path))


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
    return Weights(tensors, meta, str(path))


def _kind_of(path: Path) -> str:
    """The format, "safetensors" or "torch", by the first bytes; DataError for anything else."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise DataError(f"{path} is empty", help="download it again")
    if head.startswith((b"PK", b"\x80")):  # zip archive, or the plain pickle of PyTorch before 1.6
        return "torch"
    if head[8:9] == b"{":  # behind the length of the header
        return "safetensors"
    if head.lstrip().startswith(b"<"):
        raise DataError(f"{path} is a web page, not weights", help="the download was refused; fetch the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a pointer of git-lfs, not weights", help="run `git lfs pull`")
    raise DataError(f"{path} is neither a safetensors nor a PyTorch file")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged or cut off ({error})", help="download or copy it again") from error


def _read_torch(path: Path) -> Any:
    try:
        # timm and Apple's trainer keep their command line in the file; this one class is harmless.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported" not in str(error):  # of torch's messages, only those about forbidden objects say so
            raise DataError(f"{path} is damaged or cut off", help="download or copy it again") from error
        raise WeightsError(
            f"{path} holds more than tensors and plain values; reading it would run code out of the file",
            help="save its state dict as .safetensors where the file comes from",
        ) from error
    except (EOFError, OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged or cut off ({reason})", help="download or copy it again") from error


def _unwrap(content: Any, path: Path, *, use_ema: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict inside what a trainer saved, and the plain values beside it."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    wrappers = EMA_WRAPPERS if use_ema else WRAPPERS
    found = [content[name] for name in wrappers if isinstance(content.get(name), Mapping)]
    if use_ema and not found:
        raise WeightsError(f"{path} holds no moving average of the weights (looked for {', '.join(EMA_WRAPPERS)})")
    state = found[0] if found else content
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; its entries are {', '.join(map(str, list(state)[:8]))}")
    plain = (str, int, float, bool)
    beside = {**content, **state} if found else content
    return tensors, {name: value for name, value in beside.items() if isinstance(value, plain)}


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name.replace("._orig_mod.", ".")
