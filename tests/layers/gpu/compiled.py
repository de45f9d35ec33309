"""Compiles recorded launches of Triton kernels for a GPU that is not here."""

import re
import subprocess
from pathlib import Path
from typing import Any

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vitcli.layers.gpu import use_gpu_kernels
from vitcli.layers.gpu.launcher import Launch, recording
from vitcli.models.registry import create_model

OPTIONS = ("num_warps", "num_stages")
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}


def launches_of_a_step(name: str, dtype: torch.dtype, *, batch: int = 256, px: int = 256) -> list[Launch]:
    """What a training step of the model would start; maps hold no data."""
    model = use_gpu_kernels(create_model(name, num_classes=10, img_size=px)).train()
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True), recording() as launches, autocast:
        x = torch.empty(batch, 3, px, px).contiguous(memory_format=torch.channels_last)
        torch.autograd.grad(model(x).sum(), list(model.parameters()))
    return launches


def key(launch: Launch) -> str:
    """What Triton compiles for: two launches with the same key run the same code."""
    signature, constants, aligned = _described(launch)
    return f"{launch.kernel.__name__} {signature} {sorted(constants.items())} {aligned} {launch.constants}"


def resources(launch: Launch, capability: int, folder: Path) -> dict[str, int]:
    """Compile it: REG and STACK (bytes of spilled registers) of a thread, SHARED bytes of a program."""
    signature, constants, aligned = _described(launch)
    attributes = {place: [["tt.divisibility", 16]] for place in aligned}
    source = ASTSource(launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {name: value for name, value in launch.constants.items() if name in OPTIONS}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    file = folder / "kernel.cubin"
    file.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    listed = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED):(\d+)", listed)}


def _described(launch: Launch) -> tuple[dict[str, Any], dict[tuple[int, ...], Any], list[tuple[int, ...]]]:
    """Signature, constants by place, and places of what 16 divides, as Triton's own launcher finds them."""
    names = launch.kernel.arg_names
    unspecialized = launch.kernel.do_not_specialize
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    aligned: list[tuple[int, ...]] = []
    for place, (name, value) in enumerate(zip(names, launch.args)):
        if isinstance(value, tuple):
            signature[name] = tuple(TYPES[tensor.dtype] for tensor in value)
            aligned += [(place, number) for number in range(len(value))]
        elif isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            aligned.append((place,))
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, int) and value % 16 == 0 and name not in unspecialized:
                aligned.append((place,))
    for name, value in launch.constants.items():
        if name not in OPTIONS:
            signature[name] = "constexpr"
            constants[(names.index(name),)] = value
    return signature, constants, aligned
