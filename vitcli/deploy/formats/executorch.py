"""ExecuTorch `.pte` for phones and small devices, with the XNNPACK delegate; batch size 1."""

from pathlib import Path

import numpy as np

from vitcli.deploy.formats import Order, Session, Setting
from vitcli.deploy.pt2e import exported_program
from vitcli.deploy.quiet import quiet
from vitcli.errors import UsageError

FILE = "model.pte"
PRECISIONS = ("fp32", "int8")
CASTS = ()
BATCH = 1
EXTRA = "executorch"
DEVICES = ("cpu",)
HOLDS_CODE = False
IS_REFERENCE = False
NEEDS = {"export": ("executorch", "torchao"), "run": ("executorch", "torch"), "quantize": ("torchao",)}


def export(order: Order) -> None:
    import torch

    with quiet(native=True), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = exported_program(order, "xnnpack")
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        (order.folder / FILE).write_bytes(lowered.buffer)


def open_session(path: Path, setting: Setting) -> Session:
    """The threads are those of XNNPACK's own pool."""
    import torch

    if setting.device != "cpu":
        raise UsageError(f"executorch has no device {setting.device!r}", help="remove --device: it runs on the CPU")
    with quiet(native=True):
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None

    def run(images: np.ndarray) -> np.ndarray:
        return method.execute([torch.from_numpy(np.ascontiguousarray(images))])[0].numpy()

    return run
