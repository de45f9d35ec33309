"""The native format: tensors and a description in lines of key=value, for the programs in deploy/ without a framework.

Python runs it by its reference implementation in PyTorch, which is not fast. docs/native.md describes the files.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitcli.deploy.formats import Order, Session, Setting
from vitcli.errors import UsageError

if TYPE_CHECKING:
    from vitcli.deploy.network import Deployed

FILE = "model.txt"
PRECISIONS = ("fp32", "bf16", "int8", "int8_dynamic")
CASTS = ()
BATCH = None
EXTRA = ""
DEVICES = ("cpu",)
HOLDS_CODE = False
IS_REFERENCE = True
NEEDS = {"export": ("torch",), "run": ("torch",), "quantize": ()}

#: how the program in C++ is built, in the sources of this project
BUILD = "cmake -S deploy/cpp -B build -DRUNTIME=native && cmake --build build"


def export(order: Order) -> None:
    """Write model.txt and model.safetensors; UsageError, which names it, for a part that the format does not have."""
    import torch

    from vitcli.deploy.native.fastvit import write_fastvit
    from vitcli.deploy.native.folder import write_network
    from vitcli.deploy.native.vit import write_vit
    from vitcli.deploy.native.writer import Writer
    from vitcli.deploy.network import Deployed
    from vitcli.models.fastvit import FastViT
    from vitcli.models.vision_transformer import VisionTransformer

    network = order.network
    assert isinstance(network, Deployed)
    writer = Writer(order.precision, [network.get_submodule(name) for name in order.keep_float])
    writer.values |= _ends(network, order)
    with torch.no_grad():
        if type(network.model) is VisionTransformer:
            write_vit(writer, network.model, temperature=network.temperature)
        elif type(network.model) is FastViT:
            write_fastvit(writer, network.model, temperature=network.temperature)
        else:
            what = f"the format native holds ViT and FastViT, not {type(network.model).__name__}"
            raise UsageError(what, help="export it with --to onnx, openvino or aoti")
    write_network(order.folder, writer.values, writer.tensors)


def use(folder: Path) -> list[str]:
    """Commands for the user of the exported `folder`, which they call THIS_FOLDER."""
    return [f"{BUILD}    # once, in the sources of vitcli", "build/classify THIS_FOLDER photo.jpg"]


def _ends(network: "Deployed", order: Order) -> dict[str, object]:
    """What comes before the architecture, and after it."""
    rows = 1 if network.takes_pixels else 2  # (B, H, W, C) or (B, C, H, W)
    height, width = order.example.shape[rows : rows + 2]
    values: dict[str, object] = {"precision": order.precision, "image_height": height, "image_width": width}
    values |= {"input": "pixels" if network.takes_pixels else "normalized", "activation": network.activation or "none"}
    if network.takes_pixels:
        channels = order.example.shape[-1]
        for name, each in (("pixel_scale", network.scale), ("pixel_shift", network.shift)):
            values[name] = ",".join(f"{number:.9g}" for number in each.flatten().expand(channels).tolist())
    return values


def open_session(path: Path, setting: Setting) -> Session:
    import torch

    from vitcli.deploy.native.folder import read_network
    from vitcli.deploy.native.reference import Reference

    if setting.device != "cpu":
        raise UsageError(f"native has no device {setting.device!r}", help="remove --device: it runs on the CPU")
    if setting.threads:
        torch.set_num_threads(setting.threads)
    network = Reference(read_network(path))

    def run(images: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return run
