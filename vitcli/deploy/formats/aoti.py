"""AOTInductor: native code from PyTorch's compiler, which C++ loads without Python. For the same kind of machine only.

The `.pt2` holds code for the CPU or GPU on which it was exported. It is loaded only if the manifest matches.
"""

import os
import shutil
from pathlib import Path

from vitcli.deploy.formats import Order, Session, Setting
from vitcli.deploy.pt2e import exported_program, session_of
from vitcli.deploy.quiet import quiet
from vitcli.errors import UsageError

FILE = "model.pt2"
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int8_dynamic", "int8_weight")
CASTS = ("bf16", "fp16")
BATCH = None
EXTRA = "quantize"
DEVICES = ("cpu", "cuda")
HOLDS_CODE = True
IS_REFERENCE = False
#: The compiler writes each kernel once. Its search for the fastest version, which environment variables can switch on,
#: times dozens of versions of each convolution and matrix product, and has no limit of time.
OPTIONS = {
    "freezing": True,  # weights are constants, in the layout that the kernels prefer
    "max_autotune": False,
    "max_autotune_gemm": False,
    "max_autotune_pointwise": False,
    "coordinate_descent_tuning": False,
    "triton.autotune_pointwise": False,  # on GPUs: one size of block instead of several
}
NEEDS = {"export": ("torch",), "run": ("torch",), "quantize": ("torchao",)}


def export(order: Order) -> None:
    import torch

    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        raise UsageError("the format aoti needs a C++ compiler, and none was found", help="apt install g++")
    with quiet(), torch.no_grad():
        torch._inductor.aoti_compile_and_package(
            exported_program(order, "inductor"),
            package_path=str(order.folder / FILE),
            inductor_configs=OPTIONS,
        )


def open_session(path: Path, setting: Setting) -> Session:
    import torch

    with quiet():
        return session_of(torch._inductor.aoti_load_package(str(path)), setting)
