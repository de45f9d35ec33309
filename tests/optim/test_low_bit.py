"""Low-bit moments: the weights of torchao's optimizers bit for bit, dropped steps, memory, layouts, checkpoints."""

import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchao import optim as torchao_optim
from torchao.optim.quant_utils import quantize_4bit_with_qmap, quantize_8bit_with_qmap
from torchao.optim.subclass_4bit import get_qmap_signed as signed_4bit
from torchao.optim.subclass_4bit import get_qmap_unsigned as unsigned_4bit
from torchao.optim.subclass_8bit import get_qmap_signed as signed_8bit
from torchao.optim.subclass_8bit import get_qmap_unsigned as unsigned_8bit

from vitcli.engine.state import optimizer_tensors, restore_optimizer
from vitcli.models.registry import create_model
from vitcli.optim import device_step
from vitcli.optim.low_bit import LowBitAdamW
from vitcli.optim.low_bit_formats import TableFormat, moment_formats
from vitcli.optim.optimizers import build_optimizer, drop_step_if
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section

CPU = torch.device("cpu")
NAMES = ("adamw_bf16", "adamw_fp8", "adamw_8bit", "adamw_4bit")
TORCHAO = {"adamw_fp8": "AdamWFp8", "adamw_8bit": "AdamW8bit", "adamw_4bit": "AdamW4bit"}


def large_and_small() -> nn.Module:
    """Two tensors in low-bit blocks, a convolution and a linear layer, and four that are too small or do not divide."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 64, 3), nn.Flatten(), nn.Linear(64, 128), nn.Linear(129, 65, bias=False))


def build(name: str, network: nn.Module, weight_decay: float = 0.1) -> LowBitAdamW:
    groups = param_groups(network, weight_decay=weight_decay, weight_decay_filter="disable")
    optimizer = build_optimizer(Section(opt=name, weight_decay=weight_decay), groups, CPU, network)
    assert isinstance(optimizer, LowBitAdamW)
    return optimizer


def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int, bad: bool = False) -> None:
    """Gradients of many sizes, and of 0 in a whole block; a rate that falls."""
    torch.manual_seed(seed)
    for p in network.parameters():
        values = torch.randn(p.shape) * 10.0 ** torch.randint(-6, 1, p.shape)
        values.view(-1)[:256] = 0
        p.grad = torch.empty_like(p).copy_(values * math.nan if bad else values)
    for group in optimizer.param_groups:
        lr = 1e-2 / (1 + seed)
        group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr
    drop_step_if(optimizer, torch.tensor(bad))
    optimizer.step()


@pytest.mark.parametrize("name", TORCHAO)
def test_equals_torchao_bit_for_bit(name: str):
    """Its optimizer driven by hand, without compilation; tensors that stay in float32 differ by rounding."""
    ours = large_and_small()
    theirs = copy.deepcopy(ours)
    optimizer = build(name, ours)
    oracle = getattr(torchao_optim, TORCHAO[name])(theirs.parameters(), weight_decay=0.1)
    with torch.compiler.set_stance("force_eager"):
        for seed in range(8):
            step(ours, optimizer, seed)
            step(theirs, oracle, seed)
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                state, known = optimizer.state[p], oracle.state[q]
                if "exp_avg" in state:
                    assert torch.allclose(p, q, rtol=1e-4, atol=1e-5)
                    continue
                assert torch.equal(p, q)
                for moment in ("exp_avg", "exp_avg_sq"):
                    codes = known[moment].codes.flatten()
                    assert torch.equal(state[f"{moment}.codes"].view(torch.uint8), codes.view(torch.uint8))
                    assert torch.equal(state[f"{moment}.scales"], known[moment].scale)
    assert sum("exp_avg" not in state for state in optimizer.state.values()) == 2


@pytest.mark.parametrize(
    ("name", "tables", "quantize"),
    [
        ("8bit", (signed_8bit(), unsigned_8bit()), quantize_8bit_with_qmap),
        ("4bit", (signed_4bit(), unsigned_4bit()), quantize_4bit_with_qmap),
    ],
)
def test_tables_and_rounding_are_torchaos(name: str, tables: tuple, quantize):
    """The tables, and the code of every threshold and of its two neighbors, where rounding is decided."""
    for format, table in zip(moment_formats(name, CPU), tables, strict=True):
        assert isinstance(format, TableFormat)
        assert torch.equal(format.table, torch.tensor(table))
        edges = format.limits.unique()[:-1]
        assert len(edges) == len(table) - 1
        around = (edges, edges.nextafter(torch.tensor(-2.0)), edges.nextafter(torch.tensor(2.0)))
        values = torch.cat([*around, format.table, torch.linspace(-1 if table[0] < 0 else 0, 1, 99_999)])
        values = values[: len(values) // 256 * 256]
        codes = quantize(values, format.table)
        expected = codes if name == "8bit" else codes[::2] << 4 | codes[1::2]
        assert torch.equal(format.to_codes(values), expected)
        assert torch.equal(format.from_codes(expected), format.table[codes.int()])


@pytest.mark.parametrize(("name", "tolerance"), [("bf16", 0.02), ("8bit", 0.05), ("fp8", 0.4), ("4bit", 0.4)])
def test_a_second_moment_can_decay(name: str, tolerance: float):
    """Gradients shrink by 10, beta2 is 0.999: the mean after 1000 steps, relative to float32.

    A moment that is just rounded to bfloat16 stays: 0.999 x is rounded back to x.
    """
    torch.manual_seed(0)
    exact = 100 * torch.randn(4096).square()
    plain, format = exact.bfloat16(), moment_formats(name, CPU)[1]
    codes, scales = format.encode(exact)
    for _ in range(1000):
        square = torch.randn(4096).square()
        exact.lerp_(square, 1e-3)
        plain = plain.float().lerp(square, 1e-3).bfloat16()
        codes, scales = format.encode(format.decode(codes, scales).lerp(square, 1e-3))
    assert plain.float().mean() > 2 * exact.mean()
    assert format.decode(codes, scales).mean().item() == pytest.approx(exact.mean().item(), rel=tolerance)


@pytest.mark.parametrize(("name", "tolerance"), [("adamw_bf16", 0.01), ("adamw_8bit", 0.1)])
def test_follows_float32_adamw(name: str, tolerance: float):
    """A small regression, 100 steps: the path of the weights departs by this share of its length."""
    torch.manual_seed(0)
    start, x = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64)), torch.randn(256, 64)

    def trained(kind: str) -> Tensor:
        network = copy.deepcopy(start)
        groups = param_groups(network, weight_decay=0.1, weight_decay_filter="auto")
        optimizer = build_optimizer(Section(opt=kind), groups, CPU, network)
        for _ in range(100):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3
            optimizer.zero_grad()
            (network(x) - x.sin()).square().mean().backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(network.parameters()) - nn.utils.parameters_to_vector(start.parameters())

    exact, low = trained("adamw"), trained(name)
    assert 0 < (low - exact).norm() / exact.norm() < tolerance


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_step_leaves_no_trace(name: str, on_host: bool, monkeypatch):
    """Weights, codes, scales and step counts are those of a twin without the bad steps, the very first among them."""
    network = large_and_small()
    twin = copy.deepcopy(network)
    ours, steady = build(name, network), build(name, twin)
    for seed, bad in enumerate((True, False, True, False)):
        monkeypatch.setattr(device_step, "is_on_host", lambda flag: on_host)
        step(network, ours, seed, bad)
        if not bad:
            monkeypatch.setattr(device_step, "is_on_host", lambda flag: True)
            step(twin, steady, seed)
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        for field, value in steady.state[q].items():
            assert torch.equal(ours.state[p][field].view(-1).view(torch.uint8), value.view(-1).view(torch.uint8)), field


@pytest.mark.parametrize("name", NAMES)
def test_a_step_reads_nothing_on_the_host(name: str):
    """Meta tensors have no values: reading one raises."""
    network = large_and_small().to("meta")
    optimizer = build(name, network)
    for p in network.parameters():
        p.grad = torch.empty_like(p)
    drop_step_if(optimizer, torch.zeros((), dtype=torch.bool, device="meta"))
    optimizer.step()
    assert sum("exp_avg.codes" in state for state in optimizer.state.values()) == 2


@pytest.mark.parametrize("name", NAMES)
def test_state_comes_back_in_any_memory_layout(name: str, tmp_path: Path):
    """Through a file, into a network in channels_last: codes are row by row, so the next step is the same."""
    network = large_and_small()
    optimizer = build(name, network)
    for seed in range(2):
        step(network, optimizer, seed)
    save_file(optimizer_tensors(optimizer, network), tmp_path / "optimizer.safetensors")
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert not other[0].weight.is_contiguous()
    restored = build(name, other)
    restore_optimizer(restored, other, load_file(tmp_path / "optimizer.safetensors"))
    for net, opt in ((network, optimizer), (other, restored)):
        step(net, opt, 2)
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert {key: value.dtype for key, value in optimizer.state[p].items()} == {
            key: value.dtype for key, value in restored.state[q].items()
        }


@pytest.mark.parametrize(
    ("name", "bits"), [("adamw_bf16", 16 + 1 / 8), ("adamw_fp8", 8.125), ("adamw_8bit", 8.125), ("adamw_4bit", 4.25)]
)
def test_the_state_takes_what_is_said(name: str, bits: float):
    """Bits of a moment of a large tensor: the codes, and 32 for each block. The line says the bytes that are there."""
    network = large_and_small()
    optimizer = build(name, network)
    step(network, optimizer, 0)
    tensors = {key: value for key, value in optimizer_tensors(optimizer, network).items() if key[:4] != "step"}
    large, small = 64 * 16 * 9 + 128 * 64, 64 + 128 + 129 * 65
    num_bytes = sum(value.nbytes for value in tensors.values())
    assert num_bytes == 2 * large * bits / 8 + 2 * 4 * small
    said = f"the moments take {num_bytes / 1e6:.1f} MB instead of {8 * (large + small) / 1e6:.1f} MB"
    assert optimizer.describe().endswith(said)


def test_share_of_fastvit_t8():
    """94.2 % of the parameters of the network with ten classes are in tensors of at least 4096 in whole blocks."""
    optimizer = build("adamw_8bit", create_model("fastvit_t8", num_classes=10))
    said = "94.2 % of the parameters have moments of 8 bits; the moments take 7.8 MB instead of 26.1 MB"
    assert optimizer.describe() == f"adamw_8bit: {said}"
