"""torch.compile, part by part (`compile: true`): blocks that are equal are compiled once, within a limit of time.

A network of N blocks is compiled in the time of its different ones, where the graph of all of it takes N times as long.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: graphs of one kind of block: of each stage, with and without gradients; torch's own 8 are too few for BYOL
MOST_GRAPHS = 64

Function = Callable[..., Any]


class Compiler:
    """torch's inductor, as long as there is time; parts that come later run as they are written.

    Args:
        seconds: for the forward and the backward passes together. The latter are compiled when they first run, in about
            the same time, so a forward pass counts twice.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spent = seconds, 0.0
        self.num_compiled = self.num_left = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Function:
        if self.spent >= self.seconds:
            self.num_left += 1
            return graph.forward
        start = time.perf_counter()
        compiled = inductor(graph, inputs)
        self.spent += 2 * (time.perf_counter() - start)
        self.num_compiled += 1
        return compiled

    def describe(self) -> str:
        """What became of the parts: "9 parts compiled"."""
        left = f", {self.num_left} left as they are: {self.seconds:.0f} s were over" if self.num_left else ""
        return f"{self.num_compiled} part{'s' * (self.num_compiled != 1)} compiled{left}"


def inductor(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Function:
    """PyTorch's compiler. On a CPU it must not change the layout of maps: FastViT's backward pass then crashes."""
    on_cpu = all(value.device.type == "cpu" for value in inputs if isinstance(value, Tensor))
    options = {"layout_optimization": False} if on_cpu else {}
    backend = torch._dynamo.lookup_backend("inductor")
    return backend(graph, inputs, config_patches=options)  # pyright: ignore[reportCallIssue]


def compile_each(parts: Sequence[nn.Module], compiler: Compiler) -> None:
    """Let each part be compiled when it first runs. Names of parameters and buffers stay as they are."""
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    for part in parts:
        part.compile(backend=compiler, dynamic=False)


def parts_of(module: nn.Module) -> list[nn.Module]:
    """The blocks of `module`, and whatever else in it has several layers: a stem, what halves the map, a head."""
    if not blocks_of(module):
        has_layers = any(True for _ in module.children()) and any(True for _ in module.parameters())
        return [module] if has_layers else []
    parts: list[nn.Module] = []
    for name, child in module.named_children():
        parts += child.children() if _holds_blocks(name, child) else parts_of(child)
    return parts


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """What repeats: the blocks of a transformer, or of each stage of a FastViT."""
    return [
        block
        for parent in module.modules()
        for name, child in parent.named_children()
        if _holds_blocks(name, child)
        for block in child.children()
    ]


def _holds_blocks(name: str, module: nn.Module) -> bool:
    return name == "blocks" and isinstance(module, nn.Sequential | nn.ModuleList)
