"""The folder of an artifact: whole or not at all, and nothing of a damaged one is used."""

import json
from pathlib import Path

import pytest

from vitcli.deploy.artifact import NewArtifact, is_artifact, open_artifact, size_bytes
from vitcli.errors import DataError, UsageError

FACTS = {
    "format": "onnx",
    "file": "model.onnx",
    "precision": "fp32",
    "model": "m",
    "input": {"dtype": "uint8", "layout": "NHWC", "batch": None},
    "preprocessing": {"image_resize": 32, "crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5],
                      "std": [0.25, 0.25, 0.25], "in_channels": 3},
}  # fmt: skip


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    with NewArtifact(tmp_path / "out") as new:
        (new.folder / "model.onnx").write_bytes(b"x" * 100)
        new.write(FACTS, ["a cat", "two\nlines", "größe"], "model: m\n")
        new.finish(FACTS, "# card\n")
    return tmp_path / "out"


def test_what_was_written_is_read(artifact: Path):
    found = open_artifact(artifact)
    assert found.class_names == ["a cat", "two lines", "größe"]
    assert (found.format, found.precision, found.batch, found.takes_pixels) == ("onnx", "fp32", None, True)
    assert (found.preprocessing.crop_pct, found.preprocessing.mean) == (0.9, (0.5, 0.5, 0.5))
    assert sorted(p.name for p in artifact.iterdir()) == [
        "MANIFEST.json", "README.md", "artifact.json", "labels.txt", "model.onnx", "recipe.yaml",
    ]  # fmt: skip
    assert size_bytes(artifact) == 100
    assert is_artifact(artifact)
    assert not is_artifact(artifact.parent)


def test_nothing_is_left_of_an_export_that_failed(tmp_path: Path):
    def fail() -> None:
        with NewArtifact(tmp_path / "deep" / "out") as new:
            (new.folder / "model.onnx").write_bytes(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((tmp_path / "deep").iterdir()) == []


def test_nothing_is_overwritten(artifact: Path):
    with pytest.raises(UsageError) as error:
        NewArtifact(artifact)
    assert "nothing is overwritten" in str(error.value)


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "artifact.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_file_is_named(artifact: Path, name: str, damage: str):
    file = artifact / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(DataError) as error:
        open_artifact(artifact)
    assert name in str(error.value)


def test_without_a_manifest_nothing_is_opened(artifact: Path):
    (artifact / "MANIFEST.json").unlink()
    with pytest.raises(DataError) as error:
        open_artifact(artifact)
    assert "MANIFEST.json is missing" in str(error.value)


@pytest.mark.parametrize("left_out", ["model.onnx", "labels.txt", "artifact.json"])
def test_a_manifest_must_vouch_for_every_file(artifact: Path, left_out: str):
    manifest = json.loads((artifact / "MANIFEST.json").read_text())
    del manifest["files"][left_out]
    (artifact / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError) as error:
        open_artifact(artifact)
    assert f"{left_out} is not in MANIFEST.json" in str(error.value)


def test_a_link_into_nothing_is_not_overwritten_either(tmp_path: Path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        NewArtifact(tmp_path / "out")


@pytest.mark.parametrize("facts", ["[]", "{", json.dumps(FACTS | {"preprocessing": {"crop_pct": 7, "in_channels": 3}})])
def test_a_description_that_says_nothing(tmp_path: Path, facts: str):
    from vitcli.weights.manifest import write_manifest

    (tmp_path / "artifact.json").write_text(facts)
    (tmp_path / "labels.txt").write_text("a\n")
    write_manifest(tmp_path)
    with pytest.raises(DataError) as error:
        open_artifact(tmp_path)
    assert "artifact.json cannot be understood" in str(error.value)
