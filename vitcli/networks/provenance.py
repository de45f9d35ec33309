"""The origin of an artifact or a measurement: weights, data, machine, versions."""

import hashlib
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.networks.opened import Opened
from vitcli.weights.json_file import read_json


def source_facts(opened: Opened) -> dict[str, Any]:
    """The origin of the network: weights, their training, their data."""
    meta, file = opened.weights.meta, Path(opened.source)
    facts: dict[str, Any] = {"weights": opened.source, "license": meta.get("license", "not stated in the weights")}
    if file.is_file():
        with file.open("rb") as stream:
            facts["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    progress = meta.get("progress", {})
    best = progress.get("best", progress.get("best_top1"))  # its name in the first format
    if best is not None:
        facts["best_top1"] = best
    data = file.parent.parent.parent / "data.json"
    if "recipe" in meta:
        with suppress(DataError, KeyError, TypeError, ValueError):  # the run may have been moved, or be another one
            known = read_json(data)["train"]
            facts["data"] = f"{known['num_images']:,} images, fingerprint {known['sha256'][:16]}"
    return facts


def machine() -> str:
    """The name of the processor, and its number of cores."""
    try:
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def versions(*packages: str) -> dict[str, str]:
    """Package -> installed version, for those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
