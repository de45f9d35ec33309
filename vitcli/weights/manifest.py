"""The list of the files in a checkpoint or artifact, by which damage is detected.

MANIFEST.json is {"files": {"model.safetensors": {"size": bytes, "sha256": hex}, ...}}.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.weights.json_file import read_json

MANIFEST = "MANIFEST.json"


def write_manifest(directory: Path) -> None:
    """Record size and SHA-256 of every file in `directory`; call it last, before the directory gets its final name."""
    paths = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}
    with open(directory / MANIFEST, "w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def verify_manifest(directory: Path, required: Iterable[str] = ()) -> list[str]:
    """What is wrong with `directory`, one sentence per problem; empty if it is as it was written.

    Args:
        required: names of files that the manifest must list. Other files that it does not list are ignored.
    """
    if not (directory / MANIFEST).exists():
        return [f"{MANIFEST} is missing"]
    try:
        files = read_json(directory / MANIFEST).get("files")
    except DataError as error:
        return [error.message.removeprefix(f"{directory}{os.sep}")]
    if not isinstance(files, dict) or not files or not all(_is_entry(*item) for item in files.items()):
        return [f'{MANIFEST} cannot be read (it is not {{"files": {{name: {{"size": bytes, "sha256": hex}}}}}})']
    unlisted = [f"{name} is not in {MANIFEST}" for name in sorted(set(required) - files.keys())]
    problems = (_problem(directory / name, entry["size"], entry["sha256"]) for name, entry in files.items())
    return unlisted or [problem for problem in problems if problem]


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_entry(name: str, entry: Any) -> bool:
    """Whether `name` is the name of a file in the same directory, and `entry` its size and SHA-256."""
    is_name = Path(name).name == name and 0 < len(name.encode(errors="replace")) <= 255
    size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    is_digest = isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) is not None
    return is_name and type(size) is int and size >= 0 and is_digest


def _problem(path: Path, size: int, sha256: str) -> str | None:
    try:
        if not path.is_file():
            return f"{path.name} is missing"
        found = path.stat().st_size
        if found != size:
            return f"{path.name} has {found:,} bytes instead of {size:,}"
        if sha256_of(path) != sha256:
            return f"{path.name} was changed: its SHA-256 is not the one in {MANIFEST}"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return None
