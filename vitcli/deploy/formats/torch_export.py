"""torch.export: a graph of ATen operators, for other PyTorch tools to compile or inspect.

PyTorch may unpickle parts of such a file when it loads it, so it counts as code.
"""

from pathlib import Path

from vitcli.deploy.formats import Order, Session, Setting, need
from vitcli.deploy.pt2e import exported_program, session_of
from vitcli.deploy.quiet import quiet

FILE = "model.pt2"
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int8_dynamic", "int8_weight")
CASTS = ("bf16", "fp16")
BATCH = None
EXTRA = "quantize"
DEVICES = ("cpu", "cuda")
HOLDS_CODE = True
IS_REFERENCE = False
NEEDS = {"export": ("torch",), "run": ("torch",), "quantize": ("torchao",)}


def export(order: Order) -> None:
    import torch

    with quiet(), torch.no_grad():
        torch.export.save(exported_program(order, "inductor"), order.folder / FILE)


def open_session(path: Path, setting: Setting) -> Session:
    """Runs the operators one by one."""
    import torch

    if setting.precision.startswith("int8"):
        need(NEEDS["quantize"], extra=EXTRA, why="int8")
        import torchao.quantization.pt2e  # noqa: F401  defines the operators of quantized graphs
    with quiet():
        return session_of(torch.export.load(path).module().to(setting.device), setting)
