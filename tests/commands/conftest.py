"""An artifact so simple that its answers can be computed by hand: it looks at the mean color of an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitcli.deploy.artifact import NewArtifact

SIZE = 8
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
#: weights (num_classes, 3) and biases of the logits as a function of the mean of the normalized pixels
WEIGHT = np.array([[1.0, -0.5, 0.2], [-0.4, 0.9, 0.1], [0.3, -0.2, 0.8], [0.0, 0.1, -0.6]], dtype=np.float32)
BIAS = np.array([0.1, -0.2, 0.3, 0.0], dtype=np.float32)
NAMES = ["red, or so", '"green"', "=blue", "-1"]


def expected(image: Image.Image, channels: int = 3) -> np.ndarray:
    """(num_classes,) probabilities of an image that is SIZE x SIZE already, in float64 from the definition."""
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"), dtype=np.float64).reshape(-1, channels) / 255
    seen = ((pixels - np.array(MEAN[:channels])) / np.array(STD[:channels])).mean(0)
    powers = np.exp(WEIGHT[:, :channels].astype(np.float64) @ seen + BIAS)
    return powers / powers.sum()


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[..., Path]:
    """Make the artifact `name` and return its folder."""

    def make(
        name: str = "exported",
        *,
        format: str = "onnx",
        pixels: bool = True,
        batch: int | None = None,
        channels: int = 3,
        names: list[str] = NAMES,
        recipe: str | None = None,
    ) -> Path:
        graph = _graph(pixels=pixels, batch=batch, channels=channels)
        file = {"onnx": "model.onnx", "openvino": "model.xml"}[format]
        facts: dict[str, Any] = {
            "model": "averages",
            "format": format,
            "precision": "fp32",
            "device": "cpu",
            "file": file,
            "input": {
                "dtype": "uint8" if pixels else "float32",
                "layout": "NHWC" if pixels else "NCHW",
                "batch": batch,
            },
            "output": "probabilities" if pixels else "logits",
            "activation": "softmax",
            "thresholds": None,
            "preprocessing": {
                "image_resize": SIZE,
                "crop_pct": 1.0,
                "crop_mode": "center",
                "interpolation": "bicubic",
                "pixel_range": "auto",
                "mean": MEAN[:channels],
                "std": STD[:channels],
                "in_channels": channels,
            },
        }
        with NewArtifact(tmp_path / name) as new:
            if format == "onnx":
                (new.folder / file).write_bytes(graph)
            else:
                from vitcli.deploy.formats.openvino import import_openvino

                ov = import_openvino()
                ov.save_model(ov.Core().read_model(graph), new.folder / file, compress_to_fp16=False)
            new.write(facts, names, recipe)
            return new.finish(facts, "").folder

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Seven noisy images of different colors, SIZE x SIZE, in one folder."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = []
    for number in range(7):
        color = generator.integers(0, 200, 3)
        pixels = (color + generator.integers(0, 56, (SIZE, SIZE, 3))).astype(np.uint8)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def _graph(*, pixels: bool, batch: int | None, channels: int) -> bytes:
    """The network as ONNX, put together by hand: normalization, mean over the image, one linear layer, softmax."""
    from onnx import TensorProto, helper, numpy_helper

    count = batch or "batch"
    shape = [count, SIZE, SIZE, channels] if pixels else [count, channels, SIZE, SIZE]
    mean, std = (255 * np.array(values[:channels], dtype=np.float32) for values in (MEAN, STD))
    node = helper.make_node
    normalized = [node("Cast", ["images"], ["x"], to=TensorProto.FLOAT), node("Sub", ["x", "mean"], ["y"]),
                  node("Div", ["y", "std"], ["z"]), node("Transpose", ["z"], ["nchw"], perm=[0, 3, 1, 2])]  # fmt: skip
    nodes = [
        *(normalized if pixels else [node("Identity", ["images"], ["nchw"])]),
        node("ReduceMean", ["nchw", "axes"], ["mean_color"], keepdims=0),
        node("Gemm", ["mean_color", "weight", "bias"], ["logits"], transB=1),
        node("Softmax" if pixels else "Identity", ["logits"], ["scores"]),
    ]
    values = {
        "mean": mean, "std": std, "axes": np.array([2, 3]), "weight": WEIGHT[:, :channels], "bias": BIAS
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "color",
        [helper.make_tensor_value_info("images", TensorProto.UINT8 if pixels else TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [count, len(BIAS)])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
