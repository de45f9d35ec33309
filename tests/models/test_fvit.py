"""F-ViT against a second writing-down of the original, with the original's names."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.errors import UsageError
from vitcli.models.fvit import FViT
from vitcli.models.registry import create_model


class Original(nn.Module):
    """le0x99/fast-vision-transformers as its code computes it, without dropout: 8 heads, 4 x 4 patches of 8 px."""

    def __init__(self, *, mlp_head: bool) -> None:
        super().__init__()
        width, heads = 192, 8
        self.heads = heads
        self.head: nn.Module = nn.Linear(width, 10)
        if mlp_head:
            self.head = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 10))
        self.contextualize = nn.Sequential(*(OriginalBlock(width) for _ in range(4)))
        self.pos_emb = nn.Embedding(16, width)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, C, 4, 4, 8, 8)
        tokens = tokens.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.head(self.contextualize(tokens + self.pos_emb(torch.arange(16))).mean(1))


class OriginalBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Module()
        for name in ("W_k", "W_q", "W_v"):
            self.attention.add_module(name, nn.Linear(width, width, bias=False))
        self.attention.W_u = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = lambda y: (y / width**0.25).view(batch, length, 8, width // 8).transpose(1, 2)  # noqa: E731
        q, k, v = (split(getattr(self.attention, f"W_{part}")(x)) for part in "qkv")
        mixed = ((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = self.norm1(x + self.attention.W_u(mixed))
        return self.norm2(x + self.ff(x))


@pytest.mark.parametrize("mlp_head", [True, False])
def test_it_is_the_original(mlp_head: bool):
    torch.manual_seed(0)
    original = Original(mlp_head=mlp_head)
    ours = create_model("fvit", num_classes=10, **({} if mlp_head else {"head_hidden": 0})).eval()
    ours.load_state_dict(ours.convert_keys(original.state_dict()))
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(ours(images), original(images), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("grid_size", "num_heads", "width", "count"),
    [(4, 8, 192, 1_344_778), (8, 8, 48, 89_674), (16, 6, 12, 9_178)],
)
def test_parameter_counts(grid_size: int, num_heads: int, width: int, count: int):
    model = FViT(grid_size=grid_size, num_heads=num_heads)
    assert model.num_features == width
    assert sum(p.numel() for p in model.parameters()) == count


def test_encoded_patches_give_the_same():
    torch.manual_seed(0)
    images = torch.randn(3, 3, 32, 32)
    model, encoded = FViT().eval(), FViT(auto_encode=False, embed_dim=192).eval()
    encoded.load_state_dict(model.state_dict())
    tokens = F.unfold(images, 8, stride=8).transpose(1, 2)
    before = tokens.clone()
    assert torch.equal(model.encode(images), tokens)
    assert torch.equal(encoded(tokens), model(images))
    assert torch.equal(tokens, before)  # the original writes into the caller's batch


def test_patch_dropout_follows_the_mode():
    torch.manual_seed(0)
    model, images = FViT(patch_drop_rate=0.5), torch.randn(3, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    assert torch.equal(model.eval_mode()(images), model(images))
    for mode in (model.training_mode, model.train_mode):
        assert mode() is model
        assert model.training
    dropping = FViT(patch_drop_rate=0.5, patch_drop_mode="drop")
    assert dropping.forward_features(images).shape == (3, 8, 192)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 30}, "30 px is not divisible into a grid of 4 x 4"),
        ({"num_heads": 7}, "192 values cannot be split into 7 heads"),
        ({"auto_encode": False}, "the width of a patch is not known"),
        ({"embed_dim": 100}, "embed_dim is 192 here, not 100"),
    ],
)
def test_what_cannot_be_built(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        FViT(**options)


@pytest.mark.parametrize("option", ["drop_path_rate", "layer_scale_init"])
def test_what_it_has_not(option: str):
    with pytest.raises(UsageError, match=f"fvit has no {option}"):
        create_model("fvit", **{option: 0.1})


def test_wrong_inputs():
    with pytest.raises(UsageError, match="takes images"):
        FViT()(torch.randn(1, 3, 40, 32))
    with pytest.raises(UsageError, match="encoded patches"):
        FViT(auto_encode=False, embed_dim=192)(torch.randn(1, 15, 192))
    assert math.isfinite(FViT(in_chans=1, num_heads=8)(torch.randn(2, 1, 32, 32)).sum().item())
