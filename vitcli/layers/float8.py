"""Linear layers that multiply numbers of 8 bits while they train, by torchao, whose package importing this needs.

Inputs and weights are rounded to float8_e4m3, gradients to float8_e5m2, each tensor with a scale from its own largest
value in the same pass, so there is no state (Micikevicius et al. 2022, arXiv 2209.05433). The optimizer moves float32.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torchao.float8 import Float8LinearConfig, convert_to_float8_training
from torchao.float8.float8_linear import Float8Linear

#: what both sides of a weight must be a multiple of, for the matrix units of a GPU
MULTIPLE = 16


class TrainedInFloat8(Float8Linear):
    """(.., in) -> (.., out); in eval mode a plain linear layer, with the same parameters."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if self.training else nn.Linear.forward(self, input)


def use_float8(blocks: Iterable[nn.Module], *, emulate: bool = False) -> list[TrainedInFloat8]:
    """Replace the linear layers in `blocks`, in place, and return the new ones.

    Parameters stay the same objects, with the same names. Layers stay as they are if a side is no multiple of 16, or if
    they are of a subclass of nn.Linear.

    Args:
        emulate: round to 8 bits, then multiply in float32, on any device: for tests.
    """
    # the gradient of a weight is a product over all tokens, whose number may be any: torchao fills it up with zeros
    config = Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    found: dict[int, TrainedInFloat8] = {}  # by id: blocks may hold blocks
    for block in blocks:
        convert_to_float8_training(block, config=config, module_filter_fn=lambda layer, name: _fits(layer))
        for module in block.modules():
            if type(module) is Float8Linear:
                module.__class__ = TrainedInFloat8
            if isinstance(module, TrainedInFloat8):
                found[id(module)] = module
    return list(found.values())


def _fits(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and not (layer.in_features % MULTIPLE or layer.out_features % MULTIPLE)
