"""The folder of an artefact: whole or not at all, and nothing of a damaged one is used."""

import json
from pathlib import Path

import pytest

from vitcli.deploy.artefact import NewArtefact, is_artefact, open_artefact, size_bytes
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
def artefact(tmp_path: Path) -> Path:
    with NewArtefact(tmp_path / "out") as new:
        (new.folder / "model.onnx").write_bytes(b"x" * 100)
        new.write(FACTS, ["a cat", "two\nlines", "größe"], "model: m\n")
        new.finish(FACTS, "# card\n")
    return tmp_path / "out"


def test_what_was_written_is_read(artefact: Path):
    found = open_artefact(artefact)
    assert found.class_names == ["a cat", "two lines", "größe"]
    assert (found.format, found.precision, found.batch, found.takes_pixels) == ("onnx", "fp32", None, True)
    assert (found.preprocessing.crop_pct, found.preprocessing.mean) == (0.9, (0.5, 0.5, 0.5))
    assert sorted(p.name for p in artefact.iterdir()) == [
        "MANIFEST.json", "README.md", "artefact.json", "labels.txt", "model.onnx", "recipe.yaml",
    ]  # fmt: skip
    assert size_bytes(artefact) == 100
    assert is_artefact(artefact)
    assert not is_artefact(artefact.parent)


def test_nothing_is_left_of_an_export_that_failed(tmp_path: Path):
    def fail() -> None:
        with NewArtefact(tmp_path / "deep" / "out") as new:
            (new.folder / "model.onnx").write_bytes(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((tmp_path / "deep").iterdir()) == []


def test_nothing_is_overwritten(artefact: Path):
    with pytest.raises(UsageError) as error:
        NewArtefact(artefact)
    assert "nothing is overwritten" in str(error.value)


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "artefact.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_file_is_named(artefact: Path, name: str, damage: str):
    file = artefact / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(DataError) as error:
        open_artefact(artefact)
    assert name in str(error.value)


def test_without_a_manifest_nothing_is_opened(artefact: Path):
    (artefact / "MANIFEST.json").unlink()
    with pytest.raises(DataError) as error:
        open_artefact(artefact)
    assert "MANIFEST.json is missing" in str(error.value)


@pytest.mark.parametrize("left_out", ["model.onnx", "labels.txt", "artefact.json"])
def test_a_manifest_must_vouch_for_every_file(artefact: Path, left_out: str):
    manifest = json.loads((artefact / "MANIFEST.json").read_text())
    del manifest["files"][left_out]
    (artefact / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError) as error:
        open_artefact(artefact)
    assert f"{left_out} is not in MANIFEST.json" in str(error.value)


def test_a_link_into_nothing_is_not_overwritten_either(tmp_path: Path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        NewArtefact(tmp_path / "out")


@pytest.mark.parametrize("facts", ["[]", "{", json.dumps(FACTS | {"preprocessing": {"crop_pct": 7, "in_channels": 3}})])
def test_a_description_that_says_nothing(tmp_path: Path, facts: str):
    from vitcli.weights.manifest import write_manifest

    (tmp_path / "artefact.json").write_text(facts)
    (tmp_path / "labels.txt").write_text("a\n")
    write_manifest(tmp_path)
    with pytest.raises(DataError) as error:
        open_artefact(tmp_path)
    assert "artefact.json cannot be understood" in str(error.value)
