"""The temperature by which the logits of a trained network are divided, so that its probabilities can be trusted.

`vitcli validate RUN --temperature fit` finds it. It is stored in the run, next to the checkpoints, which are never
changed:

    RUN/calibration.json   {"networks": {hash of the weights: {"weights": where they were, "temperature": T, …}}}

A hash belongs to one set of weights, so a temperature is never used for others: not for another checkpoint of the run,
and not for its raw weights if it was fitted for their average.
"""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitcli.disk import write_whole
from vitcli.errors import DataError, UsageError
from vitcli.weights.json_file import read_json
from vitcli.weights.manifest import MANIFEST
from vitcli.weights.read import Weights

CALIBRATION = "calibration.json"
_AGAIN = "remove it and fit again: vitcli validate RUN --temperature fit"


def stored_temperature(weights: Weights) -> float:
    """The temperature that was fitted for these weights; 1: none was.

    Raises:
        DataError: the file is damaged.
    """
    place = _place_of(weights)
    if place is None or not place[0].is_file():
        return 1.0
    file, identity = place
    entry = _networks_in(file).get(identity, {"temperature": 1.0})
    temperature = entry.get("temperature") if isinstance(entry, dict) else None
    if not isinstance(temperature, float) or not 0 < temperature < math.inf:
        raise DataError(f"{file} is damaged: a temperature is no number above 0", help=_AGAIN)
    return temperature


def check_storable(weights: Weights) -> None:
    """UsageError if a temperature for these weights has no place: they are no checkpoint in a run."""
    if _place_of(weights) is None:
        message = f"{weights.source} is not a checkpoint of a run, in which a temperature is stored"
        raise UsageError(message, help="give the run or one of its checkpoints, or leave out --temperature fit")


def store_temperature(weights: Weights, temperature: float, facts: dict[str, Any]) -> Path:
    """Store it, in place of an earlier one for the same weights; returns the file.

    facts: what it was fitted on.

    Raises:
        DataError: the file is damaged. DiskError: the disk refuses; the file is as it was.
    """
    place = _place_of(weights)
    assert place is not None, "check_storable comes first"
    file, identity = place
    known = _networks_in(file) if file.is_file() else {}
    source = Path(weights.source)
    entry = {"weights": f"{source.parent.name}/{source.name}", "temperature": temperature, **facts}
    write_whole(file, json.dumps({"networks": known | {identity: entry}}, indent=1) + "\n")
    return file


def calibrate(network: nn.Module, temperature: float) -> None:
    """From now on, the logits that `network` returns are divided by the temperature."""
    if temperature != 1:
        network.register_forward_hook(lambda *call: divided(call[-1], temperature))


def divided(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature, in float32."""
    return logits.float() / temperature


def _place_of(weights: Weights) -> tuple[Path, str] | None:
    """The file of the run that the weights belong to, and what identifies them in it; None: they are in no run."""
    file = Path(weights.source)
    run, manifest = file.parent.parent.parent, file.with_name(MANIFEST)
    if file.parent.parent.name != "checkpoints" or not (run / "recipe.yaml").is_file() or not manifest.is_file():
        return None
    entry = read_json(manifest)["files"][file.name]  # verified when the weights were read
    return run / CALIBRATION, entry.get("sha256_tree") or entry["sha256"]


def _networks_in(file: Path) -> dict[str, Any]:
    networks = read_json(file, help=_AGAIN).get("networks")
    if not isinstance(networks, dict):
        raise DataError(f"{file} is damaged: it has no networks", help=_AGAIN)
    return networks
