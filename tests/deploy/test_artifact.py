"""The folder of an artifact: complete or not there at all, and nothing of a damaged one is used."""

import hashlib
import json
from pathlib import Path

import pytest

from vitcli.deploy.artifact import NewArtifact, is_artifact, open_artifact, size_bytes
from vitcli.errors import DataError, UsageError
from vitcli.weights.manifest import write_manifest

PREPROCESSING = {
    "image_resize": 32, "crop_pct": 0.9, "crop_mode": "center", "interpolation": "bilinear", "in_channels": 3,
    "pixel_range": "auto", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
}  # fmt: skip
FACTS = {
    "format": "onnx",
    "file": "model.onnx",
    "precision": "fp32",
    "device": "cpu",
    "model": "m",
    "input": {"dtype": "uint8", "layout": "NHWC", "batch": None},
    "output": "probabilities",
    "activation": "softmax",
    "thresholds": None,
    "preprocessing": PREPROCESSING,
}


def new_artifact(out: Path, facts: dict = FACTS) -> Path:
    with NewArtifact(out) as new:
        (new.folder / "model.onnx").write_bytes(b"x" * 100)
        new.write(facts, ["a cat", "two\nlines", "größe"], "model: m\n")
        new.finish(facts, "# card\n")
    return out


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return new_artifact(tmp_path / "out")


def test_what_was_written_is_read(artifact: Path):
    found = open_artifact(artifact)
    assert found.class_names == ["a cat", "two lines", "größe"]
    assert (found.format, found.precision, found.batch, found.takes_pixels) == ("onnx", "fp32", None, True)
    assert (found.preprocessing.crop_pct, found.preprocessing.mean) == (0.9, (0.5, 0.5, 0.5))
    assert sorted(p.name for p in artifact.iterdir()) == [
        "MANIFEST.json", "README.md", "artifact.json", "artifact.txt", "labels.txt", "model.onnx", "recipe.yaml",
    ]  # fmt: skip
    assert size_bytes(artifact) == 100
    assert is_artifact(artifact)
    assert not is_artifact(artifact.parent)


def test_the_text_for_other_programs(tmp_path: Path):
    """Byte for byte as the README describes it; the digests are hashlib's."""
    given = {"dtype": "float32", "layout": "NCHW", "batch": 4}
    before = PREPROCESSING | {"interpolation": "random", "mean": [0.1], "std": [1], "crop_pct": 0.95}
    facts = FACTS | {"model": "a\\b\nc", "input": given, "output": "logits", "preprocessing": before}
    labels = hashlib.sha256("a cat\ntwo lines\ngröße\n".encode()).hexdigest()
    expected = (
        "artifact_version=4\nmodel=a\\\\b\\nc\nformat=onnx\nprecision=fp32\ndevice=cpu\nnetwork=model.onnx\n"
        "labels=labels.txt\ninput_dtype=float32\ninput_layout=NCHW\ninput_batch=4\noutput=logits\nactivation=softmax\n"
        "image_height=32\nimage_width=32\ncrop_mode=center\nborder=26,26,26\ncrop_pct=0.95\ninterpolation=bicubic\nin_channels=3\npixel_range=auto\nmean=0.1,0.1,0.1\nstd=1.0,1.0,1.0\n"
        f"sha256.labels.txt={labels}\nsha256.model.onnx={hashlib.sha256(b'x' * 100).hexdigest()}\n"
    ).encode()
    expected += f"checksum={hashlib.sha256(expected).hexdigest()}\n".encode()
    assert (new_artifact(tmp_path / "out", facts) / "artifact.txt").read_bytes() == expected
    free = (new_artifact(tmp_path / "free") / "artifact.txt").read_text()
    assert "\ninput_batch=any\n" in free
    assert "\ninterpolation=bilinear\n" in free
    several = FACTS | {"activation": "sigmoid", "thresholds": [0.25, 1e-05, 0.5]}
    assert (
        "\nactivation=sigmoid\nthresholds=0.25,1e-05,0.5\n"
        in (new_artifact(tmp_path / "several", several) / "artifact.txt").read_text()
    )
    assert open_artifact(tmp_path / "several").thresholds.tolist() == [0.25, 1e-05, 0.5]


def test_an_artifact_of_the_version_before_has_one_class_per_image(artifact: Path):
    facts = {name: value for name, value in FACTS.items() if name not in ("activation", "thresholds")}
    (artifact / "artifact.json").write_text(json.dumps(facts))
    write_manifest(artifact)
    assert open_artifact(artifact).thresholds is None


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


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "artifact.json", "artifact.txt"])
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


@pytest.mark.parametrize("unlisted", ["model.onnx", "labels.txt", "artifact.json", "artifact.txt"])
def test_the_manifest_must_list_every_file(artifact: Path, unlisted: str):
    manifest = json.loads((artifact / "MANIFEST.json").read_text())
    del manifest["files"][unlisted]
    (artifact / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError) as error:
        open_artifact(artifact)
    assert f"{unlisted} is not in MANIFEST.json" in str(error.value)


def test_a_link_to_nothing_is_not_overwritten_either(tmp_path: Path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        NewArtifact(tmp_path / "out")


@pytest.mark.parametrize("old", ["artefact.json", "no text"])
def test_an_artifact_of_an_earlier_version_must_be_exported_again(artifact: Path, old: str):
    """It was called artefact.json once; and artifact.txt is younger than artifact.json."""
    (artifact / "artifact.txt").unlink()
    if old == "artefact.json":
        (artifact / "artifact.json").rename(artifact / old)
    write_manifest(artifact)
    assert is_artifact(artifact)
    with pytest.raises(DataError, match="exported by an earlier version") as error:
        open_artifact(artifact)
    assert "export it again" in str(error.value.help)


def changed(section: str, **entries: object) -> str:
    return json.dumps(FACTS | {section: FACTS[section] | entries})


@pytest.mark.parametrize(
    "facts",
    [
        "[]", "{", "{}", '{"a": ' * 10**5, json.dumps(FACTS)[:-1] + ', "format": "aoti"}',
        json.dumps(FACTS | {"file": 3}),
        json.dumps(FACTS | {"file": "labels.txt"}), json.dumps(FACTS | {"file": "../model.onnx"}),
        json.dumps(FACTS | {"file": ["model.onnx"]}), json.dumps(FACTS | {"format": None}),
        json.dumps(FACTS | {"input": []}), json.dumps(FACTS | {"preprocessing": []}),
        json.dumps(FACTS | {"output": "features"}), json.dumps(FACTS | {"activation": "sigmoid"}),
        json.dumps(FACTS | {"activation": "sigmoid", "thresholds": [0.5]}),
        json.dumps(FACTS | {"activation": "sigmoid", "thresholds": [0.5, 0.5, 2]}),
        json.dumps(FACTS | {"thresholds": [0.5, 0.5, 0.5]}), changed("input", batch=0), changed("input", batch="4"),
        changed("input", batch=True), changed("input", dtype="int4"), changed("preprocessing", crop_pct=7),
        changed("preprocessing", crop_pct="much"), changed("preprocessing", in_channels=True),
        changed("preprocessing", in_channels=0), changed("preprocessing", mean=[0.5, 0.5]),
        changed("preprocessing", pixel_range=[4, 1, 2]),
        changed("preprocessing", std=0.5), changed("preprocessing", std=[0, 0, 0]), changed("preprocessing", more=1),
    ],
)  # fmt: skip
def test_a_description_that_is_not_valid(artifact: Path, facts: str):
    """Also where the manifest was written after the damage."""
    (artifact / "artifact.json").write_text(facts)
    write_manifest(artifact)
    with pytest.raises(DataError, match=r"artifact\.json (is not valid|cannot be read)"):
        open_artifact(artifact)
