"""The C++ program without a framework computes what PyTorch computes, with every kind of kernel."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.deploy.test_native import VITS, fastvit, vit
from tests.support.images import photo
from tests.support.native_folders import artifact, input_of, run, write_noise
from vitcli.deploy.formats import Setting, open_format

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="cmake and a C++ compiler needed"),
]

PRECISIONS = ("fp32", "bf16", "int8_dynamic")
#: largest difference of a logit: from PyTorch in float64; from the reference, where roundings may differ
EXACT, NEAR = 1e-4, 0.02
#: emulated has the shapes and encodings of AVX-512; "" chooses the fastest kernels of this processor
KERNELS = ("", "portable", "emulated")
FASTVITS: list[dict[str, Any]] = [{}, {"attention": False}, {"dim": 20, "in_chans": 1}, {"img_size": (33, 70)}]


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("photo") / "photo.png")


@pytest.fixture(scope="session")
def programs(build: Callable[[str], Path]) -> Path:
    return build("native")


def computed(program: Path, folder: Path, noise: Path, kernels: str, threads: int = 1) -> np.ndarray:
    done = run(program, folder, noise, "--threads", threads, kernels=kernels)
    assert (done.returncode, done.stderr) == (0, "")
    return np.array([float(line) for line in done.stdout.splitlines()])


def compare(model: nn.Module, programs: Path, noise: Path, folder: Path) -> None:
    images = input_of(model, noise)
    with torch.no_grad():
        exact = model.double()(images).numpy()[0]
    model.float()
    for precision in PRECISIONS:
        made = artifact(model, folder / precision, precision)
        session = open_format("native").open_session(made / "model.txt", Setting(precision, threads=1))
        reference = session(images.float().numpy())[0]
        for kernels in KERNELS:
            found = computed(programs / "logits", made, noise, kernels)
            assert np.abs(found - reference).max() < (EXACT if precision == "fp32" else NEAR), (precision, kernels)
            if precision == "fp32":
                assert np.abs(found - exact).max() < EXACT, kernels
    assert exact.std() > 0.02


@pytest.mark.parametrize("options", VITS, ids=str)
def test_vit(options: dict[str, Any], programs: Path, noise: Path, tmp_path: Path):
    compare(vit(**options), programs, noise, tmp_path)


@pytest.mark.parametrize("options", FASTVITS, ids=str)
def test_fastvit(options: dict[str, Any], programs: Path, noise: Path, tmp_path: Path):
    compare(fastvit(**{"img_size": 64} | options), programs, noise, tmp_path)


def test_threads_and_pixels(programs: Path, noise: Path, tmp_path: Path):
    """The same numbers with any number of threads; a network that takes pixels gives probabilities."""
    model = vit(img_size=96, patch_size=8, depth=3)
    made = artifact(model, tmp_path / "made", "fp32", takes_pixels=True)
    one, five = (computed(programs / "logits", made, noise, "", threads) for threads in (1, 5))
    np.testing.assert_array_equal(one, five)
    with torch.no_grad():
        exact = model.double()(input_of(model, noise)).softmax(-1).numpy()[0]
    assert np.abs(one - exact).max() < EXACT
    said = run(programs / "classify", made, noise, "--top", 1)
    assert said.stdout == f"{one.max():.4f}  class {one.argmax()}\n"


def test_unknown_kernels_are_refused(programs: Path, noise: Path, tmp_path: Path):
    made = artifact(vit(), tmp_path / "made", "fp32")
    done = run(programs / "logits", made, noise, kernels="sse9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "VITCLI_KERNELS is 'sse9'" in done.stderr
    assert "portable" in done.stderr


def test_several_images(programs: Path, tmp_path: Path):
    """As one after the other; the first that cannot be read ends it, after the answers to those before it."""
    made = artifact(vit(), tmp_path / "made", "fp32")
    for name in ("a", "b"):
        photo(48, 40, seed=ord(name)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"")
    first, second, damaged = (tmp_path / f"{name}.png" for name in "abc")
    one, other = (computed(programs / "logits", made, path, "") for path in (first, second))
    assert np.abs(one - other).max() > 0.01
    both = run(programs / "logits", made, first, second)
    np.testing.assert_array_equal(np.array(both.stdout.split(), float), np.concatenate([one, other]))
    alone = [run(programs / "classify", made, path).stdout for path in (first, second)]
    done = run(programs / "classify", made, first, second, damaged)
    assert done.stdout == f"{first}\n{alone[0]}{second}\n{alone[1]}"
    assert (done.returncode, done.stderr.startswith(f"error: cannot read the image '{damaged}'")) == (3, True)
