"""ONNX, run by ONNX Runtime: the format that most runtimes and vendors read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitcli.deploy.formats import Order, Session, Setting
from vitcli.deploy.quiet import no_telemetry, quiet
from vitcli.errors import UsageError

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"
PRECISIONS = ("fp32", "fp16", "int8")
CASTS = ("fp16",)
BATCH = None
EXTRA = "onnx"
DEVICES = ("cpu",)
HOLDS_CODE = False
IS_REFERENCE = False
NEEDS = {"export": ("onnx", "onnxscript", "onnxruntime"), "run": ("onnxruntime",), "quantize": ("nncf",)}
INPUT = "images"
LARGEST_BYTES = 2**31 - 2**20  # limit of a protocol buffer, less room for what is not weights
#: property in which the exporter records the modules that a node comes from, outermost first
_SCOPES = "pkg.torch.onnx.name_scopes"


def export(order: Order) -> None:
    """Write the network with PyTorch's exporter; int8 is quantized from the float graph."""
    path = order.folder / FILE
    graph = to_onnx(order)
    if order.precision == "int8":
        graph = quantized(graph, [{INPUT: batch.numpy()} for batch in order.calibration], kept_nodes(graph, order))
    path.write_bytes(graph.SerializeToString())


def to_onnx(order: Order) -> "onnx.ModelProto":
    """The network as an ONNX graph, checked by onnx itself."""
    import onnx
    import torch

    if sum(t.numel() * t.itemsize for t in order.network.state_dict().values()) >= LARGEST_BYTES:
        help = "use --to aoti, or a smaller network"
        raise UsageError("a network of 2 GB or more does not fit into one ONNX file", help=help)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            order.network,
            (order.example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[order.output],
            dynamic_shapes=order.dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    onnx.checker.check_model(graph, full_check=True)
    return graph


def kept_nodes(graph: "onnx.ModelProto", order: Order) -> list[str]:
    """Names of the nodes of the layers that stay in float."""
    return [node.name for node in graph.graph.node if module_of(node) in order.keep_float]


def module_of(node: Any) -> str:
    """Name of the innermost module that `node` comes from, as in `named_modules`."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            scopes = [word.strip(" '\"") for word in entry.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def quantized(model: Any, batches: list[Any], kept_nodes: list[str]) -> Any:
    """An ONNX or OpenVINO `model` with int8 layers, except the nodes `kept_nodes`; `batches` are inputs of it.

    NNCF takes the ranges from these batches, and scales the weights per channel.
    """
    no_telemetry()
    with quiet():
        import nncf

        nncf.set_log_level(40)  # errors
        has_attention = any(word in kind for kind in _kinds(model) for word in ("Softmax", "ScaledDot"))
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
            ignored_scope=nncf.IgnoredScope(names=kept_nodes) if kept_nodes else None,
        )


def _kinds(model: Any) -> set[str]:
    """Types of the model's nodes, without those at its end, where the softmax is not attention."""
    if hasattr(model, "get_ops"):
        return {op.get_type_name() for op in model.get_ordered_ops()[:-3]}
    return {node.op_type for node in model.graph.node[:-1]}


def open_session(path: Path, setting: Setting) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if setting.threads:
        options.intra_op_num_threads = setting.threads
    if setting.device not in ("cpu", "cuda"):
        raise UsageError(f"onnx has no device {setting.device!r}", help="give cpu or cuda")
    wanted = "CUDAExecutionProvider" if setting.device == "cuda" else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise UsageError(f"this ONNX Runtime has no {wanted}", help="install onnxruntime-gpu, or remove --device")
    session = onnxruntime.InferenceSession(str(path), options, providers=[wanted])
    if wanted not in session.get_providers():  # it falls back to the CPU with only a warning
        raise UsageError("ONNX Runtime cannot use the GPU of this machine", help="remove --device")

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {INPUT: np.ascontiguousarray(images)})[0]  # type: ignore[return-value]

    return run
