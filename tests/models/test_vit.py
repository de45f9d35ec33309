"""The plain ViT against timm's and vit-pytorch's; masks; the hook that BYOL needs."""

import pytest
import timm
import torch
from byol_pytorch import BYOL
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from vit_pytorch.simple_vit import posemb_sincos_2d

from tests.support.tensors import randomized
from vitcli.errors import UsageError
from vitcli.layers.cpu import use_cpu_kernels
from vitcli.layers.embed import sincos2d
from vitcli.models.registry import create_model
from vitcli.models.vision_transformer import VisionTransformer

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 7}

# facts of the published models with 1000 classes at 224 px, in millions
PARAMETERS = {
    "vit_ti_patch32": 6.13, "vit_ti_patch16": 5.72, "vit_ti_patch14": 5.69,
    "vit_s_patch32": 22.88, "vit_s_patch16": 22.05, "vit_s_patch14": 22.00,
    "vit_b_patch32": 88.22, "vit_b_patch16": 86.57, "vit_b_patch14": 86.48,
    "vit_l_patch32": 306.54, "vit_l_patch16": 304.33, "vit_l_patch14": 304.20,
    "vit_h_patch32": 634.96, "vit_h_patch16": 632.20, "vit_h_patch14": 632.05,
}  # fmt: skip


def tiny(**options: object) -> VisionTransformer:
    return create_model("vit_b_patch16", **{**TINY, **options}).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str):
    with torch.device("meta"):
        count = sum(p.numel() for p in create_model(name).parameters())
    assert f"{count / 1e6:.2f}" == f"{PARAMETERS[name]:.2f}"


@pytest.mark.parametrize("name", ["vit_s_patch32", "vit_b_patch16", "vit_l_patch16", "vit_h_patch14"])
def test_names_and_shapes_are_timms(name: str):
    _, size, patch = name.split("_")
    with torch.device("meta"):
        theirs = timm.create_model(
            f"vit_{ {'s': 'small', 'b': 'base', 'l': 'large', 'h': 'huge'}[size] }_{patch}_224", num_classes=1000
        )
        ours = create_model(name)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


VARIATIONS = [
    ({}, {}),
    ({"global_pool": "avg"}, {"global_pool": "avg", "class_token": True}),
    ({"global_pool": "avg", "class_token": False}, {"global_pool": "avg"}),
    ({"qkv_bias": False, "init_values": 0.1}, {"qkv_bias": False, "layer_scale_init": 0.1}),
    ({"reg_tokens": 4}, {"reg_tokens": 4}),
    ({"num_classes": 0}, {"num_classes": 0}),
]


@pytest.mark.parametrize(("timms", "ours"), VARIATIONS, ids=lambda options: "-".join(options) or "plain")
def test_outputs_and_gradients_are_timms(timms: dict, ours: dict):
    theirs = randomized(TimmViT(**{**TINY, **timms})).eval()
    model = tiny(**ours)
    model.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model(images), theirs(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.forward_features(images), theirs.forward_features(images), atol=1e-4, rtol=1e-5)
    for net in (model, theirs):
        net(images).square().sum().backward()
    gradients = dict(theirs.named_parameters())
    for name, p in model.named_parameters():
        largest = gradients[name].grad.abs().max().item()
        torch.testing.assert_close(p.grad, gradients[name].grad, atol=1e-5 * largest + 1e-6, rtol=1e-4, msg=name)


def test_distilled_is_timms():
    from timm.models.deit import VisionTransformerDistilled

    theirs = randomized(VisionTransformerDistilled(**TINY)).eval()
    model = tiny(distilled=True)
    model.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_sincos2d_is_vit_pytorchs():
    torch.testing.assert_close(sincos2d((3, 5), 48)[0], posemb_sincos_2d(3, 5, 48))


def without_hidden_patches(model: VisionTransformer, images: Tensor, mask: Tensor) -> Tensor:
    """One image at a time through timm-like code that never had the hidden patches."""
    logits = []
    for image, visible in zip(images, mask.flatten(1)):
        tokens, _ = model._embed(image[None], None)
        prefix = model.num_prefix_tokens
        tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:][:, visible]], dim=1)
        for block in model.blocks:
            tokens = block(tokens)
        tokens = model.norm(tokens)
        patches = tokens[:, prefix:]
        pooled = {
            "token": tokens[:, 0],
            "avg": patches.mean(1),
            "max": patches.amax(1),
            "avgmax": 0.5 * (patches.mean(1) + patches.amax(1)),
        }
        logits.append(model.head(model.fc_norm(pooled[model.global_pool])))
    return torch.cat(logits)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"global_pool": "avg"}, {"global_pool": "max"}, {"global_pool": "avgmax", "fc_norm": False},
        {"reg_tokens": 3}, {"attn_scale": "learned"},
    ],
    ids=str,
)  # fmt: skip
def test_a_masked_patch_is_a_missing_patch(batch: int, options: dict):
    model = randomized(tiny(**options))
    images = torch.randn(batch, 3, 32, 32)
    mask = torch.rand(batch, 4, 4) < 0.5
    mask[:, 0, 0] = True
    masked, dropped = model(images, mask=mask), without_hidden_patches(model, images, mask)
    torch.testing.assert_close(masked, dropped, atol=1e-6 * dropped.abs().max().item(), rtol=1e-5)
    parameters = [model.blocks[0].attn.qkv.weight, model.patch_embed.proj.weight, model.blocks[-1].mlp.fc1.weight]
    for ours, theirs in zip(
        torch.autograd.grad(masked.sum(), parameters), torch.autograd.grad(dropped.sum(), parameters)
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-6 * theirs.abs().max().item(), rtol=1e-5)


def test_masks_at_their_ends():
    model = randomized(tiny())
    images = torch.randn(2, 3, 32, 32)
    all_, none = torch.ones(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(model(images, mask=all_), model(images))
    alone = model(images, mask=none)
    torch.testing.assert_close(alone, model(torch.randn(2, 3, 32, 32), mask=none))  # the image does not matter
    assert alone.isfinite().all()
    for options in ({"global_pool": "avg"}, {"global_pool": "max"}, {"attn_scale": "learned"}):
        assert tiny(**options)(images, mask=none).isfinite().all()


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 4, 5, dtype=torch.bool), torch.ones(1, 4, 4, dtype=torch.bool), torch.ones(2, 4, 4)]
)
def test_a_wrong_mask_is_refused(mask: Tensor):
    with pytest.raises(UsageError, match="mask is"):
        tiny()(torch.randn(2, 3, 32, 32), mask=mask)


def test_a_transformer_without_mask_refuses_one():
    model = tiny(transformer=nn.TransformerEncoder(nn.TransformerEncoderLayer(48, 4, batch_first=True), 1))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    takes_one = tiny(transformer=Masked())
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    assert takes_one(torch.randn(2, 3, 32, 32), mask=mask).shape == (2, 7)
    model.transformer = nn.Identity()
    with pytest.raises(UsageError, match="takes no mask"):
        model(torch.randn(2, 3, 32, 32), mask=mask)


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x if mask is None else x * mask[..., None]


@pytest.mark.parametrize(
    "options",
    [
        {"patch_embed": "spt", "attn_scale": "learned", "pos_embed": "sincos2d", "global_pool": "avg"},
        {"patch_embed": "hmlp", "layer_scale_init": 1e-4, "pos_embed": "none", "drop_path_rate": 0.5},
        {"patch_embed": "conv", "distilled": True, "reg_tokens": 2, "drop_path_rate": 0.5, "drop_path_mode": "skip"},
        {"patch_norm": True, "pre_logits": 20, "fine_tune_from": 3, "patch_drop_rate": 0.5, "head_hidden": 11},
        {"proj_drop_rate": 0.1, "pos_drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_rate": 0.1, "final_norm": False},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_part_learns(options: dict):
    """All parameters get a gradient, through blocks computed once or twice."""
    torch.manual_seed(0)
    model = tiny(**options, head_bias_init=-1.0).train()
    for name in model.classifiers:
        nn.init.normal_(model.get_submodule(name).weight)
    images = torch.randn(8, 3, 32, 32)
    gradients = []
    for checkpointing in (False, True):
        model.grad_checkpointing = checkpointing
        torch.manual_seed(1)
        logits = model(images)
        assert logits.shape == (8, 7)
        gradients.append(torch.autograd.grad(logits.square().sum(), list(model.parameters())))
    for (name, _), once, twice in zip(model.named_parameters(), *gradients):
        assert once.abs().sum() > 0, name
        torch.testing.assert_close(once, twice, msg=name)
    assert {model.layer_of(name) for name, _ in model.named_parameters()} == set(range(model.num_layers))


def test_what_comes_before_the_blocks_is_layer_0():
    model = tiny(pre_norm=True, reg_tokens=1)
    before = [name for name, _ in model.named_parameters() if not name.startswith(("blocks.", "norm.", "head."))]
    assert {name.split(".")[0] for name in before} == {
        "cls_token", "reg_token", "pos_embed", "patch_embed", "norm_pre",
    }  # fmt: skip
    assert {model.layer_of(name) for name in before} == {0}


def test_eval_mode_is_deterministic_and_whole():
    model = randomized(
        tiny(patch_drop_rate=0.5, drop_path_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5, drop_rate=0.5)
    )
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), model(images))
    assert [tuple(m.shape) for m in model.train().features(images)] == [(2, 48, 4, 4)] * 3


def test_hooks_see_all_tokens():
    """The last block computes only what the head needs, unless it has hooks."""
    model, seen = randomized(tiny()), []
    images = torch.randn(2, 3, 32, 32)
    unwatched = model(images)
    handles = [block.register_forward_hook(lambda *args: seen.append(args[2].shape)) for block in model.blocks]
    torch.testing.assert_close(model(images), unwatched)
    assert seen == [(2, 17, 48)] * 3
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("positions", ["learned", "sincos2d"])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_residual_stream_is_float32_under_autocast(positions: str, pool: str):
    model, seen = tiny(pos_embed=positions, global_pool=pool), []
    model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(2, 3, 32, 32))
    assert seen == [torch.float32]


def test_the_network_compiles_as_one_graph():
    model = randomized(tiny(patch_drop_rate=0.5, drop_path_rate=0.5, drop_path_mode="skip"))
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images))
    assert compiled(images, mask=torch.rand(2, 4, 4) > 0.5).shape == (2, 7)
    assert torch.compile(model.train(), fullgraph=True, backend="aot_eager")(images).shape == (2, 7)


def test_a_transformer_must_keep_the_tokens():
    with pytest.raises(UsageError, match=r"Fewer returns \(2, 3, 48\) for tokens \(2, 17, 48\)"):
        tiny(transformer=Fewer())(torch.randn(2, 3, 32, 32))


class Fewer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3]


def test_a_fresh_head_says_nothing():
    logits = tiny(head_bias_init=-6.9)(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(logits, torch.full((2, 7), -6.9))


@pytest.mark.parametrize("hook", ["to_latent", "to_cls_token"])
@pytest.mark.parametrize("kind", ["fvit", "fastvit_t8", "token", "avg"])
def test_byol_finds_the_latents(kind: str, hook: str):
    model = create_model(kind, num_classes=7) if "vit" in kind else tiny(global_pool=kind)
    use_cpu_kernels(model)  # PyTorch's depthwise backward crashes on the channels_last views of byol-pytorch
    learner = BYOL(model.train(), image_size=32, hidden_layer=hook, projection_size=16, projection_hidden_size=32)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    for _ in range(2):
        loss = learner(torch.randn(4, 3, 32, 32))
        loss.backward()
        optimizer.step()
        learner.update_moving_average()
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 33}, "33 px is not divisible into patches of 8"),
        ({"num_heads": 5}, "48 cannot be split into 5 heads"),
        ({"class_token": False}, "needs one"),
        ({"distilled": True, "global_pool": "avg", "class_token": True}, "distillation"),
        ({"patch_size": 16, "patch_embed": "spt", "patch_norm": True}, "patch_norm does not apply"),
        ({"img_size": 28, "patch_size": 14, "patch_embed": "conv"}, "patches of 14 px"),
        ({"img_size": 36, "patch_size": 6, "patch_embed": "hmlp"}, "patches of 6 px"),
        ({"embed_dim": 50, "num_heads": 5, "pos_embed": "sincos2d"}, "multiple of 4"),
    ],
)
def test_what_cannot_be_built(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        tiny(**options)


def test_another_image_size_is_refused():
    with pytest.raises(UsageError, match="takes images of 32 x 32 px, not 40 x 32"):
        tiny()(torch.randn(1, 3, 40, 32))
