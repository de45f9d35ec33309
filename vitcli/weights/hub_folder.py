"""Reads the configuration that timm and transformers store next to weights, class names included."""

from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.weights.json_file import read_json

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
#: of large models: which of several files holds each tensor
INDEX = ".index.json"
#: names of the weights in a folder; the first that exists is read
WEIGHTS = ("model.safetensors", "pytorch_model.bin", f"model.safetensors{INDEX}", f"pytorch_model.bin{INDEX}")


def is_hub_folder(folder: Path) -> bool:
    """Whether it looks like a model repository: a configuration and weights."""
    return (folder / CONFIG).is_file() and weights_in(folder) is not None


def weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def files_in(index: Path) -> dict[str, list[str]]:
    """File -> the tensors in it; DataError if the index is damaged, or names files outside of its folder."""
    table = read_json(index).get("weight_map")
    files: dict[str, list[str]] = {}
    for tensor, file in table.items() if isinstance(table, dict) else ():
        if not isinstance(file, str) or Path(file).name != file or file.startswith("."):
            raise DataError(f"{index}: {file!r} is not the name of a file", help="download it again")
        files.setdefault(file, []).append(tensor)
    if not files:
        raise DataError(f"{index} has no weight_map", help="download it again")
    return files


def read_meta(folder: Path) -> dict[str, Any]:
    """{"config": ..., "preprocessor_config": ..., "class_names": [...]}, as far as they exist; DataError if damaged."""
    found = {name: folder / name for name in (CONFIG, PREPROCESSOR) if (folder / name).is_file()}
    meta: dict[str, Any] = {name.removesuffix(".json"): read_json(path) for name, path in found.items()}
    if names := _class_names(meta.get("config", {}), folder / CONFIG):
        meta["class_names"] = names
    return meta


def _class_names(config: dict[str, Any], path: Path) -> list[str]:
    """In the order of the outputs; empty where the file has none or only placeholders (LABEL_0, LABEL_1, ...)."""
    given = config.get("label_names") or config.get("id2label") or []
    try:
        names = [given[index] for index in sorted(given, key=int)] if isinstance(given, dict) else given
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise DataError(f"{path}: the class names are not a list or table of names", help="correct or remove them")
    placeholders = [f"LABEL_{i}" for i in range(len(names))]
    return [] if names == placeholders else [str(name) for name in names]
