"""The list of the files in a checkpoint or artifact, by which damage is detected.

MANIFEST.json is {"format": 2, "files": {"model.safetensors": {"size": bytes, "sha256_tree": hex}, ...}}. The tree hash
of a file is the SHA-256 of the SHA-256 digests of its pieces of 16 MiB, which several threads compute at the same time.
Manifests of the first format have no number, and in each entry the `sha256` of the whole file.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.weights.json_file import read_json

MANIFEST = "MANIFEST.json"
FORMAT = 2
PIECE_BYTES = 16 * 2**20
_THREADS = min(8, os.cpu_count() or 1)


def write_manifest(directory: Path) -> None:
    """Record size and hash of every file in `directory`; call it last, before the directory gets its final name."""
    paths = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    files = {path.name: {"size": path.stat().st_size, "sha256_tree": tree_hash_of(path)} for path in paths}
    with open(directory / MANIFEST, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "files": files}, file, indent=2)
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
        content = read_json(directory / MANIFEST)
    except DataError as error:
        return [error.message.removeprefix(f"{directory}{os.sep}")]
    number, files = content.get("format", 1), content.get("files")
    if type(number) is int and number > FORMAT:
        return [f"{MANIFEST} was written by a newer vitcli (format {number}, this one reads up to {FORMAT})"]
    name, hash_of = ("sha256", sha256_of) if number == 1 else ("sha256_tree", tree_hash_of)
    if not isinstance(files, dict) or not files or not all(_is_entry(*item, name) for item in files.items()):
        return [f'{MANIFEST} cannot be read (it is not {{"files": {{name: {{"size": bytes, "{name}": hex}}}}}})']
    unlisted = [f"{file} is not in {MANIFEST}" for file in sorted(set(required) - files.keys())]
    problems = (_problem(directory / file, entry["size"], entry[name], hash_of) for file, entry in files.items())
    return unlisted or [problem for problem in problems if problem]


def tree_hash_of(path: Path) -> str:
    """The SHA-256 of the digests of the pieces of the file, in hexadecimal."""
    starts = range(0, path.stat().st_size, PIECE_BYTES)
    with ThreadPoolExecutor(_THREADS) as pool:  # hashlib lets other threads run
        return hashlib.sha256(b"".join(pool.map(partial(_piece_digest, path), starts))).hexdigest()


def _piece_digest(path: Path, start: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(PIECE_BYTES)).digest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_entry(name: str, entry: Any, hash_name: str) -> bool:
    """Whether `name` is the name of a file in the same directory, and `entry` its size and hash."""
    is_name = Path(name).name == name and 0 < len(name.encode(errors="replace")) <= 255
    size, digest = (entry.get("size"), entry.get(hash_name)) if isinstance(entry, dict) else (None, None)
    is_digest = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None
    return is_name and type(size) is int and size >= 0 and is_digest


def _problem(path: Path, size: int, digest: str, hash_of: Callable[[Path], str]) -> str | None:
    try:
        if not path.is_file():
            return f"{path.name} is missing"
        found = path.stat().st_size
        if found != size:
            return f"{path.name} has {found:,} bytes instead of {size:,}"
        if hash_of(path) != digest:
            return f"{path.name} was changed: its hash is not the one in {MANIFEST}"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return None
