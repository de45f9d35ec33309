"""The list of what a checkpoint directory holds, by which a damaged one is known.

MANIFEST.json is {"files": {"model.safetensors": {"size": bytes, "sha256": hex}, ...}}.
"""

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "MANIFEST.json"


def write_manifest(directory: Path) -> None:
    """Note size and SHA-256 of every file in `directory`; call it last, before the directory gets its final name."""
    paths = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    files = {path.name: _entry(path) for path in paths}
    with open(directory / MANIFEST, "w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def verify_manifest(directory: Path) -> list[str]:
    """What is wrong with `directory`, one sentence per file; empty if it is as it was written.

    Files that the manifest does not name are no problem.
    """
    path = directory / MANIFEST
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
        assert all(isinstance(size, int) and isinstance(digest, str) for size, digest in expected.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        return [f"{MANIFEST} cannot be read ({error or 'sizes are numbers, digests texts'})"]
    problems = (_problem(directory / name, size, sha256) for name, (size, sha256) in expected.items())
    return [problem for problem in problems if problem]


def names_in_manifest(directory: Path) -> set[str]:
    """The files that the manifest of `directory`, found well before, vouches for."""
    return set(json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"])


def _problem(path: Path, size: int, sha256: str) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    found = path.stat().st_size
    if found != size:
        return f"{path.name} has {found:,} bytes instead of {size:,}"
    if _sha256(path) != sha256:
        return f"{path.name} was changed: its SHA-256 is not the noted one"
    return None


def _entry(path: Path) -> dict[str, int | str]:
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
