"""Heat maps: computed by hand, by a second implementation and by the package grad-cam; what is left as it was."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.deploy.conftest import stir
from vitcli.errors import UsageError
from vitcli.layers.reparam import reparameterize
from vitcli.models.registry import create_model
from vitcli.models.vision_transformer import VisionTransformer
from vitcli.networks.heat_maps import activation_and_gradient, enlarged, heat_maps, layer_cam

OPTIONS = {
    "fastvit_t8": {"img_size": (64, 96)},
    "vit_ti_patch16": {"img_size": (32, 48), "patch_size": 8, "depth": 3, "reg_tokens": 2},
    "fvit": {"img_size": 32, "grid_size": 4, "depth": 3},
}


def model_of(name: str, **options) -> Any:
    torch.manual_seed(0)
    model = stir(create_model(name, num_classes=5, **OPTIONS[name] | options))
    if isinstance(model, VisionTransformer):  # whose head begins with zeros
        for layer in model.classifiers:
            nn.init.normal_(model.get_submodule(layer).weight)
    return model


def images_of(name: str, channels: int = 3, count: int = 3) -> Tensor:
    size = OPTIONS[name]["img_size"]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, *(size if isinstance(size, tuple) else (size, size)), generator=generator)


class ByHand(nn.Module):
    """Two channels, which are the image and its negative; class 0 likes the first, class 1 the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.fc = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.fc.weight.copy_(torch.eye(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


def test_by_hand():
    """The gradient is 1/4 or 0 everywhere: the map is the positive part of the channel that the class likes."""
    image = torch.tensor([[4.0, 0.0], [-2.0, 1.0]]).view(1, 1, 2, 2)
    found = [heat_maps(ByHand(), image, torch.tensor([number]))[0].tolist() for number in (0, 1)]
    assert found == [[[1.0, 0.0], [0.0, 0.25]], [[0.0, 0.0], [1.0, 0.0]]]
    assert heat_maps(ByHand(), image)[0].tolist() == found[0], "class 0 is the more probable one"


def test_nothing_that_speaks_for_a_class_is_zeros():
    assert heat_maps(ByHand(), -torch.ones(2, 1, 2, 2), torch.tensor([0, 0])).tolist() == [[[0.0] * 2] * 2] * 2


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 3, 3)])
def test_a_map_without_differences_is_zeros_and_not_its_rounding(shape: tuple[int, ...]):
    assert not enlarged(torch.full(shape, 0.3), torch.Size((33, 50))).any()


def scaled(maps: Tensor, size: torch.Size) -> np.ndarray:
    """(B, h, w) -> (B, H, W), 0..1"""
    large = F.interpolate(maps[:, None], size=tuple(size), mode="bilinear")[:, 0].detach()
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return ((large - low) / (high - low)).numpy()


def layer_cam_again(model: Any, images: Tensor, classes: Tensor) -> np.ndarray:
    """LayerCAM with the model's own parts instead of hooks."""
    layer = model.final_conv(model.features(images)[-1]).detach().requires_grad_()
    logits = model.head(layer.mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits[torch.arange(len(images)), classes].sum(), layer)
    return scaled((gradient.clamp(min=0) * layer).sum(1).clamp(min=0), images.shape[-2:])


def relevance_again(model: Any, images: Tensor, classes: Tensor) -> np.ndarray:
    """Chefer et al., with attention that is written out, so that autograd gives its gradient."""
    model, kept = copy.deepcopy(model), []

    def written_out(attn: Any):
        def forward(x: Tensor, visible: None = None, num_queries: int | None = None) -> Tensor:
            heads = attn.qkv(x).reshape(*x.shape[:2], 3, attn.num_heads, attn.head_dim)
            q, k, v = (heads[:, :, number].transpose(1, 2) for number in range(3))
            scores = torch.einsum("bhnd,bhmd->bhnm", q, k) * (attn.fixed_scale if attn.scale is None else attn.scale)
            if attn.scale is not None:
                scores = scores + torch.diag(torch.full((x.shape[1],), -torch.inf))
            kept.append(scores.softmax(-1))
            mixed = torch.einsum("bhnm,bhmd->bnhd", kept[-1], v * attn.value_scale)
            return attn.proj(mixed.flatten(2))[:, :num_queries]

        return forward

    for block in model.blocks:
        block.attn.forward = written_out(block.attn)
    score = model(images)[torch.arange(len(images)), classes].sum()
    relevance = torch.eye(kept[0].shape[-1]).expand(len(images), -1, -1)
    for weights, gradient in zip(kept, torch.autograd.grad(score, kept), strict=True):
        relevance = relevance + (weights * gradient).clamp(min=0).mean(1) @ relevance
    first = model.num_prefix_tokens
    rows = slice(model.num_pooled) if getattr(model, "global_pool", "avg") == "token" else slice(first, None)
    found = relevance[:, rows].mean(1)[:, first:].reshape(-1, *model.grid_size)
    return scaled(found, images.shape[-2:])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fastvit_t8", {}),
        ("fvit", {}),
        ("vit_ti_patch16", {}),
        ("vit_ti_patch16", {"global_pool": "avg", "attn_scale": "learned"}),
        ("vit_ti_patch16", {"distilled": True}),
    ],
)
def test_equals_a_second_implementation(name: str, options: dict):
    model, images = model_of(name, **options), images_of(name, count=5)
    classes = torch.tensor([0, 3, 4, 1, 1])
    found = heat_maps(model, images, classes)
    assert found.dtype == torch.float32
    assert found.shape == (5, *images.shape[-2:])
    again = layer_cam_again if name == "fastvit_t8" else relevance_again
    np.testing.assert_allclose(found, again(model, images, classes), atol=5e-4)
    assert (found.amin((1, 2)) == 0).all()
    assert (found.amax((1, 2)) == 1).all()
    assert torch.equal(heat_maps(model, images), heat_maps(model, images, model(images).argmax(1)))


@pytest.mark.parametrize("name", OPTIONS)
def test_layer_cam_equals_the_package_grad_cam(name: str):
    """Of FastViT the heat map; of the others LayerCAM of the tokens before the last block, a step of the benchmark."""
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, images, classes = model_of(name), images_of(name), torch.tensor([0, 3, 4])
    if name == "fastvit_t8":
        layer, as_map, ours = model.final_conv, None, heat_maps(model, images, classes)
    else:
        layer, as_map = model.blocks[-2], lambda x: grid_of(model, x)
        pair = activation_and_gradient(model, images, classes, layer)
        ours = enlarged(layer_cam(*map(as_map, pair)), images.shape[-2:])
    with package.LayerCAM(model, [layer], as_map) as cam:
        theirs = cam(images, [targets.ClassifierOutputTarget(number) for number in classes.tolist()])
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def grid_of(model: Any, x: Tensor) -> Tensor:
    return x[:, model.num_prefix_tokens :].transpose(1, 2).unflatten(2, model.grid_size)


@pytest.mark.parametrize("fold", ["standard", "full"])
@pytest.mark.parametrize("name", ["fastvit_t8", "vit_ti_patch16"])
def test_a_fused_model_gives_the_same(name: str, fold):
    model, images = model_of(name), images_of(name)
    torch.testing.assert_close(
        heat_maps(reparameterize(model, fold=fold), images), heat_maps(model, images), rtol=0, atol=2e-3
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fastvit_t8", {"in_chans": 6}),
        ("vit_ti_patch16", {"in_chans": 1, "global_pool": "avg"}),
        ("vit_ti_patch16", {"depth": 1}),
        ("vit_ti_patch16", {"distilled": True, "global_pool": "token"}),
        ("vit_ti_patch16", {"patch_drop_rate": 0.5, "grad_checkpointing": True}),
    ],
)
def test_variants(name: str, options: dict):
    model, images = model_of(name, **options), images_of(name, options.get("in_chans", 3))
    found = heat_maps(model, images)
    assert found.shape == (3, *images.shape[-2:])
    assert (found.amax((1, 2)) == 1).all()
    alone = heat_maps(model, images[1:2])
    torch.testing.assert_close(found[1:2], alone, rtol=0, atol=1e-3, msg="it does not depend on the other images")


@pytest.mark.parametrize("name", OPTIONS)
def test_the_model_is_left_as_it_was(name: str):
    model, images = model_of(name).train(), images_of(name)
    next(model.parameters()).requires_grad = False
    model.head.eval()
    before = copy.deepcopy(model)
    first, *_, last = model.parameters()
    last.grad = torch.ones_like(last)
    with torch.inference_mode():
        heat_maps(model, images.clone())
    heat_maps(model, images)
    for (key, module), other in zip(model.named_modules(), before.modules(), strict=True):
        assert module.training == other.training, key
        assert not module._forward_hooks, key
        assert not module._forward_pre_hooks, key
    for (key, parameter), other in zip(model.named_parameters(), before.parameters(), strict=True):
        assert parameter.requires_grad == other.requires_grad, key
    assert first.grad is None
    assert torch.equal(last.grad, torch.ones_like(last))
    for (key, tensor), other in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), key


def test_a_failure_leaves_the_model_as_it_was_too():
    model = model_of("vit_ti_patch16").train()
    with pytest.raises(UsageError, match="takes images of"):
        heat_maps(model, torch.zeros(1, 3, 40, 40))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.embed(x).flatten(2).transpose(1, 2)).mean(1)


def test_models_without_a_map_are_refused_by_name():
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(UsageError, match="Tokens ends with tokens or features"):
        heat_maps(Tokens(), images)
    with pytest.raises(UsageError, match="Sequential ends with tokens or features"):
        heat_maps(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), images)
    with pytest.raises(UsageError, match="FastViT has no classifier"):
        heat_maps(create_model("fastvit_t8", num_classes=0), images)
    replaced = create_model("vit_ti_patch16", img_size=32, transformer=nn.Identity())
    with pytest.raises(UsageError, match="are replaced by Identity"):
        heat_maps(replaced, images)
