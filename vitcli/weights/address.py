"""How weights are named, a path or an address. Nothing here needs the network, torch, or time."""

import os
from pathlib import Path

from vitcli.errors import DataError

HUB, TIMM, WEB = "hf-hub:", "timm:", ("http://", "https://")


def is_remote(source: str | Path) -> bool:
    """Whether `source` is an address and not a path."""
    return str(source).startswith((HUB, TIMM, *WEB))


def check_there(source: str | Path) -> None:
    """DataError if `source` is a path where nothing is; this takes no torch, and is asked before it is imported."""
    if not is_remote(source) and not os.path.lexists(source):
        help = "give a run, a checkpoint, a file of weights, an exported folder, or an address"
        raise DataError(f"{source} does not exist", help=help)
