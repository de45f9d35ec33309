"""Each format computes, in its own runtime, what the network computes in training form and float64."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.deploy.conftest import MEAN, SIZE, STD, stir
from tests.support.commands import ROOT
from vitcli.deploy.formats import Order, Setting, aoti, formats, need, open_format, use
from vitcli.deploy.formats.web import RUNTIME
from vitcli.errors import UsageError
from vitcli.models.registry import create_model

Run = Callable[..., np.ndarray]
Exported = Callable[..., Path]


def test_the_folder_is_the_list():
    assert formats() == ["aoti", "executorch", "native", "onnx", "openvino", "torch_export", "web"]


def test_the_compiler_does_not_search_for_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even if environment variables ask it to: that search has no limit of time."""
    used: list[dict[str, Any]] = []
    monkeypatch.setattr(aoti, "exported_program", lambda order, runtime: None)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda _, **how: used.append(how))
    aoti.export(Order(nn.Identity(), torch.zeros(1), tmp_path, "fp32", "logits"))
    config = torch._inductor.config
    searches = ("max_autotune", "max_autotune_gemm", "max_autotune_pointwise", "coordinate_descent_tuning")
    with config.patch(dict.fromkeys(searches, True)), config.patch(used[0]["inductor_configs"]):
        assert not any(getattr(config, name) for name in searches)
        assert not config.triton.autotune_pointwise


@pytest.mark.slow
@pytest.mark.parametrize("name", ["native", "onnx", "openvino", "executorch", "torch_export", "aoti"])
def test_float32_is_the_same_function(name: str, run_exported: Run, expected: np.ndarray):
    np.testing.assert_allclose(run_exported(name, "fp32"), expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "tolerance"),
    [("onnx:fp16", 0.003), ("openvino:bf16", 0.02), ("torch_export:bf16", 0.02), ("torch_export:int8_weight", 0.01),
     ("torch_export:int8_dynamic", 0.02), ("onnx:int8", 0.08), ("openvino:int8", 0.08), ("torch_export:int8", 0.08)],
)  # fmt: skip
def test_lower_precision_is_nearly_the_same(job: str, tolerance: float, run_exported: Run, expected: np.ndarray):
    found = run_exported(*job.split(":"))
    assert 1e-7 < np.abs(found - expected).max() < tolerance


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["onnx", "openvino", pytest.param("executorch", marks=pytest.mark.soak), "torch_export"]
)
def test_a_layer_that_is_kept_stays_float_in_the_file(name: str, exported: Exported):
    kept, weights = "model.stages.3.blocks.0.mlp.fc1", 128 * 256

    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.iterdir())

    def float_convolutions(folder: Path) -> int:
        nodes = torch.export.load(folder / "model.pt2").graph.nodes
        return sum("conv2d" in str(node.target) and "dequantize" not in node.args[1].name for node in nodes)

    measure = float_convolutions if name == "torch_export" else size  # its weights are packed at compile time
    more = measure(exported(name, "int8", keep_float=(kept,))) - measure(exported(name, "int8"))
    expected = 1 if name == "torch_export" else 3 * weights
    assert more == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"global_pool": "avg", "layer_scale_init": 0.3, "reg_tokens": 2}])
def test_vit(options: dict, run_exported: Run, pixels: np.ndarray):
    torch.manual_seed(0)
    shape = {"img_size": SIZE, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    model: Any = stir(create_model("vit_b_patch16", **shape, **options))
    torch.nn.init.normal_(model.head.weight, std=0.3)
    images = torch.from_numpy((pixels / 255 - np.array(MEAN)) / np.array(STD)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = model(images).softmax(-1).numpy()
    np.testing.assert_allclose(run_exported("onnx", "fp32", model), expected, atol=2e-5)


def test_any_batch_size_runs(exported: Exported, pixels: np.ndarray, expected: np.ndarray):
    session = open_format("openvino").open_session(
        exported("openvino", "fp32") / "model.xml", Setting("fp32", threads=1)
    )
    for count in (1, 2, 3, 4, 5, 6, 1):  # more sizes than compiled networks are kept
        np.testing.assert_allclose(session(pixels[:count]), expected[:count], atol=2e-6)


def test_unknown_formats_and_missing_packages_are_named():
    with pytest.raises(UsageError) as wrong:
        open_format("onxx")
    assert "did you mean onnx?" in str(wrong.value)
    with pytest.raises(UsageError) as missing:
        need(("numpy", "no_such_runtime"), extra="onnx", why="the format onnx")
    assert "needs no_such_runtime" in str(missing.value)
    assert "pip install 'vitcli[onnx]'" in str(missing.value)


def test_a_page_is_used_in_another_way(tmp_path: Path):
    commands = use(open_format("web"), tmp_path)
    assert "npm install onnxruntime-web" in commands[0]
    for name in RUNTIME:
        (tmp_path / name).touch()
    assert use(open_format("web"), tmp_path) == commands[1:]
    assert use(open_format("onnx"), tmp_path) == commands[2:]


def test_a_native_folder_is_used_by_a_program_in_cpp(tmp_path: Path):
    build, run = use(open_format("native"), tmp_path)[:2]
    readme = (ROOT / "deploy/cpp/README.md").read_text()
    for command in build.split("    #")[0].split(" && "):
        assert command in readme
    assert run == "build/classify THIS_FOLDER photo.jpg"


def test_formats_load_without_torch_or_runtimes():
    names = ", ".join(f"vitcli.deploy.formats.{name}" for name in formats())
    code = f"import sys; import {names}; print([m for m in ('torch', 'onnx', 'openvino', 'nncf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_openvino_is_imported_without_its_telemetry():
    code = (
        "import sys; from vitcli.deploy.formats.openvino import import_openvino; import_openvino();"
        "print(sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
