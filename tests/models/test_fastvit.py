"""FastViT computes what timm's does: outputs, gradients, training steps, features, sizes and first values."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.utils.model import reparameterize_model
from torch.utils.flop_counter import FlopCounterMode

from tests.models.oracle import NAMES, images, pair
from vitcli.layers.reparam import reparameterize
from vitcli.models.registry import create_model

# parameters in training form, standard fold and full fold; entries of the state dict in the first two; GMAC at 256 px
# fmt: off
SIZES = {
    "fastvit_t8":   ( 4_026_232,  3_996_040,  3_992_392,  462, 156, 0.690, 0.685),
    "fastvit_t12":  ( 7_553_704,  7_508_840,  7_502_952,  530, 182, 1.398, 1.391),
    "fastvit_s12":  ( 9_473_576,  9_428_712,  9_422_824,  530, 182, 1.800, 1.794),
    "fastvit_sa12": (11_580_968, 11_545_320, 11_539_432,  504, 198, 1.944, 1.937),
    "fastvit_sa24": (21_554_216, 21_501_288, 21_489_512,  884, 368, 3.770, 3.762),
    "fastvit_sa36": (31_527_464, 31_457_256, 31_439_592, 1264, 538, 5.596, 5.587),
    "fastvit_ma36": (44_068_004, 43_984_632, 43_963_656, 1264, 538, 7.826, 7.815),
}
# fmt: on


def num_params(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gmac(model: torch.nn.Module) -> float:
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 256, 256))
    return round(counter.get_total_flops() / 2e9, 3)


def named(key: str) -> Callable[[str], str]:
    """The message of a failed comparison, with the name of the tensor."""
    return lambda message: f"{key}: {message}"


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_timms_in_both_forms(name):
    ours, theirs = pair(name)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.abs().max() > 0.3
        torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=0)

        fused, fused_theirs = reparameterize(ours), reparameterize_model(theirs)
        torch.testing.assert_close(fused(x), fused_theirs(x), atol=1e-5, rtol=0)
        torch.testing.assert_close(fused(x), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(reparameterize(ours, fold="full")(x), expected, atol=1e-5, rtol=0)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    fused.load_state_dict(fused_theirs.state_dict(), strict=True)
    fused_theirs.load_state_dict(fused.state_dict(), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name):
    with torch.device("meta"):
        model = create_model(name)
    fused = reparameterize(model)
    train_form = (num_params(model), len(model.state_dict()), gmac(model.eval()))
    assert train_form == (SIZES[name][0], SIZES[name][3], SIZES[name][5])
    assert (num_params(fused), len(fused.state_dict()), gmac(fused)) == (SIZES[name][1], SIZES[name][4], SIZES[name][6])
    assert num_params(reparameterize(model, fold="full")) == SIZES[name][2]


@pytest.mark.parametrize(("name", "batch", "size_px"), [("fastvit_t8", 8, 64), ("fastvit_sa12", 4, 96)])
def test_training_steps_equal_timms(name, batch, size_px):
    """Three steps of AdamW; its epsilon is large, for else it turns the rounding of vanishing gradients into steps."""
    ours, theirs = pair(name)
    models = ours.train(), theirs.train()
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-3) for model in models]
    for step in range(3):
        x, labels = images(batch, 3, size_px, size_px, seed=step), torch.arange(batch) % 10
        for model, optimizer in zip(models, optimizers):
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
        for (key, parameter), expected in zip(ours.named_parameters(), theirs.parameters()):
            torch.testing.assert_close(parameter.grad, expected.grad, atol=1e-5, rtol=1e-4, msg=named(key))
    for key, expected in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], expected, atol=1e-5, rtol=1e-5, msg=named(key))


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
def test_features_equal_timms(name):
    ours, theirs = pair(name)
    x = images(2, 3, 64, 96)
    with torch.no_grad():
        final, expected = theirs.forward_intermediates(x)
        maps = ours.features(x)
        torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.forward_features(x), final, atol=1e-5, rtol=1e-5)
    dim = {"fastvit_t8": 48, "fastvit_sa12": 64}[name]
    assert [tuple(m.shape[1:]) for m in maps] == [(dim << i, 16 >> i, 24 >> i) for i in range(4)]


@pytest.mark.parametrize("size_px", [32, 64, 80])
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
def test_small_images_in_training(name, size_px):
    ours, theirs = pair(name)
    x = images(4, 3, size_px, size_px)
    out, expected = ours.train()(x), theirs.train()(x)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)
    out.square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in ours.parameters())


def test_latent_is_what_the_head_sees():
    model = create_model("fastvit_t8", num_classes=10).eval()
    seen = []
    model.to_latent.register_forward_hook(lambda module, inputs, output: seen.append(output))
    out = model(images(2, 3, 64, 64))
    assert seen[0].shape == (2, 768) == (2, model.num_features)
    torch.testing.assert_close(model.head.fc(seen[0]), out)
    assert create_model("fastvit_t8", num_classes=0).eval()(images(1, 3, 64, 64)).shape == (1, 768)


def test_options_of_create_model():
    rates = {"drop_rate": 0.5, "drop_path_rate": 0.18, "layer_scale_init": 0.1}
    model = create_model("fastvit_t8", num_classes=7, in_chans=1, **rates)
    assert model(images(2, 1, 64, 64)).shape == (2, 7)
    assert model.head.drop.p == 0.5
    assert model.stages[0].blocks[0].layer_scale.gamma.unique().item() == pytest.approx(0.1)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.18 * i / 9 for i in range(10)])  # from 0 to the full rate, block by block


def test_first_values():
    """timm's and Apple's rules: Linear and FFN weights N(0, 0.02), the others PyTorch's own; norms 1 and 0."""
    torch.manual_seed(0)
    model = create_model("fastvit_sa12")
    block = model.stages[3].blocks[0]
    for layer in (model.head.fc, block.token_mixer.qkv, block.token_mixer.proj, block.mlp.fc1, block.mlp.fc2):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert layer.bias is None or not layer.bias.any()
    assert block.mlp.conv.conv.weight.std().item() == pytest.approx(0.02, rel=0.03)
    # uniform with bound 1 / sqrt(fan_in): standard deviation bound / sqrt(3); a depthwise 7 x 7 has fan_in 49
    downsample = model.stages[1].downsample.proj[0].large_conv.conv.weight
    assert downsample.std().item() == pytest.approx(1 / (49 * 3) ** 0.5, rel=0.05)
    assert model.stages[0].blocks[0].layer_scale.gamma.unique().item() == pytest.approx(1e-5)
    assert create_model("fastvit_sa36").stages[3].blocks[0].layer_scale_1.gamma.unique().item() == pytest.approx(1e-6)
    norm = block.norm
    assert [norm.weight.unique().item(), norm.running_var.unique().item(), norm.eps, norm.momentum] == [1, 1, 1e-5, 0.1]


def test_grad_checkpointing_changes_nothing():
    plain, _ = pair("fastvit_sa12")
    thrifty = create_model("fastvit_sa12", num_classes=10, grad_checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    for model in (plain.train(), thrifty.train()):
        model(images(2, 3, 96, 96)).square().sum().backward()
    for (key, expected), other in zip(plain.named_parameters(), thrifty.parameters()):
        torch.testing.assert_close(other.grad, expected.grad, msg=key)
    torch.testing.assert_close(thrifty.state_dict(), plain.state_dict())  # running statistics moved once


def test_autocast_keeps_the_residual_stream_in_bfloat16():
    model = create_model("fastvit_sa12", num_classes=10).train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.features(images(2, 3, 64, 64))
        loss = F.cross_entropy(model(images(2, 3, 64, 64)), torch.tensor([0, 1]))
    assert {m.dtype for m in maps} == {torch.bfloat16}
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.slow
def test_compiles_into_one_graph():
    model, _ = pair("fastvit_sa12")
    model.train()
    explained = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = images(2, 3, 64, 64)
    explained(x).square().sum().backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    for (key, parameter), compiled in zip(model.named_parameters(), grads):
        torch.testing.assert_close(compiled, parameter.grad, atol=1e-4, rtol=1e-3, msg=named(key))
