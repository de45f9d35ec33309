"""Finds the layer where an artifact begins to differ from its source: the same export, with every layer's output."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcli.deploy.formats import Format, Order, Setting

#: the first layer is named whose relative error is so many times that of the layers before it
JUMP = 10.0
#: and what its precision explains; of int8, the errors of single layers are known anyway
FLOORS = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 1e-2}


class Tapped(nn.Module):
    """A network that also returns what its convolutions and linear layers return, in the order they are called in."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.network = network
        layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            self._run(example, layers, seen)
        self.names = list(seen)  # a layer may be used without being called, as the last block's queries are

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        seen: dict[str, Tensor] = {}
        outputs = self._run(images, self.names, seen)
        return (outputs, *(seen[name].to(torch.float32) for name in self.names))

    def _run(self, images: Tensor, layers: list[str], seen: dict[str, Tensor]) -> Tensor:
        hooks = [self.network.get_submodule(name).register_forward_hook(_keep(seen, name)) for name in layers]
        try:
            return self.network(images)
        finally:
            for hook in hooks:
                hook.remove()


def _keep(seen: dict[str, Tensor], name: str) -> Any:
    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen[name] = output

    return keep


def first_difference(format: Format, order: Order, setting: Setting, reference: nn.Module) -> str | None:
    """Name and error of the layer; None where the layers do not tell, or the format cannot return so many outputs.

    Args:
        reference: the network of `order` in float32.
    """
    if order.precision not in FLOORS:
        return None
    tapped = Tapped(order.network, order.example).eval()
    with torch.inference_mode():
        exact = [output.cpu().numpy() for output in Tapped(reference, order.example)(order.example)]
    with TemporaryDirectory() as folder:
        try:
            format.export(dataclasses.replace(order, network=tapped, folder=Path(folder)))
            found = format.open_session(Path(folder) / format.FILE, setting)(order.example.cpu().numpy())
        except Exception:  # of any exporter or runtime: there is no layer to name then, and the refusal stands anyway
            return None
    before = FLOORS[order.precision]
    for name, theirs, ours in zip(tapped.names, found[1:], exact[1:], strict=False):
        error = float(np.abs(theirs - ours).max() / max(np.abs(ours).max(), 1e-12))
        if error > JUMP * before:
            return f"{name.removeprefix('model.')} (relative error {error:.2g}, {before:.2g} before it)"
        before = max(before, error)
    return None
