"""From an image to tokens: patch embeddings and fixed position embeddings."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.image_size import ImageSize, height_and_width
from vitcli.layers.reparam import fold_layer_norm

PatchEmbedKind = Literal["linear", "conv", "spt", "hmlp"]


def patches(images: Tensor, patch_size: ImageSize) -> Tensor:
    """(B, C, H, W) -> (B, N, C*h*w): the patches row by row, each ordered (channel, row, column) like `F.unfold`."""
    (batch, channels, height, width), (h, w) = images.shape, height_and_width(patch_size)
    grid = images.reshape(batch, channels, height // h, h, width // w, w)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // h) * (width // w), channels * h * w)


class PatchEmbed(nn.Module):
    """A linear map of each patch: (B, C, H, W) -> (B, N, D). The weight has the shape (D, C, p, p), as in timm.

    Args:
        norm_in: LayerNorm of the pixels of a patch, before the map.
        norm: LayerNorm of the tokens, after it. (vit-pytorch has both.)
        bias: of the map.
        norm_eps: epsilon of both.
    """

    first_conv = "proj"

    def __init__(
        self,
        in_chans: int,
        dim: int,
        patch_size: int,
        *,
        norm_in: bool = False,
        norm: bool = False,
        norm_eps: float = 1e-6,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_chans, self.dim, self.patch_size = in_chans, dim, patch_size
        self.norm_in = nn.LayerNorm(in_chans * patch_size**2, eps=norm_eps) if norm_in else nn.Identity()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, stride=patch_size, bias=bias)
        self.norm = nn.LayerNorm(dim, eps=norm_eps) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        if torch.compiler.is_exporting() and isinstance(self.norm_in, nn.Identity):  # fast in all runtimes
            return self.norm(self.proj(images).flatten(2).transpose(1, 2))
        pixels = self.norm_in(patches(images, self.patch_size))
        return self.norm(F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias))

    def fold_in_place(self) -> None:
        self.norm_in = fold_layer_norm(self.norm_in, self.proj)


class ShiftedPatchEmbed(PatchEmbed):
    """Shifted patch tokenization: the image and four copies shifted diagonally by half a patch, zero-padded.

    Source: Vision Transformer for Small-Size Datasets, arXiv 2112.13492, section 3.1 and its published code.
    """

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__(5 * in_chans, dim, patch_size, norm_in=True)
        self.in_chans = in_chans

    def forward(self, images: Tensor) -> Tensor:
        s = self.patch_size // 2
        height, width = images.shape[-2:]
        padded = F.pad(images, (s, s, s, s))
        shifted = [padded[..., y : y + height, x : x + width] for y in (0, 2 * s) for x in (0, 2 * s)]
        return super().forward(torch.cat([images, *shifted], dim=1))


class Stem(nn.Module):
    """Patches by several convolutions: (B, C, H, W) -> (B, N, D)."""

    first_conv = "proj.0"

    def __init__(self, in_chans: int, dim: int, patch_size: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.in_chans, self.dim, self.patch_size = in_chans, dim, patch_size
        self.proj = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


def conv_stem(in_chans: int, dim: int, patch_size: int) -> Stem:
    """Overlapping 3 x 3 convolutions of stride 2 down to the patch grid, then 1 x 1.

    Source: Early Convolutions Help Transformers See Better, arXiv 2106.14881.

    Raises:
        UsageError: the patch size is not a power of two.
    """
    halvings = patch_size.bit_length() - 1
    if 2**halvings != patch_size or patch_size < 2:
        message = f"patch_embed conv cannot make patches of {patch_size} px"
        raise UsageError(message, help="use a power of two, such as 8 or 16")
    dims = [in_chans, *(max(dim // 2 ** (halvings - i), 8) for i in range(1, halvings)), dim]
    layers: list[nn.Module] = []
    for before, after in pairwise(dims):
        conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
    return Stem(in_chans, dim, patch_size, [*layers, nn.Conv2d(dim, dim, 1)])


def hmlp_stem(in_chans: int, dim: int, patch_size: int) -> Stem:
    """Patches in steps that do not overlap: 4 x 4 (or 7 x 7, 2 x 2), then 2 x 2 convolutions with stride = kernel.

    Source: Three things everyone should know about ViTs, arXiv 2203.09795, section 5 (with BatchNorm).

    Raises:
        UsageError: the patch size is not such a product.
    """
    first = next((k for k in (4, 7, 2) if patch_size % k == 0 and patch_size > k), patch_size)
    rest = patch_size // first
    if rest == 1 or rest & (rest - 1):
        message = f"patch_embed hmlp cannot make patches of {patch_size} px"
        raise UsageError(message, help="use 4, 7 or 2 times a power of two, such as 14 or 16")
    kernels = [first] + [2] * (rest.bit_length() - 1)  # 16 -> [4, 2, 2], 14 -> [7, 2]
    dims = [in_chans, *(dim // 4 for _ in kernels[1:]), dim]
    layers: list[nn.Module] = []
    for kernel, (before, after) in zip(kernels, pairwise(dims), strict=True):
        layers += [nn.Conv2d(before, after, kernel, stride=kernel), nn.BatchNorm2d(after), nn.GELU()]
    return Stem(in_chans, dim, patch_size, layers[:-1])


def build_patch_embed(
    kind: PatchEmbedKind, in_chans: int, dim: int, patch_size: int, *, patch_norm: bool, norm_eps: float, bias: bool
) -> PatchEmbed | Stem:
    """The patch embedding for the recipe key `patch_embed`.

    Raises:
        UsageError: `patch_norm` or no bias with an embedding that is not linear, or a patch size it cannot make.
    """
    if kind == "linear":
        norms = {"norm_in": patch_norm, "norm": patch_norm, "norm_eps": norm_eps}
        return PatchEmbed(in_chans, dim, patch_size, **norms, bias=bias)
    if patch_norm or not bias:
        option = "patch_norm" if patch_norm else "pre_norm"
        raise UsageError(f"{option} does not apply to patch_embed {kind}", help="set patch_embed: linear")
    return {"conv": conv_stem, "spt": ShiftedPatchEmbed, "hmlp": hmlp_stem}[kind](in_chans, dim, patch_size)


def sincos2d(grid_size: tuple[int, int], dim: int, *, temperature: float = 10_000.0) -> Tensor:
    """(1, N, dim) fixed position embeddings of a grid (rows, columns), row by row; dim is a multiple of 4.

    Source: Better plain ViT baselines for ImageNet-1k, arXiv 2205.01580.
    """
    if dim % 4:
        raise UsageError(f"sincos2d positions need a width (embed_dim) that is a multiple of 4, not {dim}")
    y, x = torch.meshgrid(torch.arange(grid_size[0]), torch.arange(grid_size[1]), indexing="ij")
    frequencies = temperature ** -(torch.arange(dim // 4) / (dim // 4 - 1))
    x, y = x.flatten()[:, None] * frequencies, y.flatten()[:, None] * frequencies
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).unsqueeze(0)
