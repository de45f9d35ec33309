"""Faster training on a GPU: a pass over a finished model that replaces slow kernels of PyTorch by equal ones in Triton.

The models themselves are written with plain PyTorch modules, and stay as they are where Triton is not installed. All
maps between the kernels lie pixel by pixel (channels_last); `depthwise.py` says why.
"""

from importlib.util import find_spec
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def use_gpu_kernels(model: Model) -> Model:
    """Replace the classes of modules in `model`, in place, and return it; nothing changes without Triton.

    Parameters, buffers, their names and the values the model computes stay the same, up to rounding, and two equal
    steps give the same bits. Give the model images in channels_last. Call it after weights are loaded and int8 is
    simulated, before the model is copied. A second call changes nothing.
    """
    if not has_triton():
        return model
    from vitcli.layers.gpu.modules import BLOCKS, GpuDepthwiseConv2d, can_convolve  # imports Triton

    replaced = {kind.__base__: kind for kind in BLOCKS}
    for module in model.modules():
        if can_convolve(module):
            module.__class__ = GpuDepthwiseConv2d
        elif kind := replaced.get(type(module)):
            module.__class__ = kind
    return model


def has_triton() -> bool:
    """PyTorch brings Triton along for GPUs of NVIDIA on Linux."""
    return find_spec("triton") is not None
