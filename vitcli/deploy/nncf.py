"""Static int8 by NNCF for ONNX and OpenVINO graphs: ranges from real images, weights per channel."""

from typing import Any

from vitcli.deploy.quiet import no_telemetry, quiet


def quantized(model: Any, batches: list[Any], kept_nodes: list[str]) -> Any:
    """`model` with int8 layers, except the nodes named `kept_nodes`; `batches` are inputs of the model."""
    no_telemetry()
    with quiet():
        import nncf

        nncf.set_log_level(40)  # errors
        has_attention = any(word in str(type_) for type_ in _kinds(model) for word in ("Softmax", "ScaledDot"))
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
