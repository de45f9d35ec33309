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

from tests.deploy.test_native import VITS, vit
from tests.support.native_folders import artifact, input_of, write_noise
from tests.support.native_programs import CHOICES, NOT_BUILT, sycl_environment
from tests.support.small_vits import CLASSES, NETWORKS, expected_logits, exported, seen, write_photos
from vitcli.commands.export import ExportPlan, export
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.classify import Classifier
from vitcli.models.registry import create_model
from vitcli.recipe.load import load_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="cmake and a C++ compiler needed"),
]


@pytest.fixture
def programs(build: Callable[..., Path]) -> Callable[[str], Path]:
    """runtime -> the folder with its programs; skipped where its compiler is missing."""

    def programs(runtime: str) -> Path:
        if NOT_BUILT[runtime]:
            pytest.skip(NOT_BUILT[runtime])
        return build(runtime, *CHOICES[runtime])

    return programs


@pytest.fixture(params=["sycl", pytest.param("cuda", marks=pytest.mark.gpu)])
def run(request: pytest.FixtureRequest, programs: Callable[[str], Path], shared_folder: Path) -> Callable[..., Any]:
    """Runs a program of the runtime, by its name and words of its command line."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    folder = programs(request.param)
    changes = sycl_environment(shared_folder / "sycl_cache") if request.param == "sycl" else {}

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
    folder = exported(name, tmp_path, input="normalized")
    for photo in photos:
        expected = expected_logits(name, seen(folder, photo))
        done = run("logits", folder, photo)
        assert done.returncode == 0, done.stderr
        assert expected.std() > 0.3
        np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, atol=1e-4)


@pytest.mark.parametrize("options", VITS[8:14], ids=str)
def test_options_of_a_vit(options: dict[str, Any], run: Callable[..., Any], tmp_path: Path):
    model = vit(**options)
    made, photo = artifact(model, tmp_path / "made", "fp32"), write_noise(tmp_path / "photo.png")
    done = run("logits", made, photo)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model.double()(input_of(model, photo)).numpy()[0]
    assert expected.std() > 0.02
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-3), ("int8_dynamic", 5e-3)])
def test_probabilities_are_those_of_the_reference(
    precision: str, tolerance: float, run: Callable[..., Any], photos: list[Path], tmp_path: Path
):
    """In lower precisions sums in another order move a number across the border between two roundings."""
    folder = exported("token", tmp_path, precision=precision)
    classify = Classifier(open_artifact(folder), threads=1)
    for photo in photos:
        expected = classify(seen(folder, photo))[0]
        done = run("logits", folder, photo)
        np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, atol=tolerance)
        shown = run("classify", folder, photo, "--top", "1").stdout.decode().split(maxsplit=1)
        assert shown[1].strip() == classify.class_names[expected.argmax()]


def test_what_is_refused(run: Callable[..., Any], photos: list[Path], tmp_path: Path):
    folder = exported("token", tmp_path)
    weights = folder / "model.safetensors"
    for words, problem in ((("--threads", "2"), b"--threads has no effect"), (("--device", "fpga"), b"no device fpga")):
        done = run("classify", folder, photos[0], *words)
        assert (done.returncode, problem in done.stderr) == (2, True), done.stderr
    weights.write_bytes(weights.read_bytes()[:-1])
    done = run("classify", folder, photos[0])
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
