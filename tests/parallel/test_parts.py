"""Compilation by parts: equal blocks once, within a limit of time; nothing else of a run changes."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from vitcli.models.fastvit import FastViT
from vitcli.models.registry import create_model
from vitcli.parallel import parts
from vitcli.parallel.parts import Compiler, compile_each, parts_of

Make = Callable[..., nn.Module]
#: before the tests replace it
INDUCTOR = parts.inductor

#: torch's tracer hides this warning, which does not help where warnings are errors
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In place of torch's inductor, which takes seconds for a graph: run the graph as it was traced."""
    monkeypatch.setattr(parts, "inductor", lambda graph, inputs: graph.forward)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def fastvit(**options: object) -> nn.Module:
    torch.manual_seed(0)
    given = {"depths": (2, 2), "dim": 8, "mlp_ratio": 2, "attention": False, "num_classes": 5} | options
    return FastViT(**given).train()  # pyright: ignore[reportArgumentType]


def vit(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model("vit_ti_patch16", num_classes=5, img_size=32, embed_dim=12, depth=4, **options).train()


def loss_and_gradients(network: nn.Module) -> list[Tensor]:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = network(images).square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, [*network.parameters()])]


@pytest.mark.parametrize(
    ("make_network", "num_parts", "num_graphs"),
    [(fastvit, 4 + 4, 2 + 1 + 4), (vit, 4 + 1, 2 + 1 + 1)],
    ids=["fastvit", "vit"],
)
def test_equal_blocks_are_compiled_once(make_network: Make, num_parts: int, num_graphs: int):
    """Each has another rate of dropped paths. The first has none, so it is another kind of block.

    So is the last one of a ViT, which has a single query. Besides blocks: FastViT's stem, one part that halves the map,
    the last convolution, the head; ViT's patches.
    """
    network, compiler = make_network(drop_path_rate=0.3), Compiler(60)
    names = network.state_dict().keys()
    compile_each(parts_of(network), compiler)
    for _ in range(2):
        loss_and_gradients(network)
    assert len(parts_of(network)) == num_parts
    assert (compiler.num_compiled, compiler.num_left) == (num_graphs, 0)
    assert network.state_dict().keys() == names


@pytest.mark.parametrize(("make_network", "seconds"), [(fastvit, 60.0), (vit, 0.0)], ids=["fastvit", "vit"])
def test_parts_compute_the_same(make_network: Make, seconds: float):
    """Compiled, and left as they are because there was no time."""
    network, compiler = make_network(), Compiler(seconds)
    expected = loss_and_gradients(network)
    compile_each(parts_of(network), compiler)
    for found, value in zip(loss_and_gradients(network), expected, strict=True):
        assert torch.allclose(found, value, rtol=1e-5, atol=1e-7)
    assert (compiler.num_compiled == 0) == (seconds == 0)
    assert (compiler.num_left == 0) == (seconds > 0)
    assert ("0 s were over" in compiler.describe()) == (seconds == 0)


@pytest.mark.parametrize(("device", "options"), [("cpu", {"layout_optimization": False}), ("meta", {})])
def test_maps_keep_their_layout_on_a_cpu(monkeypatch: pytest.MonkeyPatch, device: str, options: dict[str, bool]):
    """PyTorch crashes in the backward pass of FastViT in channels_last. Scalars on the host do not make it one."""
    used: list[object] = []
    backend = lambda graph, inputs, config_patches: used.append(config_patches)  # noqa: E731
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: backend)
    INDUCTOR(torch.fx.symbolic_trace(nn.Identity()), [torch.ones(()), torch.ones(2, device=device)])
    assert used == [options]
