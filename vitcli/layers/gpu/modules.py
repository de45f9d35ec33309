"""The blocks of FastViT with the Triton kernels of this folder; names, parameters and values are those of their bases.

In eval mode, with other data types, with hooks inside, under torch.compile and with norms that are not plain BatchNorms
(synchronized over ranks, or held fixed) each runs the code of its base. So does one with `native` set.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitcli.layers.cpu.depthwise import is_depthwise
from vitcli.layers.gpu.depthwise import depthwise_convs
from vitcli.layers.gpu.launcher import can_run
from vitcli.layers.gpu.norm import GpuBatchNorm2d, Term, is_fast, sum_of_norms
from vitcli.layers.mobileone import ConvNorm, LargeKernelConv, MobileOneBlock
from vitcli.layers.reparam import has_hooks
from vitcli.layers.repmixer import RepMixer


class GpuDepthwiseConv2d(nn.Conv2d):
    """A convolution for which `can_convolve` holds."""

    native = False

    def forward(self, input: Tensor) -> Tensor:
        if self.native or not self.training or not can_run(input):
            return super().forward(input)
        out, _ = depthwise_convs(_cast(input), [self.weight], stride=self.stride[0])
        return out if self.bias is None else out + self.bias.to(out.dtype).view(-1, 1, 1)


class GpuConvNorm(ConvNorm):
    native = False
    fold_in_place = ConvNorm.fold_in_place  # `reparam` wants to see it next to `forward`

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.conv, GpuDepthwiseConv2d) or not _can(self, x, [self.conv], [self.bn]):
            return super().forward(x)
        maps, _ = _convolved(x, [self.conv])
        return sum_of_norms(maps, _terms([self.bn]))


class GpuLargeKernelConv(LargeKernelConv):
    native = False
    reparameterized = LargeKernelConv.reparameterized

    def forward(self, x: Tensor) -> Tensor:
        convs, norms = [self.large_conv.conv, self.small_conv.conv], [self.large_conv.bn, self.small_conv.bn]
        if not _can(self, x, convs, norms):
            return super().forward(x)
        maps, _ = _convolved(x, convs)
        return sum_of_norms(maps, _terms(norms))


class GpuMobileOneBlock(MobileOneBlock):
    """GELU is computed with the sum of the branches where nothing is in between."""

    native = False
    reparameterized = MobileOneBlock.reparameterized

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.main] if self.conv_scale is None else [self.main, self.conv_scale]
        convs = [branch.conv for branch in branches]
        norms = [branch.bn for branch in branches] + ([] if self.identity is None else [self.identity])
        if not _can(self, x, convs, norms, adds_x=self.identity is not None):
            return super().forward(x)
        maps, x = _convolved(x, convs)
        if self.identity is not None:
            maps.append(x)
        gelu = type(self.act) is nn.GELU and self.act.approximate == "none" and isinstance(self.se, nn.Identity)
        out = sum_of_norms(maps, _terms(norms), gelu=gelu)
        return out if gelu else self.act(self.se(out))


class GpuRepMixer(RepMixer):
    """All that follows the convolution is one sum of norms: of its output, and three of x."""

    native = False
    reparameterized = RepMixer.reparameterized

    def forward(self, x: Tensor) -> Tensor:
        scale, main = self.mixer.conv_scale, self.mixer.main
        norms = [scale and scale.bn, self.mixer.identity, self.norm["identity"], main.bn]
        plain = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)]
        if scale is None or len(plain) < 4 or not _can(self, x, [main.conv, scale.conv], plain, adds_x=True):
            return super().forward(x)
        maps, x = _convolved(x, [main.conv])
        inner, skip, outer, last = plain
        of_x = [Term(inner, weight=scale.conv.weight.flatten()), Term(skip), Term(outer, sign=-1)]
        gain = self.layer_scale.gamma.flatten()
        return sum_of_norms([x, *maps], [of_x, [Term(last)]], gain=gain, residual=True)


BLOCKS = (GpuBatchNorm2d, GpuConvNorm, GpuLargeKernelConv, GpuMobileOneBlock, GpuRepMixer)


def can_convolve(module: nn.Module) -> bool:
    """Whether `depthwise_convs` computes what `module` does: depthwise, one or two outputs per channel, odd kernel."""
    return is_depthwise(module) and module.out_channels // module.in_channels <= 2


def _can(
    block: nn.Module, x: Tensor, convs: Sequence[nn.Conv2d], norms: Sequence[nn.Module], *, adds_x: bool = False
) -> bool:
    """Whether a block may run its fast code for x; `adds_x`: x is one of the maps whose norms are summed."""
    if block.native or not block.training or not can_run(x) or has_hooks(block):
        return False
    if adds_x and x.dtype != _cast_type(x):
        return False
    stride = convs[0].stride[0]
    pixels = x.shape[0] * -(-x.shape[-2] // stride) * -(-x.shape[-1] // stride)
    return pixels > 1 and is_fast(x, norms) and all(type(conv) in (nn.Conv2d, GpuDepthwiseConv2d) for conv in convs)


def _convolved(x: Tensor, convs: Sequence[nn.Conv2d]) -> tuple[list[Tensor], Tensor]:
    """The outputs of convolutions of x, and x for further use."""
    if all(isinstance(conv, GpuDepthwiseConv2d) for conv in convs):
        *maps, x = depthwise_convs(_cast(x), [conv.weight for conv in convs], stride=convs[0].stride[0])
        return maps, x
    return [conv(x) for conv in convs], x


def _terms(norms: Sequence[nn.Module]) -> list[list[Term]]:
    """The norm of each map."""
    return [[Term(norm)] for norm in norms if isinstance(norm, nn.BatchNorm2d)]


def _cast(x: Tensor) -> Tensor:
    """x in the type in which autocast computes convolutions."""
    return x.to(_cast_type(x))


def _cast_type(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
