"""torch.export: a graph of ATen operators in a file, for other tools of PyTorch to compile or to take apart.

PyTorch may unpickle parts of such a file when it loads it, so that it counts as code.
"""

from pathlib import Path

import numpy as np

from vitcli.deploy.formats import Order, Session, Setting, plain

FILE = "model.pt2"
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int8_dynamic", "int8_weight")
CASTS = ("bf16", "fp16")
BATCH = None
EXTRA = "quantize"
DEVICES = ("cpu", "cuda")
HOLDS_CODE = True
TO_QUANTIZE = ("torchao",)
TO_EXPORT = ("torch",)
TO_RUN = ("torch",)


def export(order: Order) -> None:
    import torch

    from vitcli.deploy.pt2e import exported_program
    from vitcli.deploy.quiet import quiet

    with quiet(), torch.no_grad():
        torch.export.save(exported_program(order, "inductor"), order.folder / FILE)


def open_session(path: Path, setting: Setting) -> Session:
    """Runs the operators one by one; threads are those of PyTorch: set for the whole process."""
    import torch

    from vitcli.deploy.pt2e import register_quantized_operators
    from vitcli.deploy.quiet import quiet

    if setting.threads:
        torch.set_num_threads(setting.threads)
    if setting.precision.startswith("int8"):
        register_quantized_operators()
    with quiet():
        model = torch.export.load(path).module().to(setting.device)

    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = model(torch.from_numpy(plain(images)).to(setting.device))
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [output.cpu().numpy() for output in outputs]

    return run
