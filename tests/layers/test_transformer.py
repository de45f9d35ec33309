"""Attention, patch dropout, stochastic depth and stems, each against the formula written out."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import affine

from vitcli.layers.attention import Attention
from vitcli.layers.embed import PatchEmbed, ShiftedPatchEmbed, build_patch_embed, hmlp_stem, patches
from vitcli.layers.regularize import PatchDropout, Residual
from vitcli.layers.transformer import Block


def attention_by_hand(layer: Attention, x: Tensor, hidden: Tensor | None, factor: Tensor) -> Tensor:
    """Softmax attention with explicit scores; keys where `hidden` (N, N) or (B, 1, N) bool are ignored."""
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    heads = []
    for h in range(layer.num_heads):
        part = slice(h * layer.head_dim, (h + 1) * layer.head_dim)
        scores = q[..., part] @ k[..., part].transpose(1, 2) * factor[h]
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        heads.append(scores.softmax(-1) @ v[..., part] * layer.value_scale)
    return layer.proj(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("scale", ["head", "full", "learned"])
@pytest.mark.parametrize("head_dim", [None, 5])
def test_attention(scale: str, head_dim: int | None):
    torch.manual_seed(0)
    layer = Attention(12, 3, head_dim=head_dim, scale=scale, value_scale=0.7)
    x = torch.randn(2, 6, 12)
    factor = torch.full((3,), 12**-0.5 if scale == "full" else (head_dim or 4) ** -0.5)
    hidden = None
    if layer.scale is not None:
        nn.init.uniform_(layer.scale, 0.1, 2)
        factor, hidden = layer.scale.flatten(), torch.eye(6, dtype=torch.bool)
    expected = attention_by_hand(layer, x, hidden, factor)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x, num_queries=2), expected[:, :2])
    visible = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 1, 1, 1, 0, 0]]).bool()
    unseen = ~visible[:, None] if hidden is None else ~visible[:, None] | hidden
    torch.testing.assert_close(layer(x, visible), attention_by_hand(layer, x, unseen, factor))


def test_the_first_tokens_of_a_block_cost_less_and_are_the_same():
    torch.manual_seed(0)
    block = Block(Attention(12, 3), 12, layer_scale_init=0.5)
    x = torch.randn(2, 6, 12)
    torch.testing.assert_close(block(x, num_queries=2), block(x)[:, :2])


def test_patch_dropout_removes_patches_and_keeps_their_order():
    torch.manual_seed(0)
    drop = PatchDropout(0.4, num_prefix_tokens=2)
    x = torch.arange(12.0).expand(500, 12).unsqueeze(-1)  # 2 + 10 tokens that know their place
    kept, visible = drop(x, (torch.arange(12) % 2 == 0).expand(500, 12))
    assert kept.shape == (500, 8, 1)
    assert torch.equal(kept[:, :2, 0], torch.tensor([0.0, 1.0]).expand(500, 2))
    assert (kept[:, 1:] > kept[:, :-1]).all()
    assert torch.equal(visible, kept[..., 0] % 2 == 0)
    share = torch.stack([(kept == i).any(1).float().mean() for i in range(2, 12)])
    assert (share - 0.6).abs().max() < 0.09  # 4 standard deviations
    assert drop.eval()(x)[0] is x


def test_patch_dropout_zeroes_patches():
    torch.manual_seed(0)
    drop = PatchDropout(0.3, "zero", num_prefix_tokens=1)
    x = torch.ones(400, 11, 3, requires_grad=True)
    dropped, _ = drop(x)
    assert (dropped[:, 0] == 1).all()
    assert 0.65 < dropped[:, 1:].mean() < 0.75
    assert ((dropped == 0) | (dropped == 1)).all()
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)  # nothing flows back into a lost token


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_all_patches_cannot_be_dropped(share: float):
    with pytest.raises(ValueError, match="share"):
        PatchDropout(share)


@pytest.mark.parametrize("mode", ["zero", "skip"])
def test_stochastic_depth_keeps_the_mean(mode: str):
    torch.manual_seed(0)
    residual, x = Residual(0.3, mode), torch.zeros(10, 4, 2)
    seen: list[int] = []

    def branch(x: Tensor, visible: Tensor | None) -> Tensor:
        seen.append(len(x))
        return torch.ones_like(x)

    total = sum(residual(x, branch) for _ in range(2000)) / 2000
    assert (total - 1).abs().max() < 0.07
    assert set(seen) == ({10} if mode == "zero" else {7})
    assert torch.equal(residual.eval()(x, branch), torch.ones_like(x))


def test_skipping_gives_the_gradients_of_zeroing():
    """The same samples lost both ways: the same output and gradients."""
    torch.manual_seed(0)
    block = Block(Attention(12, 3), 12, drop_path_rate=0.5, drop_path_mode="skip")
    x = torch.randn(8, 6, 12, requires_grad=True)
    torch.manual_seed(3)
    out = block(x)
    torch.manual_seed(3)
    masks = []
    for _ in range(2):
        mask = torch.zeros(8, 1, 1)
        mask[torch.randperm(8)[:4]] = 2.0
        masks.append(mask)
    half = x + masks[0] * block.attn(block.norm1(x))
    expected = half + masks[1] * block.mlp(block.norm2(half))
    torch.testing.assert_close(out, expected)
    parameters = [x, *block.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(out.square().sum(), parameters), torch.autograd.grad(expected.square().sum(), parameters)
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_linear_patches_are_a_convolution():
    torch.manual_seed(0)
    embed, images = PatchEmbed(3, 20, 4), torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(embed(images), embed.proj(images).flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    expected = nn.functional.unfold(images, 4, stride=4).transpose(1, 2)
    assert torch.equal(patches(images, 4), expected)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(patches(channels_last, 4), expected)


def test_shifted_patches():
    """The four copies are the image moved by half a patch along the diagonals (torchvision moves it)."""
    torch.manual_seed(0)
    embed, images = ShiftedPatchEmbed(3, 20, 4), torch.randn(2, 3, 16, 16)
    moves = [(x, y) for y in (2, -2) for x in (2, -2)]
    moved = [affine(images, angle=0, translate=list(move), scale=1, shear=[0.0], fill=[0.0]) for move in moves]
    pixels = patches(torch.cat([images, *moved], dim=1), 4)
    expected = nn.functional.linear(embed.norm_in(pixels), embed.proj.weight.flatten(1), embed.proj.bias)
    torch.testing.assert_close(embed(images), expected)


@pytest.mark.parametrize("patch_size", [4, 8, 14, 16, 32])
def test_hmlp_does_not_mix_patches(patch_size: int):
    torch.manual_seed(0)
    stem = hmlp_stem(3, 32, patch_size).eval()
    images = torch.randn(1, 3, 2 * patch_size, 2 * patch_size)
    changed = images.clone()
    changed[..., :patch_size, :patch_size] += 1
    same = (stem(images) == stem(changed)).all(-1)[0]
    assert same.tolist() == [False, True, True, True]


@pytest.mark.parametrize("kind", ["linear", "conv", "spt", "hmlp"])
def test_every_stem_gives_one_token_per_patch(kind: str):
    stem = build_patch_embed(kind, 1, 32, 8, patch_norm=False, norm_eps=1e-6, bias=True)
    assert stem(torch.randn(2, 1, 24, 16)).shape == (2, 6, 32)
    assert isinstance(stem.get_submodule(stem.first_conv), nn.Conv2d)
