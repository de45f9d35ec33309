"""What the PyTorch formats share: the exported graph, quantized by torchao if wanted, and how it is run.

int8: static, by PT2E for the runtime that will run it; ranges are measured on real images. int8_dynamic: the weights
of linear layers, and their inputs at run time. int8_weight: the weights of linear layers only.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitcli.deploy.formats import Order, Session, Setting

if TYPE_CHECKING:
    import torch

Runtime = Literal["inductor", "xnnpack"]


def exported_program(order: Order, runtime: Runtime) -> "torch.export.ExportedProgram":
    """The network of `order` as torch.export returns it, in the precision of the order."""
    import torch

    shapes = order.dynamic_shapes
    if order.precision in ("int8_dynamic", "int8_weight"):
        _quantize_linears(order)
    program = torch.export.export(order.network, (order.example,), dynamic_shapes=shapes, strict=False)
    if order.precision != "int8":
        return program
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(program.module(), _quantizer(order, runtime))
    for inputs in order.calibration:
        prepared(inputs)
    return torch.export.export(convert_pt2e(prepared), (order.example,), dynamic_shapes=shapes, strict=False)


def session_of(model: Any, setting: Setting) -> Session:
    """`model`, which takes and returns tensors, as a session; the threads are PyTorch's, for the whole process."""
    import torch

    if setting.threads:
        torch.set_num_threads(setting.threads)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output = model(torch.from_numpy(np.ascontiguousarray(images)).to(setting.device))
        return (output[0] if isinstance(output, list | tuple) else output).cpu().numpy()

    return run


def _quantizer(order: Order, runtime: Runtime) -> Any:
    if runtime == "xnnpack":
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack

        quantizer: Any = xnnpack.XNNPACKQuantizer()
        quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
        quantizer.set_filter_function(lambda node: _module_of(node) not in order.keep_float)
    else:
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        for name in order.keep_float:
            quantizer.set_module_name_qconfig(name, None)
    return quantizer


def _module_of(node: Any) -> str:
    """Name of the innermost module that a node of the graph comes from."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    return modules[-1][0].removeprefix("L['self'].") if modules else ""


def _quantize_linears(order: Order) -> None:
    import torch.nn
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
    from torchao.utils import unwrap_tensor_subclass

    config = {"int8_dynamic": Int8DynamicActivationInt8WeightConfig, "int8_weight": Int8WeightOnlyConfig}
    quantize_(
        order.network,
        config[order.precision](),
        filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and name not in order.keep_float,
    )
    unwrap_tensor_subclass(order.network)
