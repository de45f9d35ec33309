"""Collects the layers of a network as the native format stores them: each matrix in the precision of the export."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.layers.reparam import is_plain

#: largest whole number in int8 weights and activations; -128 is not used, so that the range is symmetric
LARGEST = 127


class Writer:
    """The values and tensors of a native network.

    A matrix is float32 in fp32, bfloat16 in bf16, and int8 with one scale per row in int8. With int8, matrices of the
    layers `kept`, and those said to stay float, are bfloat16. All else is float32.

    Args:
        precision: fp32, bf16, int8 or int8_dynamic.
        kept: layers that are not quantized.
    """

    def __init__(self, precision: str, kept: Collection[nn.Module] = ()) -> None:
        self.precision, self._kept = precision, {id(layer) for layer in kept}
        self.values: dict[str, object] = {}
        self.tensors: dict[str, Tensor] = {}

    def linear(
        self,
        name: str,
        layer: nn.Module,
        *,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        stays_float: bool = False,
    ) -> None:
        """Add NAME.weight (out, in) and NAME.bias (out,) of a linear layer, or of a convolution of kernel 1 x 1.

        weight, bias: those to store, if they differ from the layer's own.
        """
        if not is_plain(layer, nn.Linear, nn.Conv2d):
            raise UsageError(f"{name} is a {type(layer).__name__}", help="the native format holds plain layers only")
        weight = layer.weight.flatten(1) if weight is None else weight
        bias = layer.bias if bias is None else bias
        self._matrix(f"{name}.weight", weight.detach().float(), is_int8=not (stays_float or id(layer) in self._kept))
        self.add(f"{name}.bias", torch.zeros(len(weight)) if bias is None else bias)

    def last(self, name: str, layer: nn.Module, *, temperature: float) -> None:
        """Add the linear layer that computes the logits, which are divided by `temperature`."""
        if not is_plain(layer, nn.Linear):
            raise UsageError(f"{name} is a {type(layer).__name__}", help="the native format holds plain layers only")
        bias = None if layer.bias is None else layer.bias / temperature
        self.linear(name, layer, weight=layer.weight / temperature, bias=bias, stays_float=True)

    def depthwise(self, name: str, convs: list[nn.Conv2d]) -> None:
        """Add parallel depthwise convolutions of one map as NAME.weight (k, k, m * C) and NAME.bias (m * C,)."""
        kernels = torch.cat([conv.weight for conv in convs])  # (m * C, 1, k, k)
        biases = [torch.zeros(len(conv.weight)) if conv.bias is None else conv.bias for conv in convs]
        self.add(f"{name}.weight", kernels[:, 0].permute(1, 2, 0))
        self.add(f"{name}.bias", torch.cat(biases))

    def norm(self, name: str, norm: nn.LayerNorm) -> None:
        """Add NAME.weight and NAME.bias (D,)."""
        self.add(f"{name}.weight", norm.weight)
        self.add(f"{name}.bias", torch.zeros_like(norm.weight) if norm.bias is None else norm.bias)

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor in float32."""
        self.tensors[name] = tensor.detach().to("cpu", torch.float32).contiguous().clone()

    def _matrix(self, name: str, weight: Tensor, *, is_int8: bool) -> None:
        if self.precision == "fp32":
            self.add(name, weight)
        elif self.precision == "bf16" or not is_int8:
            self.tensors[name] = weight.to("cpu", torch.bfloat16).contiguous()
        else:
            rounded, scale = rounded_rows(weight)
            self.tensors[name] = rounded.to("cpu", torch.int8).contiguous()
            self.add(name.removesuffix("weight") + "scale", scale.flatten())


def rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., K) -> whole numbers of at most 127 in the type of x, and the scale (..., 1) that they are multiples of.

    The scale is that of the largest number of a row; it is 0 for a row of zeros.
    """
    scale = x.abs().amax(-1, keepdim=True) / LARGEST
    return (x / scale.where(scale > 0, 1.0)).round(), scale
