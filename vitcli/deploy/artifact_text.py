"""artifact.txt: what a program needs to run an artifact, as lines of key=value that are read without a JSON parser.

The format is described in deploy/cpp/README.md, whose program reads it. The keys say nothing about the architecture.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitcli.weights.manifest import sha256_of

TEXT = "artifact.txt"
VERSION = 1
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def artifact_text(facts: Mapping[str, Any], labels: Path, network: list[Path]) -> str:
    """The content of artifact.txt.

    Args:
        facts: artifact.json.
        labels: the file with the class names; `network`: all files of the network. All must be written already.
    """
    given, before = facts["input"], facts["preprocessing"]
    channels = before["in_channels"]
    values = {
        "artifact_version": VERSION,
        "model": facts["model"],
        "format": facts["format"],
        "precision": facts["precision"],
        "device": facts["device"],
        "network": facts["file"],
        "labels": labels.name,
        "input_dtype": given["dtype"],
        "input_layout": given["layout"],
        "input_batch": "any" if given["batch"] is None else given["batch"],
        "output": facts["output"],
        "image_resize": before["image_resize"],
        "crop_pct": before["crop_pct"],
        # "random" draws from two filters in training; evaluation uses the second
        "interpolation": "bicubic" if before["interpolation"] == "random" else before["interpolation"],
        "in_channels": channels,
        **{name: _per_channel(before[name], channels) for name in ("mean", "std")},
        **{f"sha256.{path.name}": sha256_of(path) for path in sorted([labels, *network])},
    }
    return with_checksum("".join(f"{key}={_escaped(str(value))}\n" for key, value in values.items()))


def with_checksum(lines: str) -> str:
    """`lines` and a last line with their SHA-256, by which a damaged artifact.txt is detected."""
    return f"{lines}checksum={hashlib.sha256(lines.encode()).hexdigest()}\n"


def _per_channel(values: list[float] | tuple[float, ...], channels: int) -> str:
    repeated = list(values) * (channels if len(values) == 1 else 1)
    return ",".join(str(float(value)) for value in repeated)


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
