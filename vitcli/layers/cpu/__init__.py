"""Faster training on a CPU: a pass over a finished model that replaces slow kernels of PyTorch by equal, faster ones.

The models themselves are written with plain PyTorch modules. In eval mode, on other devices, under autocast to other
types and in torch.compile the replacements call PyTorch's own code.
"""

from typing import TypeVar

from torch import nn

from vitcli.layers.cpu.depthwise import CpuDepthwiseConv2d, is_depthwise
from vitcli.layers.cpu.norm import CpuBatchNorm2d
from vitcli.layers.cpu.repmixer import CpuRepMixer
from vitcli.layers.repmixer import RepMixer

Model = TypeVar("Model", bound=nn.Module)


def use_cpu_kernels(model: Model) -> Model:
    """Replace the classes of modules in `model`, in place, and return it.

    Parameters, buffers, their names and the values the model computes stay the same, up to rounding. Which kernels are
    used depends on the model and the image size only, so two runs with the same recipe stay bitwise equal. Call it
    after weights are loaded and int8 is simulated, before the model is copied. A second call changes nothing.
    """
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CpuBatchNorm2d
        elif type(module) is RepMixer:
            module.__class__ = CpuRepMixer
        elif is_depthwise(module):
            module.__class__ = CpuDepthwiseConv2d
    return model
