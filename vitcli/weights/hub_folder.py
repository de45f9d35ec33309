"""Reads what the Hugging Face hub keeps beside weights: timm's and transformers' configuration, classes included."""

import json
from pathlib import Path
from typing import Any

from vitcli.errors import DataError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
#: the weights of a folder, the first that is there
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def is_hub_folder(folder: Path) -> bool:
    """Whether it has the form of a model repository: a configuration and weights."""
    return (folder / CONFIG).is_file() and weights_in(folder) is not None


def weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def read_meta(folder: Path) -> dict[str, Any]:
    """{"config": ..., "preprocessor_config": ..., "class_names": [...]}, as far as they are there.

    Raises:
        DataError: one of the files is no JSON.
    """
    meta = {name.removesuffix(".json"): _json(folder / name) for name in (CONFIG, PREPROCESSOR)}
    meta = {name: content for name, content in meta.items() if content}
    if names := _class_names(meta.get("config", {})):
        meta["class_names"] = names
    return meta


def _class_names(config: dict[str, Any]) -> list[str]:
    """In the order of the outputs; empty where the file has only placeholders."""
    given = config.get("label_names") or config.get("id2label") or {}
    if isinstance(given, list):
        return [str(name) for name in given]
    try:
        names = [str(given[index]) for index in sorted(given, key=int)]
    except (ValueError, TypeError):
        return []
    return [] if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})", help="download it again") from error
    return content if isinstance(content, dict) else {}
