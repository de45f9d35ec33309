"""Reads .pth, .pt and .bin files without running code from them."""

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitcli.errors import DataError, WeightsError

WRAPPERS = ("state_dict", "model", "model_state_dict")
EMA_WRAPPERS = ("state_dict_ema", "model_ema", "ema")


def read_torch(path: Path, *, use_ema: bool | None) -> tuple[dict[str, Tensor], dict[str, Any], str | None]:
    """The tensors, the plain values stored with them, and which of two kinds of weights they are, if there are two.

    use_ema: as for `read_weights`.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    raw, averaged = (
        next((name for name in wrappers if isinstance(content.get(name), Mapping)), None)
        for wrappers in (WRAPPERS, EMA_WRAPPERS)
    )
    if use_ema and not averaged:
        raise WeightsError(f"{path} holds no moving average of the weights (looked for {', '.join(EMA_WRAPPERS)})")
    if use_ema is False and averaged and not raw:
        raise WeightsError(f"{path} holds only the moving average of the weights", help="remove use_ema")
    wrapper = raw if use_ema is False else averaged or raw
    state = content[wrapper] if wrapper else content
    # torch's AveragedModel counts its updates in a tensor
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor) and name != "n_averaged"}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; its entries are {', '.join(map(str, list(state)[:8]))}")
    values = {**content, **state}.items()
    meta = {name: value for name, value in values if isinstance(value, str | int | float | bool)}
    return tensors, meta, wrapper if raw and averaged else None


def _load(path: Path) -> Any:
    try:
        # The trainers of timm and Apple store their command line in the file; this one class is harmless.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about protocols; what cannot be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported" not in str(error):  # of torch's messages, only those about forbidden objects say so
            raise DataError(f"{path} is damaged or cut off", help="download or copy it again") from error
        raise WeightsError(
            f"{path} holds more than tensors and plain values; reading it would run code from the file",
            help="save its state dict as .safetensors with the program that wrote it",
        ) from error
    except Exception as error:  # damaged bytes are instructions, which can fail in any way
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged or cut off ({reason})", help="download or copy it again") from error
