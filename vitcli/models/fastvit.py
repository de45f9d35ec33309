"""FastViT (arXiv 2303.14189): convolutions that mix tokens like a transformer block, attention in the last stage only.

    image (B, 3, H, W)
      stem        3 MobileOne blocks                  (B, C, H/4, W/4)
      stages.0    RepMixer blocks                     (B, C, H/4, W/4)
      stages.1    halve, RepMixer blocks              (B, 2C, H/8, W/8)
      stages.2    halve, RepMixer blocks              (B, 4C, H/16, W/16)
      stages.3    halve, RepMixer or attention blocks (B, 8C, H/32, W/32)
      final_conv  depthwise, squeeze-excite           (B, 16C, H/32, W/32)
      mean, to_latent                                 (B, 16C)
      head                                            (B, num_classes)

Parameter names are timm's; `fastvit_keys` converts Apple's. The code follows the published weights where the paper
differs: RepMixer is conv -> norm with branches, and the large kernels that halve the map have no activation.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from vitcli.image_size import ImageSize
from vitcli.layers.attention import Attention2d
from vitcli.layers.heads import Latent
from vitcli.layers.mobileone import ConvNorm, LargeKernelConv, MobileOneBlock
from vitcli.layers.recompute import recompute
from vitcli.layers.regularize import LayerScale, drop_path
from vitcli.layers.reparam import Norm, fold_scale, norm_scale_and_shift, set_scale_and_shift
from vitcli.layers.repmixer import ConditionalPosEnc, RepMixer
from vitcli.layers.unfuse import input_shift
from vitcli.models.fastvit_keys import from_apple


@dataclass(frozen=True)
class Variant:
    depths: tuple[int, ...]
    dim: int
    mlp_ratio: int
    attention: bool
    layer_scale_init: float


# Paper, table 2; layer scales from Apple's released code.
# fmt: off
VARIANTS = {
    #                       depths         dim mlp attn.  scale
    "fastvit_t8":   Variant((2, 2, 4, 2),  48, 3,  False, 1e-5),
    "fastvit_t12":  Variant((2, 2, 6, 2),  64, 3,  False, 1e-5),
    "fastvit_s12":  Variant((2, 2, 6, 2),  64, 4,  False, 1e-5),
    "fastvit_sa12": Variant((2, 2, 6, 2),  64, 4,  True,  1e-5),
    "fastvit_sa24": Variant((4, 4, 12, 4), 64, 4,  True,  1e-5),
    "fastvit_sa36": Variant((6, 6, 18, 6), 64, 4,  True,  1e-6),
    "fastvit_ma36": Variant((6, 6, 18, 6), 76, 4,  True,  1e-6),
}
# fmt: on


def create(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    img_size: ImageSize,
    drop_rate: float,
    drop_path_rate: float,
    layer_scale_init: float | None,
    grad_checkpointing: bool,
) -> "FastViT":
    """The variant `name` of the table; the meaning of the arguments is that of `registry.create_model`."""
    given = {key: value for key, value in locals().items() if key != "name" and value is not None}
    return FastViT(**vars(VARIANTS[name]) | given)


class FastViT(nn.Module):
    """(B, in_chans, H, W) -> (B, num_classes), or features (B, D) without a head; any H and W.

    `dim` is the number of channels of the first stage, `depths` the number of blocks of each stage. The probability
    of dropping a block grows linearly from 0 for the first to `drop_path_rate` for the last.
    """

    #: the first and last layers, whose sizes depend on the data; in training form and fused
    first_convs: ClassVar[tuple[str, ...]] = ("stem.0.conv_kxk.0.conv", "stem.0.conv_scale.conv", "stem.0.reparam_conv")
    classifiers: ClassVar[tuple[str, ...]] = ("head.fc",)
    #: tensors under the names of timm, Apple or MindCV -> under this model's
    convert_keys = staticmethod(from_apple)

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        dim: int,
        mlp_ratio: float,
        attention: bool,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: ImageSize = 256,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        dims = [dim * 2**i for i in range(len(depths))]
        rates = _linear_rates(drop_path_rate, depths)
        self.num_classes, self.in_chans, self.img_size, self.depths = num_classes, in_chans, img_size, depths
        self.num_features = 2 * dims[-1]

        self.stem = nn.Sequential(
            MobileOneBlock(in_chans, dim, 3, stride=2),
            MobileOneBlock(dim, dim, 3, stride=2, groups=dim),
            MobileOneBlock(dim, dim, 1),
        )
        stage = partial(
            Stage, mlp_ratio=mlp_ratio, layer_scale_init=layer_scale_init, grad_checkpointing=grad_checkpointing
        )
        self.stages = nn.ModuleList(
            stage(dims[max(i - 1, 0)], dims[i], rates[i], attention=attention and i == len(depths) - 1)
            for i in range(len(depths))
        )
        self.final_conv = MobileOneBlock(dims[-1], self.num_features, 3, groups=dims[-1], use_se=True)
        self.to_latent, self.to_cls_token = Latent(), Latent()  # (B, num_features); hooks know both names
        self.head = Head(self.num_features, num_classes, drop_rate=drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _init_weight(module)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.latent(x))

    def latent(self, x: Tensor) -> Tensor:
        """The features that the head classifies: (B, num_features)."""
        x = self.forward_features(x)  # (B, num_features, H/32, W/32)
        return self.to_cls_token(self.to_latent(x.mean((2, 3))))

    def forward_features(self, x: Tensor) -> Tensor:
        """The map after the final convolution, before pooling: (B, num_features, H/32, W/32)."""
        return self.final_conv(self.features(x)[-1])

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of each stage, at 1/4, 1/8, 1/16 and 1/32 of the image: [(B, C, H/4, W/4), ...]."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    @property
    def num_layers(self) -> int:
        """Number of the groups that `layer_of` distinguishes."""
        return sum(self.depths) + 2

    def layer_of(self, name: str) -> int:
        """Which layer the parameter `name` belongs to: 0 the stem, then block by block, then the rest (timm).

        What precedes the first block of a stage belongs to that block.
        """
        part, *rest = name.split(".")
        if part != "stages":
            return 0 if part == "stem" else self.num_layers - 1
        stage, kind, number, *_ = rest
        return 1 + sum(self.depths[: int(stage)]) + (int(number) if kind == "blocks" else 0)


class Stage(nn.Module):
    """Halve the map if the number of channels changes, add positions before attention, then apply the blocks."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        drop_path_rates: list[float],
        *,
        mlp_ratio: float,
        attention: bool,
        layer_scale_init: float,
        grad_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = grad_checkpointing
        self.downsample = PatchEmbed(in_dim, dim) if in_dim != dim else nn.Identity()
        self.pos_emb = ConditionalPosEnc(dim) if attention else nn.Identity()
        kind = AttentionBlock if attention else RepMixerBlock
        block = partial(kind, dim, mlp_ratio=mlp_ratio, layer_scale_init=layer_scale_init)
        self.blocks = nn.Sequential(*(block(drop_path_rate=rate) for rate in drop_path_rates))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_emb(self.downsample(x))
        for block in self.blocks:
            x = recompute(block, x) if self.grad_checkpointing and self.training else block(x)
        return x


class PatchEmbed(nn.Module):
    """(B, C_in, H, W) -> (B, C_out, H/2, W/2) by overlapping 7 x 7 patches."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(LargeKernelConv(in_dim, dim, stride=2, groups=in_dim), MobileOneBlock(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class ConvFFN(nn.Module):
    """Depthwise 7 x 7 with norm, then two 1 x 1 with GELU in between: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, *, mlp_ratio: float) -> None:
        super().__init__()
        hidden_dim = int(dim * mlp_ratio)
        self.conv = ConvNorm(dim, dim, 7, groups=dim)
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1)
        for conv in (self.conv.conv, self.fc1, self.fc2):
            _init_weight(conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.conv(x))))


class RepMixerBlock(nn.Module):
    """RepMixer, then the feed-forward network with its residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, *, mlp_ratio: float, drop_path_rate: float, layer_scale_init: float) -> None:
        super().__init__()
        self.token_mixer = RepMixer(dim, layer_scale_init=layer_scale_init)
        self.mlp = ConvFFN(dim, mlp_ratio=mlp_ratio)
        self.layer_scale = LayerScale(dim, 1, 1, init=layer_scale_init)
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.drop_path(self.layer_scale(self.mlp(x)))

    def fold_in_place(self) -> None:
        self.layer_scale = fold_scale(self.layer_scale, self.mlp.fc2)

    def unfold_in_place(self, folded: nn.Module) -> None:
        assert isinstance(folded, RepMixerBlock)
        _unfold_scale(self.layer_scale, folded.layer_scale)


class AttentionBlock(nn.Module):
    """Attention, then the feed-forward network, each with its residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, *, mlp_ratio: float, drop_path_rate: float, layer_scale_init: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.token_mixer = Attention2d(dim)
        self.layer_scale_1 = LayerScale(dim, 1, 1, init=layer_scale_init)
        self.drop_path1 = drop_path(drop_path_rate)
        self.mlp = ConvFFN(dim, mlp_ratio=mlp_ratio)
        self.layer_scale_2 = LayerScale(dim, 1, 1, init=layer_scale_init)
        self.drop_path2 = drop_path(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.layer_scale_1(self.token_mixer(self.norm(x))))
        return x + self.drop_path2(self.layer_scale_2(self.mlp(x)))

    def fold_in_place(self) -> None:
        self.layer_scale_1 = fold_scale(self.layer_scale_1, self.token_mixer.proj)
        self.layer_scale_2 = fold_scale(self.layer_scale_2, self.mlp.fc2)
        if isinstance(self.norm, Norm):
            scale, shift = norm_scale_and_shift(self.norm)
            qkv = self.token_mixer.qkv
            qkv.bias = nn.Parameter(qkv.weight @ shift)
            qkv.weight = nn.Parameter(qkv.weight * scale)
            self.norm = nn.Identity()

    def norms_and_linears(self) -> list[tuple[nn.Module, nn.Module]]:
        """The norm that full folding moves into the layer after it."""
        return [(self.norm, self.token_mixer.qkv)]

    def unfold_in_place(self, folded: nn.Module) -> None:
        assert isinstance(folded, AttentionBlock)
        _unfold_scale(self.layer_scale_1, folded.layer_scale_1)
        _unfold_scale(self.layer_scale_2, folded.layer_scale_2)
        if not isinstance(folded.norm, Norm):
            set_scale_and_shift(self.norm, 1.0, input_shift(folded.token_mixer.qkv))


class Head(nn.Module):
    """(B, D) -> (B, num_classes); without classes the features (B, D), without dropout."""

    def __init__(self, dim: int, num_classes: int, *, drop_rate: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop_rate if num_classes else 0.0)
        self.fc = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(x))


def _unfold_scale(scale: nn.Module, folded: nn.Module) -> None:
    """`scale` becomes 1 if it was folded into the layer before it."""
    if isinstance(scale, LayerScale) and not isinstance(folded, LayerScale):
        scale.gamma.fill_(1)


def _init_weight(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _linear_rates(last_rate: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Drop-path rates of all blocks by stage: block i of N gets last_rate * i / (N - 1)."""
    last = max(sum(depths) - 1, 1)
    rates = iter(last_rate * i / last for i in range(sum(depths)))
    return [[next(rates) for _ in range(depth)] for depth in depths]
