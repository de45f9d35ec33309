"""Counts the bytes that a training step reads and writes, with PyTorch's kernels and with vitcli's Triton kernels.

    python benchmarks/gpu_bytes.py [--model fastvit_t8] [--px 256] [--batch-size 256] [--dtype bfloat16]

No GPU is needed and nothing is computed: every operator and kernel of forward and backward counts its inputs and
outputs once, BatchNorm its maps twice (statistics, then values), and a convolution's backward its gradient twice (for
the map, for the weights). What stays in a cache between two kernels is not subtracted. The floor is 5 times the outputs
of all convolutions: each is written and read in the forward pass, and read again in the backward pass, where its
gradient is written and read.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitcli.layers.gpu import use_gpu_kernels
from vitcli.layers.gpu.launcher import recording
from vitcli.models.registry import create_model

#: operator -> positions of the arguments that it reads a second time
READ_TWICE = {"native_batch_norm": (0,), "native_batch_norm_backward": (0, 1), "convolution_backward": (0,)}
#: our kernels of the convolutions; the others are those of norms
CONVOLUTIONS = ("convolve", "backward_input", "backward_weight")
#: words in the names of operators -> row of the table
ROWS = {"batch_norm": "BatchNorm", "convolution": "convolutions", "gelu": "GELU"}


def main() -> None:
    options = parsed()
    dtype = getattr(torch, options.dtype)
    sizes = options.batch_size, 3, options.px, options.px
    model = create_model(options.model, num_classes=1000, img_size=options.px).train()
    native, floor = counted(model, sizes, dtype)
    ours, _ = counted(use_gpu_kernels(model), sizes, dtype)
    print(f"{options.model}, {options.px} px, {options.dtype}, MB per image")
    print(f"{'':<20}{'PyTorch':>10}{'Triton':>10}")
    for row in sorted({*native, *ours}, key=lambda row: -native[row]):
        print(f"{row:<20}{native[row] / sizes[0] / 1e6:>10.1f}{ours[row] / sizes[0] / 1e6:>10.1f}")
    print(f"{'total':<20}{native.total() / sizes[0] / 1e6:>10.1f}{ours.total() / sizes[0] / 1e6:>10.1f}")
    print(f"{'floor':<20}{floor / sizes[0] / 1e6:>10.1f}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fastvit_t8")
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    return parser.parse_args()


def counted(model: nn.Module, sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[Counter[str], int]:
    """Bytes of forward and backward by row of the table, and the floor."""
    outputs: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _, args, out: outputs.append(out.nbytes))
        for module in model.modules()
        if type(module) is nn.Conv2d
    ]
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), recording() as launches, autocast, Bytes() as bytes_of:
            images = torch.empty(sizes)
            torch.autograd.grad(model(images).float().sum(), list(model.parameters()))
    finally:
        for hook in hooks:
            hook.remove()
    for launch in launches:
        row = "convolutions" if launch.kernel.__name__ in CONVOLUTIONS else "BatchNorm"
        bytes_of.rows[row] += sum({id(t): t.nbytes for t in tensors_in(launch.args)}.values())
    return bytes_of.rows, 5 * sum(outputs)


class Bytes(TorchDispatchMode):
    """Adds up what operators read and write; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.namespace != "aten" or func.is_view or name.startswith(("empty", "detach", "_unsafe_view")):
            return out
        again = [args[place] for place in READ_TWICE.get(name, ())]
        total = sum(tensor.nbytes for tensor in tensors_in((args, kwargs, out, again)))
        self.rows[next((row for word, row in ROWS.items() if word in name), "sums, layer scale")] += total
        return out


def tensors_in(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


if __name__ == "__main__":
    main()
