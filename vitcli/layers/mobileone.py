"""Convolutions that train as several parallel branches and run as one.

MobileOne block: arXiv 2206.04040, section 3.2. Large kernel with a parallel small one: RepLKNet, arXiv 2203.06717.
The names of the sub-modules are timm's, so weights can be exchanged without conversion.
"""

from torch import Tensor, nn

from vitcli.layers.reparam import (
    Norm,
    fold_norm,
    fused_conv,
    identity_kernel,
    norm_scale_and_shift,
    pad_kernel,
    set_scale_and_shift,
)


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNorm: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride)."""

    def __init__(self, in_chs: int, out_chs: int, kernel_size: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        return fold_norm(self.conv, self.bn)

    def set_kernel_and_bias(self, kernel: Tensor, bias: Tensor) -> None:
        self.conv.weight.copy_(kernel)
        set_scale_and_shift(self.bn, 1.0, bias)

    def silence(self) -> None:
        """Make the output zero, with a gradient by which the norm can leave zero."""
        set_scale_and_shift(self.bn, 0.0, 0.0)

    def fold_in_place(self) -> None:
        if isinstance(self.bn, Norm):
            self.conv = fused_conv(self.conv, *self.kernel_and_bias())
            self.bn = nn.Identity()

    def unfold_in_place(self, folded: nn.Module) -> None:
        assert isinstance(folded, ConvNorm)
        if not isinstance(folded.bn, Norm):
            assert folded.conv.bias is not None
            self.set_kernel_and_bias(folded.conv.weight, folded.conv.bias)


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a weight computed from the means of all channels (arXiv 1709.01507)."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * self.fc2(self.fc1(means).relu()).sigmoid()


class FusedConv(nn.Module):
    """The folded form of the blocks in this file: one convolution with bias, squeeze-excite, activation."""

    def __init__(self, conv: nn.Conv2d, *, se: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.reparam_conv = conv
        self.se = se or nn.Identity()
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.se(self.reparam_conv(x)))


class MobileOneBlock(nn.Module):
    """act(se(sum of branches)); the branches are k x k, 1 x 1 and skip, each followed by its own BatchNorm.

    The 1 x 1 branch exists for kernels larger than 1, the skip if the shape and the number of channels stay the same.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        use_se: bool = False,
        act: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        same_shape = in_chs == out_chs and stride == 1
        conv = {"stride": stride, "groups": groups}
        self.se = SqueezeExcite(out_chs) if use_se else nn.Identity()
        self.identity = nn.BatchNorm2d(in_chs) if same_shape else None
        self.conv_kxk = nn.ModuleList([ConvNorm(in_chs, out_chs, kernel_size, **conv)])
        self.conv_scale = ConvNorm(in_chs, out_chs, 1, **conv) if kernel_size > 1 else None
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.se(self.branches(x)))

    @property
    def main(self) -> ConvNorm:
        branch = self.conv_kxk[0]
        assert isinstance(branch, ConvNorm)
        return branch

    def branches(self, x: Tensor) -> Tensor:
        out = self.main(x)
        if self.conv_scale is not None:
            out = out + self.conv_scale(x)
        if self.identity is not None:
            out = out + self.identity(x)
        return out

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The kernel (C_out, C_in/groups, k, k) and bias (C_out,) that equal the sum of the branches."""
        kernel, bias = self.main.kernel_and_bias()
        if self.conv_scale is not None:
            kernel_1x1, bias_1x1 = self.conv_scale.kernel_and_bias()
            kernel, bias = kernel + pad_kernel(kernel_1x1, kernel.shape[-1]), bias + bias_1x1
        if self.identity is not None:
            scale, shift = norm_scale_and_shift(self.identity)
            skip = identity_kernel(len(scale), self.main.conv.groups, kernel.shape[-1], like=kernel)
            kernel, bias = kernel + scale.view(-1, 1, 1, 1) * skip, bias + shift
        return kernel, bias

    def set_kernel_and_bias(self, kernel: Tensor, bias: Tensor) -> None:
        """Put everything into the k x k branch; the others become zero."""
        self.main.set_kernel_and_bias(kernel, bias)
        if self.conv_scale is not None:
            self.conv_scale.silence()
        if self.identity is not None:
            set_scale_and_shift(self.identity, 0.0, 0.0)

    def reparameterized(self) -> FusedConv:
        conv = fused_conv(self.main.conv, *self.kernel_and_bias())
        return FusedConv(conv, se=self.se, act=self.act)


class LargeKernelConv(nn.Module):
    """Sum of a 7 x 7 and a 3 x 3 convolution, each with its BatchNorm; no activation, like the published weights."""

    def __init__(self, in_chs: int, out_chs: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.large_conv = ConvNorm(in_chs, out_chs, 7, stride=stride, groups=groups)
        self.small_conv = ConvNorm(in_chs, out_chs, 3, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.large_conv(x) + self.small_conv(x)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        kernel, bias = self.large_conv.kernel_and_bias()
        small_kernel, small_bias = self.small_conv.kernel_and_bias()
        return kernel + pad_kernel(small_kernel, kernel.shape[-1]), bias + small_bias

    def set_kernel_and_bias(self, kernel: Tensor, bias: Tensor) -> None:
        """Put everything into the 7 x 7 branch; the other becomes zero."""
        self.large_conv.set_kernel_and_bias(kernel, bias)
        self.small_conv.silence()

    def reparameterized(self) -> FusedConv:
        return FusedConv(fused_conv(self.large_conv.conv, *self.kernel_and_bias()))
