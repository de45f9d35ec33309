"""ViTs of other projects, tiny and with random weights far from their first values; and our model with theirs."""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionViT
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, ViTConfig, ViTForImageClassification
from vit_pytorch import ViT as LucidViT

from tests.support.tensors import randomized
from vitcli.models.registry import create_model

#: width 32, 2 blocks of 2 heads, 16 patches of 8 px, 5 classes; as our options
TINY: dict[str, Any] = {
    "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "patch_size": 8, "img_size": 32, "num_classes": 5
}  # fmt: skip


def ours(**options: Any) -> nn.Module:
    return create_model("vit_b_patch16", **(TINY | options)).eval()


def pictures(channels: int = 3, side: int = 32) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(7))


def timm_vit(name: str = "vit_base_patch16_224", **options: Any) -> nn.Module:
    return randomized(timm.create_model(name, **(TINY | options)))


def torchvision_vit(**options: Any) -> nn.Module:
    tiny = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    return randomized(TorchvisionViT(**tiny, num_classes=5, **options))


def hf_vit(*, distilled: bool = False, **options: Any) -> nn.Module:
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    tiny |= {"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}
    options = options if "id2label" in options else {"num_labels": 5, **options}
    if distilled:
        return randomized(DeiTForImageClassificationWithTeacher(DeiTConfig(**(tiny | options))))
    return randomized(ViTForImageClassification(ViTConfig(**(tiny | options))))


def lucid_vit(**options: Any) -> nn.Module:
    tiny = {"image_size": 32, "patch_size": 8, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64, "dim_head": 64}
    return randomized(LucidViT(**(tiny | {"num_classes": 5} | options)))


class FirstReleaseViT(nn.Module):
    """vit-pytorch v0.1.0 by its description: full-width scale, no bias, no last norm, (p1 p2 c) patches, N(0,1)."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, 17, 32))
        self.cls_token = nn.Parameter(torch.randn(1, 1, 32))
        self.patch_to_embedding = nn.Linear(8 * 8 * 3, 32)
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList([_residual(_Attention()), _residual(_mlp())]) for _ in "12"
        )
        self.mlp_head = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 5))

    def forward(self, images: Tensor) -> Tensor:
        patches = images.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, C, h, w, p1, p2)
        x = self.patch_to_embedding(patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding
        for attention, mlp in self.transformer.layers:  # type: ignore[union-attr]
            x = x + attention.fn.fn(attention.fn.norm(x))
            x = x + mlp.fn.fn(mlp.fn.norm(x))
        return self.mlp_head(x[:, 0])


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_qkv, self.to_out = nn.Linear(32, 96, bias=False), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (2, 16)).transpose(1, 2) for t in self.to_qkv(x).chunk(3, dim=-1))
        weights = (q @ k.transpose(-1, -2) * 32**-0.5).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


def _mlp() -> nn.Module:
    mlp = nn.Module()
    mlp.net = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
    mlp.forward = lambda x: mlp.net(x)  # type: ignore[method-assign]
    return mlp


def _residual(fn: nn.Module) -> nn.Module:
    """Residual(PreNorm(fn)): its names, not its arithmetic."""
    residual, residual.fn = nn.Module(), nn.Module()
    residual.fn.norm, residual.fn.fn = nn.LayerNorm(32), fn
    return residual
