"""Simulated int8: the numbers of integer arithmetic, in the place where the folded network will have them."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.e2e.test_resume import final_bytes, metrics
from tests.models.oracle import images
from tests.support.commands import SMALL
from tests.support.tensors import randomized
from vitcli import train, validate
from vitcli.engine.before_torch import check_start
from vitcli.errors import RecipeError, UsageError
from vitcli.layers import fake_quant
from vitcli.layers.fake_quant import Int8Conv2d, Int8Linear, quantized_input, simulate_int8
from vitcli.layers.reparam import reparameterize
from vitcli.models.fastvit import FastViT
from vitcli.models.registry import create_model
from vitcli.networks.build import float_layers
from vitcli.recipe.load import load_recipe


def fastvit(*, attention: bool) -> FastViT:
    torch.manual_seed(0)
    model = FastViT(depths=(1, 1, 1, 1), dim=32, mlp_ratio=2, attention=attention, num_classes=5)
    return randomized(model)


def vit() -> nn.Module:
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16, "layer_scale_init": 0.5}
    torch.manual_seed(0)
    model = create_model("vit_ti_patch16", num_classes=5, img_size=64, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


NETWORKS = {"fastvit_t8": lambda: fastvit(attention=False), "fastvit_sa12": lambda: fastvit(attention=True), "vit": vit}


def simulated(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    simulate_int8(model, keep_float=float_layers(model))
    return model


def integers(x: Tensor) -> tuple[Tensor, float]:
    """The input as integers less their zero point, and their step, by the definition."""
    extremes = [(image.min().item(), image.max().item()) for image in x]
    low, high = (min(0, sum(e[0] for e in extremes) / len(x)), max(0, sum(e[1] for e in extremes) / len(x)))
    step = (high - low) / 255
    zero_point = round(-low / step)
    return (x.double() / step + zero_point).round().clamp(0, 255) - zero_point, step


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_equals_integer_arithmetic(shift: float):
    """Sums of products of whole numbers are exact in float64; padding is the number 0."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, 9, 9) + shift
    conv, linear = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Linear(9, 7)
    both = nn.ModuleList([conv, linear])
    whole, step = integers(x)
    expected = []
    for layer in (conv, linear):
        steps = layer.weight.detach().double().flatten(1).abs().amax(1) / 127
        levels = (layer.weight.detach().double().flatten(1) / steps[:, None]).round().view_as(layer.weight)
        assert levels.abs().amax() == 127
        if layer is conv:
            sums = F.conv2d(whole, levels, stride=2, padding=1)
            expected.append(sums * step * steps.view(-1, 1, 1) + layer.get_parameter("bias").view(-1, 1, 1))
        else:
            expected.append(F.linear(whole, levels) * step * steps + layer.get_parameter("bias"))
    assert "simulated in 2 layers, 0 stay" in simulate_int8(both)
    for layer, right in zip((conv, linear), expected, strict=True):
        torch.testing.assert_close(layer(x).double(), right, rtol=1e-5, atol=1e-5)


def test_gradient_goes_straight_through_but_not_beyond_the_range():
    x = torch.tensor([[-1.0, 0.1, 4.0], [-1.0, 0.2, 2.0]], requires_grad=True)  # the range is -1 .. 3
    out = quantized_input(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert out[0, 2].item() == pytest.approx(3, abs=4 / 255)
    torch.testing.assert_close(out[1], x[1], rtol=0, atol=2 / 255)


def test_nothing_stays_nothing():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    simulate_int8(layer)
    assert torch.equal(layer(torch.zeros(4, 3)), layer.bias.expand(4, 2))
    assert layer(torch.full((1, 3), torch.nan)).isnan().all(), "the guard of the training step must see it"


@pytest.mark.parametrize("name", list(NETWORKS))
def test_without_rounding_it_is_the_folded_network(name: str, monkeypatch: pytest.MonkeyPatch):
    model = NETWORKS[name]()
    expected = reparameterize(model, fold="full")
    same = simulated(model)
    monkeypatch.setattr(fake_quant, "quantized_input", lambda x: x)
    monkeypatch.setattr(fake_quant, "quantized_weight", lambda x: x)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        for mode in (True, False):
            torch.testing.assert_close(same.train(mode)(x), expected(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same.state_dict(), model.state_dict(), rtol=0, atol=0)  # statistics are as they were


@pytest.mark.parametrize("name", list(NETWORKS))
def test_rounds_what_the_folded_network_rounds(name: str):
    """The branches round like the folded network: its layers except the first, the last, gates and depthwise ones."""
    model = NETWORKS[name]()
    folded = reparameterize(model, fold="full")
    differences = []
    for seed in range(3):  # a value exactly between two levels may be rounded either way: one batch must have none
        x = images(4, 3, 64, 64, seed=seed)
        exact, of_branches, of_folded = folded(x), simulated(model)(x), simulated(folded)(x)
        error = (of_folded - exact).norm()
        assert error > 1e-3 * exact.norm()
        differences.append((of_branches - of_folded).norm() / error)
    assert min(differences) < 1e-3
    rounded = [m for m in simulated(folded).modules() if isinstance(m, Int8Conv2d | Int8Linear)]
    plain = [
        module
        for name, module in folded.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and getattr(module, "groups", 1) == 1 and ".se." not in name
    ]
    assert len(plain) - len(rounded) == 2, "the first and the last stay"


@pytest.mark.parametrize("name", list(NETWORKS))
def test_everything_learns(name: str):
    model = simulated(NETWORKS[name]()).train()
    model(images(4, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_copy_is_a_network_of_its_own():
    model = simulated(fastvit(attention=True)).eval()
    average, x = copy.deepcopy(model), images(2, 3, 64, 64)
    before = average(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert torch.equal(average(x), before)
    average.load_state_dict(model.state_dict())
    assert torch.equal(average(x), model(x))


@pytest.mark.slow
def test_resumes_to_the_last_bit_and_validates_as_trained(tmp_path: Path):
    """With an average and two micro-steps; the weights move, the statistics of the norms do not."""
    weights = create_model("fastvit_t8", num_classes=10).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    values = SMALL | {
        "dataset": "synthetic", "num_samples": 64, "batch_size": 16, "val_batch_size": 256,
        "gradient_accumulation_steps": 2, "num_parallel_workers": 0,
        "quantize": "int8_qat", "ckpt_path": tmp_path / "weights.safetensors", "run_dir": tmp_path / "whole",
    }  # fmt: skip
    train(load_recipe("quickstart", **values))
    trained = load_file(tmp_path / "whole" / "checkpoints" / "step-00000004" / "model.safetensors")
    assert {name for name in weights if torch.equal(weights[name], trained[name])} == {
        name for name in weights if name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    last = tmp_path / "whole" / "checkpoints" / "step-00000004"
    found = load_recipe(ckpt_path=last, num_parallel_workers=0)
    as_trained, as_float = validate(found), validate(found.changed(quantize="none"))
    assert as_trained.items() >= {k: metrics(tmp_path / "whole")[-1][k] for k in ("top1", "nll")}.items()
    assert as_float["nll"] != as_trained["nll"]
    run = shutil.copytree(tmp_path / "whole", tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    train(load_recipe(run / "recipe.yaml", resume=str(run), run_dir=None))
    assert final_bytes(run) == final_bytes(tmp_path / "whole")


def test_mistakes_are_explained():
    with pytest.raises(UsageError, match="the weights are random"):
        check_start(load_recipe(quantize="int8_qat"))
    with pytest.raises(RecipeError, match="amp bf16 would round the numbers again"):
        load_recipe(quantize="int8_qat", amp="bf16")
    with pytest.raises(UsageError, match="nothing to quantize"):
        simulate_int8(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), keep_float=("1",))
