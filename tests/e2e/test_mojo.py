"""The Mojo program, built and run over native folders against PyTorch."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import ROOT
from tests.support.small_vits import NETWORKS, expected_logits, exported, seen, write_photos
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.classify import Classifier

MOJO = Path(os.environ.get("VITCLI_MOJO", "/nowhere/mojo"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MOJO.is_file(), reason="VITCLI_MOJO does not name the program mojo"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mojo") / "classify"
    environment = os.environ | {"PATH": f"{MOJO.parent}:{os.environ['PATH']}"}
    command = [MOJO, "build", ROOT / "deploy/mojo/classify.mojo", "-o", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("token", tmp_path_factory.mktemp("whole"))


def run(program: Path, artifact: Path, pixels: np.ndarray, folder: Path, *words: str) -> subprocess.CompletedProcess:
    height, width, channels = pixels.shape
    header = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL 255\nENDHDR\n"
    (folder / "seen.pam").write_bytes(header.encode() + pixels.tobytes())
    command = [program, artifact, folder / "seen.pam", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_pytorch(name: str, program: Path, photos: list[Path], tmp_path: Path):
    artifact = exported(name, tmp_path)
    for photo in photos:
        pixels = seen(artifact, photo)
        expected = expected_logits(name, pixels)
        done = run(program, artifact, pixels[0], tmp_path, "--logits")
        assert done.returncode == 0, done.stderr
        assert expected.std() > 0.3
        np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 2e-3), ("int8_dynamic", 5e-3)])
def test_probabilities_are_those_of_the_reference(
    precision: str,
    tolerance: float,
    program: Path,
    photos: list[Path],
    tmp_path: Path,
):
    artifact = exported("token", tmp_path, precision=precision)
    classify = Classifier(open_artifact(artifact), threads=1)
    pixels = seen(artifact, photos[0])
    expected = classify(pixels)[0]
    lines = [line.split(maxsplit=1) for line in run(program, artifact, pixels[0], tmp_path).stdout.splitlines()]
    assert [name for _, name in lines] == [name for name, _ in classify.labels(expected)[:5]]
    np.testing.assert_allclose([float(number) for number, _ in lines], np.sort(expected)[::-1][:5], atol=tolerance)


def damage(artifact: Path, kind: str) -> None:
    weights, text = artifact / "model.safetensors", artifact / "artifact.txt"
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif kind == "digit":
        text.write_text(text.read_text().replace("crop_pct=0", "crop_pct=1"))
    elif kind == "empty":
        text.write_text("")
    else:
        (artifact / kind).unlink()


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
    artifact = tmp_path / "damaged"
    shutil.copytree(whole, artifact)
    pixels = seen(artifact, photos[0])
    damage(artifact, kind)
    done = run(program, artifact, pixels[0], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_what_it_cannot_run_is_named(program: Path, photos: list[Path], tmp_path: Path):
    artifact = exported("token", tmp_path, input="normalized")
    done = run(program, artifact, seen(artifact, photos[0])[0], tmp_path)
    assert done.returncode == 2
    assert "with input=pixels only, and this one has input=normalized" in done.stderr
