"""Token mixing and positions by depthwise convolutions: two residuals that become one convolution each (FastViT).

The names of the sub-modules are timm's, so weights can be exchanged without conversion.
"""

from torch import Tensor, nn

from vitcli.layers.mobileone import FusedConv, MobileOneBlock
from vitcli.layers.regularize import LayerScale
from vitcli.layers.reparam import fused_conv, identity_kernel, norm_scale_and_shift, set_scale_and_shift


class RepMixer(nn.Module):
    """Mixes neighboring positions: x + layer_scale * (mixer(x) - norm(x)); one depthwise 3 x 3 when folded."""

    def __init__(self, dim: int, *, layer_scale_init: float) -> None:
        super().__init__()
        self.norm = nn.ModuleDict({"identity": nn.BatchNorm2d(dim)})  # its name in the weights
        self.mixer = MobileOneBlock(dim, dim, 3, groups=dim, act=nn.Identity)
        self.layer_scale = LayerScale(dim, 1, 1, init=layer_scale_init)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scale(self.mixer(x) - self.norm["identity"](x))

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        conv = self.mixer.main.conv
        kernel, bias = self.mixer.kernel_and_bias()
        scale, shift = norm_scale_and_shift(self.norm["identity"])
        skip = identity_kernel(conv.out_channels, conv.groups, 3, like=kernel)
        gamma = self.layer_scale.gamma.flatten()
        kernel = skip + gamma.view(-1, 1, 1, 1) * (kernel - scale.view(-1, 1, 1, 1) * skip)
        return kernel, gamma * (bias - shift)

    def set_kernel_and_bias(self, kernel: Tensor, bias: Tensor) -> None:
        """Put all but the skip into the mixer's k x k branch; its norm of x and the outer one cancel."""
        conv = self.mixer.main.conv
        skip = identity_kernel(conv.out_channels, conv.groups, 3, like=kernel)
        self.mixer.set_kernel_and_bias(kernel - skip, bias)
        for norm in (self.mixer.identity, self.norm["identity"]):
            set_scale_and_shift(norm, 1.0, 0.0)
        self.layer_scale.gamma.fill_(1)

    def reparameterized(self) -> FusedConv:
        return FusedConv(fused_conv(self.mixer.main.conv, *self.kernel_and_bias()))


class ConditionalPosEnc(nn.Module):
    """Positions from the neighborhood: x + depthwise 7 x 7 (arXiv 2102.10882). (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pos_enc = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pos_enc(x)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        conv = self.pos_enc
        assert conv.bias is not None
        return conv.weight + identity_kernel(conv.out_channels, conv.groups, 7, like=conv.weight), conv.bias

    def set_kernel_and_bias(self, kernel: Tensor, bias: Tensor) -> None:
        conv = self.pos_enc
        assert conv.bias is not None
        conv.weight.copy_(kernel - identity_kernel(conv.out_channels, conv.groups, 7, like=kernel))
        conv.bias.copy_(bias)

    def reparameterized(self) -> FusedConv:
        return FusedConv(fused_conv(self.pos_enc, *self.kernel_and_bias()))
