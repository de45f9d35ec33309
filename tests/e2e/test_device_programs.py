"""The programs for SYCL and CUDA: built, and where there is a device, run over native folders against PyTorch."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.small_vits import CLASSES, NETWORKS, expected_logits, exported, seen, write_photos
from vitcli.commands.export import ExportPlan, export
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.classify import Classifier
from vitcli.models.registry import create_model
from vitcli.recipe.load import load_recipe

SYCL_DIR = Path(os.environ.get("VITCLI_SYCL_DIR", "/nowhere"))
NVCC = shutil.which("nvcc")
#: runtime -> why it cannot be built here, or an empty text
MISSING = {
    "sycl": "" if (SYCL_DIR / "include/sycl/sycl.hpp").is_file() else "VITCLI_SYCL_DIR names no SYCL",
    "cuda": "" if NVCC else "nvcc is not installed",
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="cmake and a C++ compiler needed"),
]


@pytest.fixture
def programs(build: Callable[..., Path]) -> Callable[[str], Path]:
    """runtime -> the folder with its programs; skipped where its compiler is missing."""

    def programs(runtime: str) -> Path:
        if MISSING[runtime]:
            pytest.skip(MISSING[runtime])
        return build(runtime, f"-DSYCL_DIR={SYCL_DIR}", "-DCUDA_ARCHITECTURES=90")

    return programs


@pytest.fixture(params=["sycl", pytest.param("cuda", marks=pytest.mark.gpu)])
def run(request: pytest.FixtureRequest, programs: Callable[[str], Path], tmp_path_factory) -> Callable[..., Any]:
    """Runs a program of the runtime, by its name and words of its command line."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    folder = programs(request.param)
    changes = {}
    if request.param == "sycl":
        changes = {
            "OCL_ICD_FILENAMES": str(SYCL_DIR / "lib/libintelocl.so"), "LD_LIBRARY_PATH": str(SYCL_DIR / "lib"),
            "SYCL_CACHE_PERSISTENT": "1", "SYCL_CACHE_DIR": str(tmp_path_factory.getbasetemp() / "sycl_cache"),
        }  # fmt: skip

    def run(program: str, *words: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [folder / program, *words], capture_output=True, timeout=200, check=False, env=os.environ | changes
        )

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_pytorch(name: str, run: Callable[..., Any], photos: list[Path], tmp_path: Path):
    artifact = exported(name, tmp_path, input="normalized")
    for photo in photos:
        expected = expected_logits(name, seen(artifact, photo))
        done = run("logits", artifact, photo)
        assert done.returncode == 0, done.stderr
        assert expected.std() > 0.3
        np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-3), ("int8_dynamic", 5e-3)])
def test_probabilities_are_those_of_the_reference(
    precision: str, tolerance: float, run: Callable[..., Any], photos: list[Path], tmp_path: Path
):
    """In lower precisions sums in another order move a number across the border between two roundings."""
    artifact = exported("token", tmp_path, precision=precision)
    classify = Classifier(open_artifact(artifact), threads=1)
    for photo in photos:
        expected = classify(seen(artifact, photo))[0]
        done = run("logits", artifact, photo)
        np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, atol=tolerance)
        shown = run("classify", artifact, photo, "--top", "1").stdout.decode().split(maxsplit=1)
        assert shown[1].strip() == classify.class_names[expected.argmax()]


def test_what_is_refused(run: Callable[..., Any], photos: list[Path], tmp_path: Path):
    artifact = exported("token", tmp_path)
    weights = artifact / "model.safetensors"
    for words, problem in ((("--threads", "2"), b"--threads has no effect"), (("--device", "fpga"), b"no device fpga")):
        done = run("classify", artifact, photos[0], *words)
        assert (done.returncode, problem in done.stderr) == (2, True), done.stderr
    weights.write_bytes(weights.read_bytes()[:-1])
    done = run("classify", artifact, photos[0])
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"was changed" in done.stderr


def test_other_architectures_are_refused_by_name(run: Callable[..., Any], photos: list[Path], tmp_path: Path):
    save_file(create_model("fastvit_t8", num_classes=CLASSES).state_dict(), tmp_path / "fast.safetensors")
    recipe = load_recipe(model="fastvit_t8", num_classes=CLASSES, image_resize=32)
    export(tmp_path / "fast.safetensors", tmp_path / "out", ExportPlan("native"), recipe=recipe)
    done = run("classify", tmp_path / "out", photos[0])
    assert done.returncode == 2
    assert b"this program runs ViTs, and the network is a fastvit" in done.stderr


@pytest.mark.timeout(900)
def test_cuda_is_built(programs: Callable[[str], Path], photos: list[Path], tmp_path: Path):
    """It starts, and where there is no GPU it says so."""
    program = programs("cuda") / "classify"
    done = subprocess.run([program, exported("token", tmp_path), photos[0]], capture_output=True, check=False)
    if not torch.cuda.is_available():
        assert done.returncode == 2
        assert done.stderr.startswith(b"error: CUDA: ")
