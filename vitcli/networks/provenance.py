"""The origin of an artifact or a measurement: weights, data, machine, versions."""

import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.networks.opened import Opened
from vitcli.weights.json_file import read_json
from vitcli.weights.manifest import sha256_of


def source_facts(opened: Opened) -> dict[str, Any]:
    """The origin of the network: weights, their training, their data."""
    meta, source = opened.weights.meta, opened.weights.source
    file = Path(source)
    facts: dict[str, Any] = {"weights": _portable(source), "license": meta.get("license", "not stated in the weights")}
    if file.is_file():
        facts["sha256"] = sha256_of(file)
    progress = meta.get("progress", {})
    best = progress.get("best", progress.get("best_top1"))  # its name in the first format
    if best is not None:
        facts["best_mAP" if opened.multi_label else "best_top1"] = best
    data = file.parent.parent.parent / "data.json"
    if "recipe" in meta:
        with suppress(DataError, KeyError, TypeError, ValueError):  # the run may have been moved, or be another one
            known = read_json(data)["train"]
            facts["data"] = f"{known['num_images']:,} images, fingerprint {known['sha256'][:16]}"
    return facts


def _portable(source: str) -> str:
    """An address as it is; of a path what others may know: the file, of a checkpoint also its run."""
    if "://" in source or not Path(source).exists():
        return source
    parts = Path(source).resolve().parts
    num_shown = len(parts) - parts.index("checkpoints") + 1 if "checkpoints" in parts else 1
    return "/".join(parts[-num_shown:])


def machine() -> str:
    """The name of the processor, and its number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def versions(*packages: str) -> dict[str, str]:
    """Package -> installed version, for those that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
