"""`amp: fp8` without a GPU that has it: torchao's arithmetic is emulated; names, evaluation and resume; refusals."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.engine.test_low_bit import bits
from vitcli.commands.preflight import preflight
from vitcli.commands.submit import submit
from vitcli.commands.train import train
from vitcli.engine import before_torch, build_task, precision, saving
from vitcli.engine.loop import fit
from vitcli.engine.precision import train_in_float8
from vitcli.engine.preflight import check_device
from vitcli.engine.resume import ResumePoint
from vitcli.engine.signals import StopFlag
from vitcli.engine.state import restore
from vitcli.engine.step import train_step
from vitcli.errors import RecipeError, UsageError
from vitcli.layers.float8 import TrainedInFloat8, use_float8
from vitcli.models.registry import create_model
from vitcli.parallel.parts import blocks_of
from vitcli.recipe.load import load_recipe
from vitcli.weights.json_file import read_json


def vit() -> nn.Module:
    torch.manual_seed(0)
    network = create_model("vit_ti_patch16", num_classes=10, img_size=32, patch_size=8, depth=2, embed_dim=48)
    nn.init.normal_(network.head.weight, std=0.1)
    return network


@pytest.fixture
def run(make, monkeypatch: pytest.MonkeyPatch):
    """A training of `vit`, with emulated arithmetic."""
    monkeypatch.setattr(build_task, "train_in_float8", partial(train_in_float8, emulate=True))
    base = {"image_resize": 32, "opt": "adamw", "lr": 1e-3, "momentum": 0.9}
    return lambda **keys: make(network=vit(), **(base | keys))


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x with the precision of `dtype`, whose largest number stands for the largest of x; in float64."""
    scale = torch.finfo(dtype).max / x.abs().max().double()
    return (x.double() * scale).float().to(dtype).double() / scale


def test_the_numbers_by_hand():
    """Output and gradients in training; a plain linear layer in evaluation."""
    torch.manual_seed(0)
    plain = nn.Linear(32, 16)
    (layer,) = use_float8([nn.Sequential(plain)], emulate=True)
    assert layer.weight is plain.weight
    x, grad = torch.randn(2, 5, 32, requires_grad=True), torch.randn(2, 5, 16)
    out = layer(x)
    found = [out, *torch.autograd.grad(out, [x, layer.weight, layer.bias], grad)]
    x8, w8 = rounded(x.detach(), torch.float8_e4m3fn), rounded(plain.weight.detach(), torch.float8_e4m3fn)
    g8 = rounded(grad, torch.float8_e5m2)
    expected = [x8 @ w8.T + plain.bias, g8 @ w8, g8.flatten(0, 1).T @ x8.flatten(0, 1), grad.sum((0, 1))]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(out, plain(x), atol=1e-3)
    assert torch.equal(layer.eval()(x), plain(x))


def test_which_layers():
    """Those of the blocks, if 16 divides both sides; patches, head and the names stay."""
    network = vit()
    network.blocks[0].mlp.fc1 = nn.Linear(48, 100)
    names, ids = list(network.state_dict()), [id(p) for p in network.parameters()]
    said = train_in_float8(network, emulate=True)
    layers = [name for name, module in network.named_modules() if isinstance(module, TrainedInFloat8)]
    of_a_block = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    expected = {f"blocks.{block}.{name}" for block in (0, 1) for name in of_a_block} - {"blocks.0.mlp.fc1"}
    assert set(layers) == expected
    share = sum(p.numel() for n in layers for p in network.get_submodule(n).parameters())
    assert f"7 linear layers, {100 * share / sum(p.numel() for p in network.parameters()):.1f} %" in said
    assert (list(network.state_dict()), [id(p) for p in network.parameters()]) == (names, ids)
    assert len(use_float8(blocks_of(network), emulate=True)) == 7, "a second call changes nothing"


def test_a_run_learns_as_in_bf16_and_is_evaluated_in_bf16(run):
    """Every loss differs, by less than the rounding of one number, 2^-4; the average computes what a plain one does."""
    losses = {}
    for amp in ("bf16", "fp8"):
        training = run(amp=amp, ema=True)
        batches = iter(training.batches(start_step=0))
        losses[amp] = []
        for _ in range(8):
            train_step(training, batches)
            losses[amp].append(training.meter.sums["loss"].item())
            training.meter.reset()
    ours, theirs = (torch.tensor(losses[amp]) for amp in ("fp8", "bf16"))
    assert (ours != theirs).all()
    torch.testing.assert_close(ours, theirs, rtol=2**-4, atol=0)
    plain, images = vit().eval(), torch.randn(2, 3, 32, 32)
    plain.load_state_dict(training.ema.model.state_dict())
    with training.autocast():
        assert torch.equal(training.ema.model.eval()(images), plain(images))


def test_a_run_continues_to_the_last_bit(run):
    whole = run(amp="fp8", ema=True)
    fit(whole, StopFlag())
    folder = whole.run_dir / "checkpoints" / "step-00000004"
    again = run(amp="fp8", ema=True)
    restore(again, ResumePoint(folder, read_json(folder / "state.json")))
    batches = iter(again.batches(start_step=4))
    for _ in range(4):
        train_step(again, batches)
    assert bits(again) == bits(whole)
    plain = run(amp="bf16")
    saving.save(plain)
    assert again.task.state_dict().keys() == plain.task.state_dict().keys()


@pytest.mark.gpu
def test_the_gpu_computes_what_is_emulated():
    """With a number of tokens that 16 does not divide."""
    if not torch.cuda.is_available() or not precision.has_float8(torch.device("cuda")):
        pytest.skip("no GPU with float8")
    torch.manual_seed(0)
    x, grad = torch.randn(3, 7, 64, device="cuda"), torch.randn(3, 7, 32, device="cuda")
    weights, results = nn.Linear(64, 32).cuda(), []
    for emulate in (True, False):
        (layer,) = use_float8([nn.Sequential(weights)], emulate=emulate)
        inputs = x.clone().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16):
            out = layer(inputs)
        results.append([out, *torch.autograd.grad(out, [inputs, layer.weight, layer.bias], grad.to(out.dtype))])
    torch.testing.assert_close(*results, rtol=2**-7, atol=2**-7)


def test_refused_devices(monkeypatch: pytest.MonkeyPatch):
    recipe, cuda = load_recipe(None, amp="fp8"), torch.device("cuda")
    with pytest.raises(UsageError, match=r"compute capability 8\.9"):
        check_device(recipe, torch.device("cpu"))
    for capability, enough in (((8, 6), False), ((8, 9), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        if enough:
            check_device(recipe, cuda)
        else:
            with pytest.raises(UsageError, match=r"compute capability 8\.9"):
                check_device(recipe, cuda)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not precision.has_float8(cuda)


def test_refused_without_torchao(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    before_torch.check_start(load_recipe(None, amp="fp8"))
    monkeypatch.setattr(before_torch, "find_spec", lambda name: None)
    before_torch.check_start(load_recipe(None, amp="bf16"))
    for begin in (before_torch.check_start, train, preflight, partial(submit, cluster="local", resources={})):
        with pytest.raises(UsageError, match="torchao, which is not installed"):
            begin(load_recipe(None, amp="fp8", run_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_refused_networks_and_keys():
    with pytest.raises(UsageError, match="no block has a linear layer"):
        train_in_float8(create_model("fastvit_t8", num_classes=10), emulate=True)
    with pytest.raises(RecipeError, match="does not support `amp: fp8`"):
        load_recipe(None, amp="fp8", parallel="fsdp")
    with pytest.raises(RecipeError, match="amp fp8 would round"):
        load_recipe(None, amp="fp8", quantize="int8_qat", ckpt_path="x")
