"""Faster training on a CPU: a pass over a finished model that replaces slow kernels of PyTorch by equal, faster ones.

The models themselves are written with plain PyTorch modules. In eval mode, on other devices, under autocast to other
types and in torch.compile the replacements call PyTorch's own code.
"""

from typing import TypeVar

from torch import Tensor, nn

from vitcli.layers.cpu.depthwise import CpuDepthwiseConv2d, is_depthwise
from vitcli.layers.cpu.norm import CpuBatchNorm2d, Term, is_fast, normalize, sum_of_norms
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


class CpuRepMixer(RepMixer):
    """`RepMixer` with fewer passes over memory: its three norms of the same map are computed as one."""

    reparameterized = RepMixer.reparameterized  # `reparam` wants to see it next to `forward`

    def forward(self, x: Tensor) -> Tensor:
        scale, conv = self.mixer.conv_scale, self.mixer.main
        norms = [self.norm["identity"], self.mixer.identity, scale and scale.bn, conv.bn]
        if scale is None or not is_fast(x, norms):
            return super().forward(x)
        outer, skip, inner, last = (norm for norm in norms if isinstance(norm, nn.BatchNorm2d))
        gain = self.layer_scale.gamma.flatten()
        terms = [Term(inner, gain, scale.conv.weight.flatten()), Term(skip, gain), Term(outer, -gain)]
        return x + sum_of_norms(x, terms) + normalize(conv.conv(x), last, gain)
