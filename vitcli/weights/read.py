"""Reads the tensors of weights of any known format, from a path or an address, without running code from a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import normalize

import safetensors
from torch import Tensor

from vitcli.errors import DataError, WeightsError
from vitcli.models.fastvit_keys import is_apple, is_fastvit
from vitcli.models.vit_keys import family_of
from vitcli.weights.address import WEB, check_there, is_remote
from vitcli.weights.checkpoint_folders import STATE, check_format, problems_in
from vitcli.weights.fetch import fetch
from vitcli.weights.hub_folder import INDEX, files_in, is_hub_folder, read_meta, weights_in
from vitcli.weights.json_file import parse_json, read_json
from vitcli.weights.mindspore import is_mindspore, read_mindspore
from vitcli.weights.npz import read_npz
from vitcli.weights.torch_file import read_torch

#: key in the metadata of a safetensors file: what this project knows about the weights, as JSON
PACKED = "vitcli"
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
#: how the names of the trained network begin in the state of byol-pytorch's learner
LEARNER = "online_encoder.net."
#: entries of `Weights.meta` that this project reads; other trainers store text of their own under the same names
TYPES = {
    **dict.fromkeys(("recipe", "options", "preprocessing", "config", "preprocessor_config", "findings"), dict),
    "class_names": list,
    "task": str,
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Tensors under their names in the file, without the prefixes of wrappers; `meta` is what else the file says."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    source: str = "memory"
    chosen: str | None = None  #: if the file has raw weights and their moving average: the name of those that were read
    prefix: str = ""  #: what was removed from the beginning of all names

    @property
    def class_names(self) -> list[str]:
        """The name of each output, in one spelling of accents (NFC); empty: they have none."""
        return [normalize("NFC", name) for name in self.meta.get("class_names") or ()]

    @property
    def task(self) -> str | None:
        """What the network has learned, a name of `catalog.TASKS`, where that is stated."""
        if self.meta.get("config", {}).get("problem_type") == "multi_label_classification":
            return "multilabel"
        return self.meta.get("task") or self.meta.get("recipe", {}).get("task")


def read_weights(source: str | Path, *, use_ema: bool | None = None) -> Weights:
    """The weights in `source`, on the CPU.

    Args:
        source: a checkpoint directory of this project, a folder of timm or transformers with its config.json, or a
            file: safetensors, PyTorch (.pth, .pt, .pth.tar, .bin), Google's .npz, MindSpore's .ckpt. The format is
            detected from the content, not from the name. Or an address for `fetch`.
        use_ema: the moving average of the weights, and a file without one is refused; or the raw weights; None: the
            average if there is one. If there are both, `Weights.chosen` says which were read.

    Raises:
        DataError: there is no such file, or it is empty, cut off, damaged or not a weights file.
        WeightsError: it holds objects other than tensors and plain values, or no weights.
        UsageError: the address cannot be fetched here.
    """
    path = fetch(source)
    config: dict[str, Any] = {}
    if path.is_dir():
        if not is_hub_folder(path):
            return _read_checkpoint(path, use_ema=use_ema)
        config, path = read_meta(path), weights_in(path) or path
    try:
        tensors, meta, chosen = _read_file(path, use_ema=use_ema)
    except DataError:
        if str(source).startswith(WEB):  # so that the next attempt downloads it again
            path.unlink(missing_ok=True)
        raise
    name = str(source) if is_remote(source) else str(path)
    tensors = {_without_prefixes(key): tensor for key, tensor in tensors.items()}
    prefix = _common_prefix(tensors)
    tensors = {key.removeprefix(prefix): tensors[key] for key in tensors}
    if of_learner := {key.removeprefix(LEARNER): tensors[key] for key in tensors if key.startswith(LEARNER)}:
        tensors, meta = of_learner, meta | {"learner": LEARNER}
    return Weights(tensors, meta | config, name, chosen, prefix)


def _read_file(path: Path, *, use_ema: bool | None) -> tuple[dict[str, Tensor], dict[str, Any], str | None]:
    """The tensors, what else the file says, and `Weights.chosen`."""
    if path.name.endswith(INDEX):
        return _read_shards(path, use_ema=use_ema), {}, None
    kind = _kind_of(path)
    if use_ema and kind != "torch":
        raise WeightsError(f"{path} holds one set of weights and no moving average")
    if kind == "safetensors":
        return *_read_safetensors(path), None
    if kind == "npz":
        return read_npz(path), {}, None
    tensors, meta, chosen = read_torch(path, use_ema=use_ema) if kind == "torch" else (*read_mindspore(path), None)
    return tensors, {name: value for name, value in meta.items() if name not in TYPES}, chosen


def _read_shards(index: Path, *, use_ema: bool | None) -> dict[str, Tensor]:
    """The tensors of all files that an index names."""
    tensors: dict[str, Tensor] = {}
    for file, names in files_in(index).items():
        found, *_ = _read_file(index.with_name(file), use_ema=use_ema)
        if missing := [name for name in names if name not in found]:
            message = f"{index.with_name(file)} lacks {missing[0]}, which {index.name} names"
            raise DataError(message, help="copy or download it again")
        tensors |= found
    return tensors


def _read_checkpoint(directory: Path, *, use_ema: bool | None) -> Weights:
    if (directory / "checkpoints").is_dir():
        help = f"give one of its checkpoints in {directory / 'checkpoints'}"
        raise WeightsError(f"{directory} is a run", help=help)
    if problems := problems_in(directory):
        raise DataError(f"checkpoint {directory} is damaged: {'; '.join(problems)}", help="use an older checkpoint")
    averaged = directory / "ema.safetensors"
    path = averaged if use_ema or (use_ema is None and averaged.exists()) else directory / "model.safetensors"
    if not path.exists():
        raise WeightsError(f"checkpoint {directory} has no {path.name}")
    tensors, _ = _read_safetensors(path)
    meta = _checked(read_json(directory / STATE), str(directory / STATE))
    check_format(meta, directory)
    return Weights(tensors, meta, str(path))


def _kind_of(path: Path) -> str:
    """The format, "safetensors", "torch", "npz" or "mindspore", by the first bytes; DataError for anything else."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        check_there(path)
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise DataError(f"{path} is empty", help="download it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"  # first, as the length of its header may look like the beginning of another format
    if head.startswith(b"PK"):  # a zip archive of PyTorch or NumPy, by the name of its first entry
        return "npz" if head[30 : 30 + int.from_bytes(head[26:28], "little")].endswith(b".npy") else "torch"
    if head.startswith(b"\x80"):  # the plain pickle of PyTorch before 1.6
        return "torch"
    if head[8:9] == b"{":  # it is cut off
        return "safetensors"
    if head.lstrip().startswith(b"<"):
        raise DataError(f"{path} is a web page, not weights", help="download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a Git LFS pointer, not weights", help="run `git lfs pull`")
    if is_mindspore(head):
        return "mindspore"
    formats = "safetensors, PyTorch, NumPy's .npz or MindSpore's .ckpt"
    raise DataError(f"{path} is not a weights file", help=f"give a file in one of these formats: {formats}")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            tensors, metadata = {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
        packed = parse_json(metadata.pop(PACKED, "{}"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or cut off ({error})", help="download or copy it again") from error
    texts = {name: text for name, text in metadata.items() if name not in TYPES}
    return tensors, texts | _checked(packed, str(path))


def _checked(meta: dict[str, Any], source: str) -> dict[str, Any]:
    """What this project wrote next to tensors, without empty entries. DataError for an entry of another type."""
    meta = {name: value for name, value in meta.items() if value is not None}
    wrong = [name for name, kind in TYPES.items() if not isinstance(meta.get(name, kind()), kind)]
    if not wrong and not all(isinstance(name, str) for name in meta.get("class_names", [])):
        wrong = ["class_names"]
    if wrong:
        raise DataError(f"{source} is damaged: {wrong[0]} has the wrong type", help="copy it again")
    return meta


def _common_prefix(tensors: Mapping[str, Tensor]) -> str:
    """How all names begin, if without it they are those of a known model; otherwise empty."""
    parts = next(iter(tensors), "").split(".")
    prefixes = [".".join(parts[:count]) + "." for count in range(1, len(parts))]
    common = [prefix for prefix in prefixes if all(name.startswith(prefix) for name in tensors)]
    if not common or _is_known(tensors):
        return ""
    return next((prefix for prefix in common if _is_known(name.removeprefix(prefix) for name in tensors)), "")


def _is_known(names: Iterable[str]) -> bool:
    names = set(names)
    return family_of(names) is not None or is_fastvit(names) or is_apple(names)


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name.replace("._orig_mod.", ".")
