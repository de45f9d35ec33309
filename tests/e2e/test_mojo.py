"""The Mojo program, built and run over native folders against PyTorch."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.deploy.test_native import VITS, vit
from tests.support.native_folders import MEAN, STD, artifact, input_of, write_noise
from tests.support.native_programs import NOT_BUILT, built_by_mojo
from tests.support.small_vits import NETWORKS, expected_logits, exported, seen, write_photos
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.classify import Classifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the compiler takes a while
    pytest.mark.skipif(bool(NOT_BUILT["mojo"]), reason=NOT_BUILT["mojo"] or "built"),
]


@pytest.fixture(scope="module")
def program(shared_folder: Path) -> Path:
    return built_by_mojo(shared_folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("token", tmp_path_factory.mktemp("whole"))


def run(program: Path, made: Path, pixels: np.ndarray, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """pixels: (H, W, C), or (B, H, W, C) for several images in one file."""
    (folder / "seen.pam").write_bytes(b"".join(map(pam, pixels if pixels.ndim == 4 else [pixels])))
    command = [program, made, folder / "seen.pam", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def pam(pixels: np.ndarray) -> bytes:
    height, width, channels = pixels.shape
    header = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL 255\nENDHDR\n"
    return header.encode() + pixels.tobytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_pytorch(name: str, program: Path, photos: list[Path], tmp_path: Path):
    folder = exported(name, tmp_path)
    for photo in photos:
        pixels = seen(folder, photo)
        expected = expected_logits(name, pixels)
        done = run(program, folder, pixels[0], tmp_path, "--logits")
        assert done.returncode == 0, done.stderr
        assert expected.std() > 0.3
        np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, atol=1e-4)


@pytest.mark.parametrize("options", VITS, ids=str)
def test_every_vit(options: dict[str, Any], program: Path, tmp_path: Path):
    model = vit(**options)
    made = artifact(model, tmp_path / "made", "fp32", takes_pixels=True)
    images = input_of(model, write_noise(tmp_path / "photo.png"))
    done = run(program, made, pixels_of(images), tmp_path, "--logits")
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model.double()(images).numpy()[0]
    assert expected.std() > 0.02
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, rtol=0, atol=1e-4)


def pixels_of(images: torch.Tensor) -> np.ndarray:
    """(B, H, W, C) uint8 of normalized images (B, C, H, W)."""
    mean, std = (np.array(values[: images.shape[1]]) for values in (MEAN, STD))
    return (255 * (images.permute(0, 2, 3, 1).numpy() * std + mean)).round().astype(np.uint8)


def test_several_images(program: Path, whole: Path, photos: list[Path], tmp_path: Path):
    pixels = np.concatenate([seen(whole, photo) for photo in photos])
    alone = [run(program, whole, one, tmp_path) for one in pixels]
    done = run(program, whole, pixels, tmp_path)
    assert done.stdout == "".join(f"image {number}\n{one.stdout}" for number, one in enumerate(alone, start=1))
    assert len({one.stdout for one in alone}) == len(photos)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8_dynamic"])
def test_threads_do_not_change_the_logits(precision: str, program: Path, photos: list[Path], tmp_path: Path):
    folder = exported("token", tmp_path, precision=precision)
    pixels = seen(folder, photos[0])[0]
    alone = run(program, folder, pixels, tmp_path, "--logits", "--threads", "1")
    assert (alone.returncode, len(alone.stdout.split()) > 1) == (0, True), alone.stderr
    for count in ("2", "3", "999999"):
        assert run(program, folder, pixels, tmp_path, "--threads", count, "--logits").stdout == alone.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--threads", "0"], "--threads takes a positive number, not '0'"), (["--threads"], "a positive number, not ''"),
     (["--threads", "-1"], "a positive number, not '-1'"), (["--threads", "2x"], "a positive number, not '2x'"),
     (["--top", "3"], "no option --top; expected: classify ARTIFACT"), (["more"], "expected: classify ARTIFACT_DIR")],
    ids=str,
)  # fmt: skip
def test_options_that_are_refused(options: list[str], words: str, program: Path, whole: Path, tmp_path: Path):
    done = run(program, whole, np.zeros((1, 1, 3), np.uint8), tmp_path, *options)
    assert (done.returncode, done.stdout, words in done.stderr) == (2, "", True), done.stderr


def test_the_benchmark_answers_each_line(whole: Path, photos: list[Path], shared_folder: Path, tmp_path: Path):
    program = built_by_mojo(shared_folder, "benchmark")
    (tmp_path / "seen.pam").write_bytes(pam(seen(whole, photos[0])[0]))
    command = [program, whole, tmp_path / "seen.pam", "--threads", "1"]
    done = subprocess.run(command, input="\n\n\n", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [float(line) > 0 for line in done.stdout.splitlines()] == [True] * 3


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is not a PAM file"), (b"P6\n1 1\n255\nabc", "is not a PAM file"), (b"P7\nWIDTH 4\nHEIGHT 4\n", "truncated"),
     (b"P7\nWIDTH 4\nDEPTH 3\nENDHDR\nabc", "truncated"), (b"P7\nWIDTH 99999999999\nENDHDR\n", "truncated"),
     (b"P7\nWIDTH x\nENDHDR\n", "not a whole number"), (b"P7\nWIDTH 3\nENDHDR\nabc", "does not have the size"),
     (b"P7\nWIDTH 3\nENDHDR\nabcabc", "is not a PAM file")],
)  # fmt: skip
def test_pixels_that_are_refused(content: bytes, words: str, program: Path, whole: Path, tmp_path: Path):
    (tmp_path / "seen.pam").write_bytes(content)
    command = [program, whole, tmp_path / "seen.pam"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, words in done.stderr) == (2, "", True), done.stderr


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 2e-3), ("int8_dynamic", 5e-3)])
def test_probabilities_are_those_of_the_reference(
    precision: str,
    tolerance: float,
    program: Path,
    photos: list[Path],
    tmp_path: Path,
):
    folder = exported("token", tmp_path, precision=precision)
    classify = Classifier(open_artifact(folder), threads=1)
    pixels = seen(folder, photos[0])
    expected = classify(pixels)[0]
    lines = [line.split(maxsplit=1) for line in run(program, folder, pixels[0], tmp_path).stdout.splitlines()]
    assert [name for _, name in lines] == [name for name, _ in classify.labels(expected)[:5]]
    np.testing.assert_allclose([float(number) for number, _ in lines], np.sort(expected)[::-1][:5], atol=tolerance)


def damage(folder: Path, kind: str) -> None:
    weights, text = folder / "model.safetensors", folder / "artifact.txt"
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif kind == "digit":
        text.write_text(text.read_text().replace("crop_pct=0", "crop_pct=1"))
    elif kind == "empty":
        text.write_text("")
    else:
        (folder / kind).unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("cut", "model.safetensors was changed"), ("digit", "its checksum is another"),
     ("empty", "its checksum is another"), ("labels.txt", "cannot read"), ("model.txt", "cannot read")],
)  # fmt: skip
def test_damaged_folders_are_refused(
    kind: str,
    words: str,
    program: Path,
    whole: Path,
    photos: list[Path],
    tmp_path: Path,
):
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    pixels = seen(folder, photos[0])
    damage(folder, kind)
    done = run(program, folder, pixels[0], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_what_it_cannot_run_is_named(program: Path, photos: list[Path], tmp_path: Path):
    folder = exported("token", tmp_path, input="normalized")
    done = run(program, folder, seen(folder, photos[0])[0], tmp_path)
    assert done.returncode == 2
    assert "with input=pixels only, and this one has input=normalized" in done.stderr
