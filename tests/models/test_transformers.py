"""Blocks of other packages in a plain ViT: against vit-pytorch's ViT that takes them, and through real training."""

import sys
from pathlib import Path

import pytest
import torch
from linformer import Linformer
from nystrom_attention import Nystromformer
from torch import nn
from vit_pytorch.efficient import ViT as EfficientViT

import vitcli
from vitcli import catalog
from vitcli.errors import UsageError
from vitcli.models.registry import create_model
from vitcli.models.transformers import TransformerShape, build_transformer
from vitcli.recipe.load import load_recipe
from vitcli.weights.read import Weights

NAMES = list(catalog.TRANSFORMERS)
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32, "num_classes": 5}
#: the digits, small enough for a second
RUN = {
    "model": "vit_ti_patch16", "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "epoch_size": 2,
    "num_samples": 64, "batch_size": 32, "num_parallel_workers": 0, "ema": True,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name: str):
    blocks = build_transformer(name, TransformerShape(embed_dim=16, depth=2, num_heads=2, num_tokens=17, mlp_ratio=4))
    x = torch.randn(3, 17, 16, requires_grad=True)
    y = blocks(x)
    assert y.shape == x.shape
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in blocks.parameters())
    seen = torch.autograd.grad(blocks(x)[0, 0].sum(), x)[0].abs().sum(-1)  # by the first token of the first image
    assert (seen[0] > 0).all()
    others = 0.01 * seen[0].max() if name == "nystrom" else 0  # its pseudo-inverse starts from the batch's largest row
    assert (seen[1:] <= others).all()


def test_equals_vit_pytorch():
    """The same weights in vit-pytorch's efficient ViT with the same Linformer give the same logits."""
    torch.manual_seed(0)
    linformer = Linformer(dim=16, seq_len=17, depth=2, heads=2, k=17)
    theirs = EfficientViT(image_size=32, patch_size=8, num_classes=5, dim=16, transformer=linformer).eval()
    ours = create_model("vit_ti_patch16", **TINY, patch_norm=True, norm_eps=1e-5, transformer="linformer").eval()
    report = vitcli.load_weights(ours, Weights(tensors=theirs.state_dict(), meta={}, source="vit-pytorch"))
    assert not report.missing
    assert not report.unexpected
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_masks_reach_blocks_that_take_them():
    """Nystromformer's own call with the class token and the mask in a row; Linformer has no mask and refuses one."""
    model = create_model("vit_ti_patch16", **TINY, transformer="nystrom").eval()
    nn.init.normal_(model.head.weight)
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 4, 4) > 0.5
    assert isinstance(model.transformer, Nystromformer)
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), model.patch_embed(images)], 1) + model.pos_embed
    visible = torch.cat([torch.ones(2, 1, dtype=torch.bool), mask.flatten(1)], 1)
    expected = model.head(model.norm(model.transformer(tokens, mask=visible)[:, 0]))
    assert torch.allclose(model(images, mask), expected, atol=1e-6)
    assert not torch.allclose(model(images), expected, atol=1e-3)
    for name in ("linformer", "performer"):
        with pytest.raises(UsageError, match="takes no mask"):
            create_model("vit_ti_patch16", **TINY, transformer=name)(images, mask)


@pytest.mark.parametrize("name", ["nystrom", "performer"])
def test_trains_and_validates(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = vitcli.train(load_recipe("quickstart", **RUN, transformer=name))
    assert result.step == 4
    scores = vitcli.validate(load_recipe(ckpt_path=result.run_dir, num_parallel_workers=0))
    assert scores["num_images"] == 355


def test_linformer_from_the_command_line(tmp_path: Path, vitcli):
    words = [word for key, value in RUN.items() for word in (f"--{key}", value)]
    done = vitcli("train", "-c", "quickstart", *words, "--transformer", "linformer", "--drop_path_rate", 0.1)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "`drop_path_rate` has no effect: `transformer` replaces the blocks" in done.stdout
    assert "best top1" in done.stdout


def test_what_cannot_be_built(monkeypatch: pytest.MonkeyPatch):
    shape = {"embed_dim": 16, "depth": 1, "num_heads": 2, "num_tokens": 4, "mlp_ratio": 4}
    for change, said in (({"mlp_ratio": 3}, "mlp_ratio 4, not 3"), ({"num_heads": 3}, "16 cannot be split into 3")):
        with pytest.raises(UsageError, match=said):
            build_transformer("performer", TransformerShape(**shape | change))
    with pytest.raises(UsageError, match="no transformer is named 'mine'") as caught:
        build_transformer("mine", TransformerShape(**shape))
    assert "--plugin FILE" in caught.value.help
    monkeypatch.setitem(sys.modules, "performer_pytorch", None)  # as if it were not installed
    with pytest.raises(UsageError, match="needs the package performer-pytorch") as caught:
        build_transformer("performer", TransformerShape(**shape))
    assert caught.value.help == "pip install 'vitcli[efficient]'"
