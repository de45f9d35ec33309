"""OpenVINO IR: the fastest format on Intel and AMD CPUs, and the one for Intel GPUs.

bf16 and fp16 are hints: the file holds half-precision weights, and the device computes in that type if it supports it
(bf16: CPUs with AVX512_BF16 or AMX; fp16: GPUs), else in float32.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vitcli.deploy.formats import Order, Session, Setting
from vitcli.deploy.formats.onnx import kept_nodes, quantized, to_onnx
from vitcli.deploy.quiet import no_telemetry

FILE = "model.xml"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
CASTS = ()
BATCH = None
EXTRA = "openvino"
DEVICES = ("cpu",)
HOLDS_CODE = False
IS_REFERENCE = False
NEEDS = {"export": ("openvino", "onnx", "onnxscript"), "run": ("openvino",), "quantize": ("nncf",)}
#: data type in which layers compute; in an int8 artifact, those that stay in float
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "bf16"}
#: OpenVINO's name of the capability to compute in that type
_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
#: number of compiled networks that are kept
_MAX_SHAPES = 4


def export(order: Order) -> None:
    """Export through ONNX, whose nodes keep the names of the modules they come from."""
    graph = to_onnx(order)
    ov = import_openvino()
    model = ov.Core().read_model(graph.SerializeToString())
    if order.precision == "int8":
        kept = set(kept_nodes(graph, order))  # a node may become several: NODE and NODE/WithoutBiases
        names = [name for op in model.get_ops() if (name := op.get_friendly_name()).split("/")[0] in kept]
        model = quantized(model, [batch.numpy() for batch in order.calibration], names)
    ov.save_model(model, order.folder / FILE, compress_to_fp16=order.precision in ("bf16", "fp16"))


def import_openvino() -> Any:
    """The package without its telemetry, which reports each import to a server."""
    no_telemetry()
    import openvino

    return openvino


def open_session(path: Path, setting: Setting) -> Session:
    """Compiles the network for each batch size: fixed shapes are fastest, and int8 networks with a variable batch size
    return wrong numbers for a single image (OpenVINO 2026.4.1)."""
    ov = import_openvino()
    core = ov.Core()
    device = "CPU" if setting.device == "cpu" else setting.device.upper()
    hint = _HINTS[setting.precision]
    if _CAPABILITIES[hint] not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        hint = "f32"
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if setting.threads and device == "CPU":
        options["INFERENCE_NUM_THREADS"] = setting.threads

    @lru_cache(maxsize=_MAX_SHAPES)
    def request_for(shape: tuple[int, ...]) -> Any:
        model = core.read_model(path)
        model.reshape({model.inputs[0]: list(shape)})
        return core.compile_model(model, device, options).create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        request = request_for(images.shape)
        request.infer([np.ascontiguousarray(images)], share_inputs=True)
        return np.array(request.output_tensors[0].data)

    return run
