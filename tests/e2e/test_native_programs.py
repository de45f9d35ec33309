"""Every program that runs native folders, over the same folders and photographs, against PyTorch in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.deploy.test_native import VITS, vit
from tests.support.commands import ROOT
from tests.support.images import photo
from tests.support.native_folders import artifact, write_noise
from tests.support.native_programs import NOT_RUN, Numbers, numbers_of
from tests.support.small_vits import NETWORKS, expected_logits, exported, seen

pytestmark = pytest.mark.slow

NUM_PHOTOS = 20
CPU_FLAGS = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
PHOTOGRAPHS = ROOT.parent / "shared/data/imagenet_sample"
#: largest difference of the logarithm of a probability, which is a logit but for a constant of the image
TOLERANCE = {"fp32": 1e-4, "bf16": 0.1, "int8_dynamic": 0.4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs of ImageNet where they are, otherwise pictures that are made up; PNG, which all decoders agree on."""
    folder = tmp_path_factory.mktemp("photos")
    found = sorted(PHOTOGRAPHS.glob("*/*.JPEG"))[:NUM_PHOTOS]
    for number in range(NUM_PHOTOS):
        picture = Image.open(found[number]).convert("RGB") if found else photo(90 + 7 * number, 120, seed=number)
        picture.thumbnail((160, 160))
        picture.save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module", params=TOLERANCE)
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(precision: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("token", tmp_path_factory.mktemp(precision), precision=precision)


@pytest.fixture(scope="module")
def expected(folder: Path, photos: list[Path]) -> np.ndarray:
    """(photographs, classes), logarithms of probabilities by PyTorch."""
    return np.stack([log_softmax(expected_logits("token", seen(folder, path))) for path in photos])


@pytest.fixture(scope="module")
def run(build: Callable[..., Path], shared_folder: Path) -> Callable[[str], Numbers]:
    return lambda name: numbers_of(name, build, shared_folder)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("program", ["cpp", "mojo", "sycl", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_answers_are_those_of_pytorch(
    program: str,
    precision: str,
    folder: Path,
    photos: list[Path],
    expected: np.ndarray,
    run: Callable[[str], Numbers],
):
    """The most probable class too, but where PyTorch's two best are closer than the tolerance."""
    if NOT_RUN[program]:
        pytest.skip(NOT_RUN[program])
    numbers = run(program)(folder, photos)
    found = log_softmax(numbers) if program == "mojo" else np.log(numbers)  # of the others: probabilities
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision])
    best = np.sort(expected)
    decided = best[:, -1] - best[:, -2] > 2 * TOLERANCE[precision]
    assert decided.sum() >= NUM_PHOTOS - 3
    np.testing.assert_array_equal(found.argmax(1)[decided], expected.argmax(1)[decided])
    assert len(set(expected.argmax(1))) > 1


needs_equal_instructions = pytest.mark.skipif(
    "fma" not in CPU_FLAGS or "avx512_bf16" in CPU_FLAGS or bool(NOT_RUN["mojo"]),
    reason=NOT_RUN["mojo"] or "C++ and Mojo round differently without FMA, and with an instruction for bfloat16",
)


@pytest.mark.timeout(900)
@needs_equal_instructions
@pytest.mark.parametrize("name", NETWORKS)
def test_mojo_gives_the_bits_of_cpp(
    name: str, precision: str, photos: list[Path], run: Callable[[str], Numbers], tmp_path: Path
):
    """Then no answer differs, whatever is rounded to int8 in between."""
    assert_same_bits(exported(name, tmp_path, precision=precision), photos, run)


@pytest.mark.timeout(900)
@needs_equal_instructions
@pytest.mark.parametrize("encoding", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("options", VITS, ids=str)
def test_mojo_gives_the_bits_of_cpp_for_every_vit(
    options: dict[str, Any], encoding: str, run: Callable[[str], Numbers], tmp_path: Path
):
    folder = artifact(vit(**options), tmp_path / "made", encoding, takes_pixels=True)
    write_noise(tmp_path / "photo.png")
    assert_same_bits(folder, [tmp_path / "photo.png"], run)


def assert_same_bits(folder: Path, photos: list[Path], run: Callable[[str], Numbers]) -> None:
    logits = run("mojo")(folder, photos)
    assert np.array_equal(logits, logits.astype(np.float32))
    probabilities = np.exp(log_softmax(logits))
    np.testing.assert_array_equal(run("cpp")(folder, photos).astype(np.float32), probabilities.astype(np.float32))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
