"""The C++ program in deploy/cpp, built and run as its README says, against Pillow, hashlib and Python's predictions."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import vitcli
from vitcli.commands.export import ExportPlan, export
from vitcli.data.decode import open_image
from vitcli.data.eval_transform import build_eval_transform
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.bridges import ModelClassifier
from vitcli.deploy.classify import Classifier
from vitcli.image_size import ImageSize, height_and_width
from vitcli.networks.opened import open_network
from vitcli.networks.precedence import preprocessing
from vitcli.recipe.schema import Augmentation
from vitcli.weights.read import PACKED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="cmake and a C++ compiler needed"),
]

Run = Callable[..., subprocess.CompletedProcess]

#: runtime -> its Python package, and the artifact it is tried with: both kinds of input, a free and a fixed batch
RUNTIMES: dict[str, tuple[str, ExportPlan]] = {
    "openvino": ("openvino", ExportPlan(to="openvino")),
    "executorch": ("executorch", ExportPlan(to="executorch", input="normalized")),
    "onnxruntime": ("onnxruntime", ExportPlan(to="onnx", input="normalized", batch=3)),
    "aoti": ("torch", ExportPlan(to="aoti")),
}
IN_EVERY_RUN = ("openvino",)  #: the others are built and tried with VITCLI_ALL_RUNTIMES=1 only


def trained(folder: Path, **words: Any) -> Path:
    """A network of ten classes that has learned a little, so that its probabilities differ."""
    words |= {"epoch_size": 1, "num_samples": 320, "batch_size": 32, "warmup_epochs": 0, "num_parallel_workers": 0}
    vitcli.train(vitcli.load_recipe("quickstart", run_dir=folder / "run", **words))
    return folder / "run"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def small_run_dir(tmp_path_factory) -> Path:
    """A network that is exported sooner, for what does not depend on the network."""
    return trained(tmp_path_factory.mktemp("training"), model="vit_ti_patch16", patch_size=8, depth=1)


@pytest.fixture
def pixels(build, tmp_path: Path) -> Run:
    """Run `pixels ARTIFACT_DIR IMAGE` of any build."""
    program = build("openvino" if importlib.util.find_spec("openvino") else "none") / "pixels"

    def run(artifact: Path, image: Path | str) -> subprocess.CompletedProcess:
        return subprocess.run([program, artifact, image], capture_output=True, timeout=60, check=False)

    return run


DESCRIPTION = {
    "artifact_version": 4, "model": "m", "format": "onnx", "precision": "fp32", "device": "cpu",
    "network": "model.onnx", "labels": "labels.txt", "input_dtype": "uint8", "input_layout": "NHWC",
    "input_batch": "any", "output": "probabilities", "activation": "softmax",
    "image_height": 32, "image_width": 32, "crop_mode": "center", "border": "128,128,128",
    "crop_pct": 1.0, "interpolation": "bicubic", "in_channels": 3,
    "pixel_range": "auto", "mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25", "more": "a \\\\ b = c\\n😀",
}  # fmt: skip


def write_artifact(folder: Path, **values: object) -> Path:
    """An artifact with everything but a network, as the README describes it."""
    folder.mkdir(exist_ok=True)
    (folder / "labels.txt").write_text("cat\ndog\n")
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 5000)
    digests = {f"sha256.{path.name}": sha256(path.read_bytes()) for path in folder.iterdir() if path.stem != "artifact"}
    if channels := values.get("in_channels"):
        per_channel = {"mean": "0.5", "std": "0.25", "border": "128"}
        values |= {key: ",".join([value] * int(channels)) for key, value in per_channel.items()}
    lines = "".join(f"{key}={value}\n" for key, value in (DESCRIPTION | digests | values).items() if value is not None)
    (folder / "artifact.txt").write_text(f"{lines}checksum={sha256(lines.encode())}\n")
    return folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def seen_by_python(path: Path, *, in_channels: int = 3, **augmentation) -> np.ndarray:
    transform = build_eval_transform(Augmentation(**augmentation), in_channels=in_channels)
    return np.asarray(transform(open_image(path)))


def seen_by_cpp(done: subprocess.CompletedProcess) -> np.ndarray:
    assert done.returncode == 0, done.stderr
    header, pixels = done.stdout.split(b"ENDHDR\n", 1)
    width, height, channels = (int(word) for word in header.split()[2:7:2])
    return np.frombuffer(pixels, np.uint8).reshape((height, width) if channels == 1 else (height, width, channels))


def noise(width: int, height: int, *, channels: int = 3, seed: int = 0) -> Image.Image:
    """Random pixels, the hardest image for rounding."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values[:, :, 0] if channels == 1 else values)


def photo(width: int = 150, height: int = 110) -> Image.Image:
    return noise(9, 7).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_pixels_are_pillows(interpolation: str, tmp_path: Path, pixels: Run):
    """Down, up, both, not at all, beyond 16:1, tall (Pillow 13 resizes the height first), and gray; bit by bit."""
    for width, height, side, crop_pct, in_channels in (
        (200, 150, 64, 0.9, 3), (31, 50, 64, 1.0, 3), (40, 90, 60, 0.875, 3), (48, 48, 48, 1.0, 3),
        (700, 20, 32, 0.95, 3), (11, 385, 8, 1.0, 3), (33, 169, 8, 1.0, 3), (1, 1, 8, 0.5, 3), (97, 66, 63, 0.95, 1),
        (200, 150, (48, 80), 0.9, 3), (31, 90, (64, 24), 1.0, 3), (97, 66, (63, 40), 0.875, 1),
    ):  # fmt: skip
        words = {"crop_pct": crop_pct, "interpolation": interpolation, "in_channels": in_channels}
        compare_pixels(tmp_path, pixels, (width, height), side, words)


@pytest.mark.parametrize("crop_mode", ["squash", "border"])
def test_the_pixels_of_other_crop_modes(crop_mode: str, tmp_path: Path, pixels: Run):
    for width, height, size, crop_pct, in_channels in (
        (200, 150, 64, 0.9, 3), (31, 50, (48, 80), 1.0, 3), (700, 20, 32, 1.0, 3), (2, 900, 31, 1.0, 3),
        (97, 66, (63, 40), 0.875, 1),
    ):  # fmt: skip
        words = {"crop_pct": crop_pct, "interpolation": "bicubic", "in_channels": in_channels, "crop_mode": crop_mode}
        compare_pixels(tmp_path, pixels, (width, height), size, words)


def compare_pixels(folder: Path, pixels: Run, image_size: tuple[int, int], size: ImageSize, words: dict) -> None:
    noise(*image_size, seed=image_size[0]).save(folder / "image.png")
    expected = seen_by_python(folder / "image.png", image_resize=size, mean=(0.5,), std=(0.25,), **words)
    height, width = height_and_width(size)
    artifact = write_artifact(folder / "artifact", image_height=height, image_width=width, **words)
    found = seen_by_cpp(pixels(artifact, folder / "image.png"))
    np.testing.assert_array_equal(found, expected, err_msg=str((image_size, size, words)))


def kinds_of_files(folder: Path) -> list[Path]:
    """All lossless kinds: colors, depths, palettes, transparency, orientations."""
    image, gray = noise(40, 30), noise(40, 30, channels=1)
    saved: dict[str, tuple[Image.Image, dict]] = {
        "rgb.png": (image, {}), "gray.png": (gray, {}), "bits.png": (image.convert("1"), {}),
        "palette.png": (image.quantize(200), {}), "palette4.png": (image.quantize(9), {"transparency": 3}),
        "alpha.png": (noise(40, 30, channels=4), {}), "gray_alpha.png": (image.convert("LA"), {}),
        "transparent_gray.png": (gray, {"transparency": 7}), "rgb.ppm": (image, {}), "gray.pgm": (gray, {}),
        "deep.png": (Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54), {}),
    }  # fmt: skip
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        saved[f"turned{orientation}.png"] = (image, {"exif": exif})
    for name, (kept, words) in saved.items():
        kept.save(folder / name, **words)
    for name, header in (("p5", b"P5 # gray\n6 5\n100\n"), ("p6", b"P6\n6 5 100\n")):
        values = np.random.default_rng(0).integers(0, 101, (5, 6, 3 if name == "p6" else 1)).astype("u1")
        (folder / f"{name}.pnm").write_bytes(header + values.tobytes())
    return [*(folder / name for name in saved), folder / "p5.pnm", folder / "p6.pnm"]


@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_kind_of_file(in_channels: int, tmp_path: Path, pixels: Run):
    artifact = write_artifact(tmp_path / "artifact", in_channels=in_channels)
    for path in kinds_of_files(tmp_path):
        expected = seen_by_python(path, image_resize=32, crop_pct=1.0, in_channels=in_channels)
        np.testing.assert_array_equal(seen_by_cpp(pixels(artifact, path)), expected, err_msg=path.name)


ARRAYS = {
    "gray": ("u1", (30, 40)), "six": ("u1", (30, 40, 6)), "six first": ("u1", (6, 30, 40)), "one": ("b1", (30, 40, 1)),
    "u2": ("<u2", (30, 40, 6)), "big-endian": (">u2", (30, 40, 3)), "i1": ("i1", (30, 40)), "i2": ("<i2", (30, 40, 6)),
    "i4": ("<i4", (30, 40, 3)), "i8": ("<i8", (30, 40, 6)), "u4": ("<u4", (30, 40)), "u8": ("<u8", (30, 40)),
    "f2": ("<f2", (30, 40, 6)), "f4": (">f4", (6, 30, 40)), "f8": ("<f8", (30, 40, 6)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("column_major", [False, True])
def test_arrays_of_any_depth_and_number_of_channels(kind: str, column_major: bool, tmp_path: Path, pixels: Run):
    dtype, shape = ARRAYS[kind]
    channels = min(shape) if len(shape) == 3 else 1
    values = np.random.default_rng(0).standard_normal(shape) * 3000 + 1000
    values = values > 1000 if dtype == "b1" else values.astype(dtype)
    if values.dtype.kind == "f":
        values.reshape(-1)[:3] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "a.npy", np.asfortranarray(values) if column_major else values)
    for low, high in ((-2000, 4000), (0, 5000.5)):
        artifact = write_artifact(tmp_path / "artifact", in_channels=channels, pixel_range=f"{low},{high}")
        words: dict[str, Any] = {"image_resize": 32, "crop_pct": 1.0, "in_channels": channels}
        expected = seen_by_python(tmp_path / "a.npy", **words, pixel_range=(low, high))
        assert expected.std() > 1
        np.testing.assert_array_equal(seen_by_cpp(pixels(artifact, tmp_path / "a.npy")), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pngs_of_16_bits(channels: int, tmp_path: Path, pixels: Run):
    values = np.random.default_rng(0).integers(0, 4096, (30, 40, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values if channels > 1 else values[..., 0]))
    for in_channels in {1, 3, channels}:
        artifact = write_artifact(tmp_path / "artifact", in_channels=in_channels, pixel_range="0,4095")
        words: dict[str, Any] = {"image_resize": 32, "crop_pct": 1.0, "in_channels": in_channels}
        expected = seen_by_python(tmp_path / "a.png", **words, pixel_range=(0, 4095))
        np.testing.assert_array_equal(seen_by_cpp(pixels(artifact, tmp_path / "a.png")), expected)
    done = pixels(write_artifact(tmp_path / "auto", in_channels=1), tmp_path / "a.png")
    assert done.returncode == 3
    assert "which are black and white is not known" in done.stderr.decode()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(mode: str, tmp_path: Path, pixels: Run):
    """Within 2 of 255, since Pillow has a libjpeg of its own; where the versions agree, nothing differs."""
    exif = Image.Exif()
    exif[0x0112] = 6
    artifact = write_artifact(tmp_path / "artifact")
    for subsampling, progressive in ((0, False), (1, True), (2, False)):
        words: dict[str, Any] = {"subsampling": subsampling} if mode == "RGB" else {}
        photo().convert(mode).save(tmp_path / "photo.jpg", quality=85, progressive=progressive, exif=exif, **words)
        expected = seen_by_python(tmp_path / "photo.jpg", image_resize=32, crop_pct=1.0)
        found = seen_by_cpp(pixels(artifact, tmp_path / "photo.jpg"))
        assert np.abs(found.astype(int) - expected).max() <= 2


def test_images_that_are_refused(tmp_path: Path, pixels: Run):
    artifact = write_artifact(tmp_path / "artifact")
    photo().save(tmp_path / "photo.jpg")
    photo().save(tmp_path / "photo.webp")
    noise(40, 30).save(tmp_path / "photo.png")
    for name in ("photo.jpg", "photo.png"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"half_{name}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "bomb.pgm").write_bytes(b"P5 99999 99999 255\n")
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 2 65535\n" + bytes(8))
    np.save(tmp_path / "six.npy", np.zeros((9, 9, 6), np.uint8))
    np.save(tmp_path / "complex.npy", np.zeros((9, 9), complex))
    np.save(tmp_path / "bomb.npy", np.zeros((1, 1), np.uint8))
    start = (tmp_path / "bomb.npy").read_bytes()
    (tmp_path / "bomb.npy").write_bytes(start.replace(b"(1, 1)", b"(99999, 99999)"))
    (tmp_path / "short.npy").write_bytes(start.replace(b"(1, 1)", b"(99, 99)"))
    (tmp_path / "odd.npy").write_bytes(start.replace(b"|u1", b"|u0"))
    (tmp_path / "long.npy").write_bytes(start.replace(b"|u1", b"<u99"))
    (tmp_path / "cut.npy").write_bytes(start[:9])
    for name, words in (
        ("half_photo.jpg", "Premature end"), ("half_photo.png", "truncated"), ("empty.png", "empty"),
        ("photo.webp", "not a JPEG, PNG"), ("bomb.pgm", "99999 x 99999 pixels"), ("absent.png", "no such file"),
        (".", "not a regular file"), ("deep.pgm", "brightest value is not 1 to 255"),
        ("six.npy", "has 6 channels, and the network takes 3"), ("complex.npy", "header is not understood"),
        ("bomb.npy", "99999 x 99999 pixels"), ("short.npy", "truncated"), ("odd.npy", "type that is unknown"),
        ("long.npy", "type that is unknown"), ("cut.npy", "truncated"),
    ):  # fmt: skip
        done = pixels(artifact, tmp_path / name)
        assert (done.returncode, done.stdout) == (3, b"")
        assert words in done.stderr.decode(), name


def test_sha256_is_hashlibs(tmp_path: Path, pixels: Run):
    """Files of all lengths around the block size of SHA-256, with the digests of hashlib."""
    (tmp_path / "artifact").mkdir()
    for length in range(130):
        (tmp_path / "artifact" / f"{length}.bin").write_bytes(b"v" * length)
    artifact = write_artifact(tmp_path / "artifact")
    noise(9, 9).save(tmp_path / "image.png")
    assert pixels(artifact, tmp_path / "image.png").returncode == 0
    (artifact / "64.bin").write_bytes(b"v" * 63 + b"w")
    assert "64.bin was changed" in pixels(artifact, tmp_path / "image.png").stderr.decode()


def damage_artifact(artifact: Path, damage: str) -> None:
    text = artifact / "artifact.txt"
    if damage == "byte":
        (artifact / "model.onnx").write_bytes(bytes(range(256)) * 4999 + bytes(256))
    elif damage == "size":
        (artifact / "model.onnx").write_bytes(b"")
    elif damage == "digit":
        text.write_text(text.read_text().replace("mean=0.5", "mean=0.6"))
    elif damage == "cut":
        text.write_text(text.read_text()[:-2])
    elif damage == "old":
        text.rename(artifact / "artefact.json")
    elif damage == "lines":
        lines = "artifact_version=4\nno equals sign\n"
        text.write_text(f"{lines}checksum={sha256(lines.encode())}\n")
    elif damage == "twice":
        lines = "artifact_version=4\n" * 2
        text.write_text(f"{lines}checksum={sha256(lines.encode())}\n")
    else:
        (artifact / damage).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("byte", "model.onnx was changed"), ("size", "model.onnx was changed"), ("labels.txt", "cannot read"),
        ("artifact.txt", "cannot read"), ("old", "exported by an earlier version"),
        ("digit", "its checksum is another"),
        ("cut", "its checksum is another"), ("lines", "not key=value"), ("twice", "occurs more than once"),
    ],
)  # fmt: skip
def test_artifacts_that_are_refused(damage: str, words: str, tmp_path: Path, pixels: Run):
    artifact = write_artifact(tmp_path / "artifact")
    noise(9, 9).save(tmp_path / "image.png")
    damage_artifact(artifact, damage)
    done = pixels(artifact, tmp_path / "image.png")
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()
    assert str(artifact) in done.stderr.decode()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"artifact_version": 3}, "version 3, and this program reads version 4"),
        ({"mean": None}, "key mean is missing"),
        ({"network": "../model.onnx"}, "'../model.onnx' has no SHA-256"), ({"labels": "model.txt"}, "has no SHA-256"),
        ({"network": "../m", "sha256.../m": "0"}, "is not the name of a file"), ({"more": "\\t"}, "unknown escape"),
        ({"interpolation": "sinc"}, "interpolation 'sinc' is unknown"),
        ({"mean": "0.5,0.5"}, "does not fit in_channels"),
        ({"std": "1,x,1"}, "std is not a number"), ({"image_width": "32.5"}, "image_width is not an integer"),
        ({"image_height": 4}, "not 8 to 8192"), ({"crop_mode": "fit"}, "crop_mode 'fit' is unknown"),
        ({"border": "1"}, "does not fit in_channels"), ({"crop_pct": "nan"}, "crop_pct is not a number"),
        ({"crop_pct": 2}, "not 0.1 to 1"), ({"in_channels": 0}, "not positive"),
        ({"input_batch": 0}, "not 1 to 4096"), ({"input_batch": 999999999}, "not 1 to 4096"),
        ({"activation": "relu"}, "activation 'relu' is unknown"),
        ({"activation": "sigmoid"}, "key thresholds is missing"),
        ({"activation": "sigmoid", "thresholds": "0.5"}, "does not have one number per class"),
        ({"pixel_range": "4,4"}, "not a range"), ({"pixel_range": "1"}, "not a range"),
    ],
)  # fmt: skip
def test_descriptions_that_are_refused(values: dict[str, object], words: str, tmp_path: Path, pixels: Run):
    artifact = write_artifact(tmp_path / "artifact", **values)
    noise(9, 9).save(tmp_path / "image.png")
    done = pixels(artifact, tmp_path / "image.png")
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()
    assert "artifact.txt" in done.stderr.decode()


def require(runtime: str) -> None:
    """Skip if `runtime` is not installed, or takes too long for every run."""
    if runtime not in IN_EVERY_RUN and os.environ.get("VITCLI_ALL_RUNTIMES") != "1":
        pytest.skip("tried with VITCLI_ALL_RUNTIMES=1")
    if importlib.util.find_spec(RUNTIMES[runtime][0]) is None:
        pytest.skip(f"the package {RUNTIMES[runtime][0]} is not installed")
    if runtime == "onnxruntime" and "ONNXRUNTIME_DIR" not in os.environ:
        pytest.skip("ONNXRUNTIME_DIR does not name a release of ONNX Runtime, and the Python package has no headers")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_predictions_are_pythons(runtime: str, build, run_dir: Path, tmp_path: Path):
    require(runtime)
    program = build(runtime) / "classify"
    artifact = export(run_dir, tmp_path / "exported", RUNTIMES[runtime][1])
    photo().save(tmp_path / "photo.png")
    classifier = Classifier(open_artifact(artifact.folder), threads=1)
    probabilities = classifier([open_image(tmp_path / "photo.png")])[0]
    command = [program, artifact.folder, tmp_path / "photo.png", "--threads", "1", "--device", "CPU"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    np.testing.assert_allclose([float(share) for share, _ in lines], sorted(probabilities)[:-6:-1], atol=1.5e-4)
    for share, name in lines:
        assert abs(float(share) - probabilities[classifier.class_names.index(name)]) <= 1.5e-4


@pytest.mark.parametrize("input", ["pixels", "normalized"])
def test_any_number_of_classes(input: str, build, small_run_dir: Path, tmp_path: Path):
    """The classes above their thresholds, all of them though there are more than five, or none."""
    require("openvino")
    opened = open_network(small_run_dir, recipe=vitcli.load_recipe(task="multilabel"))
    photo().save(tmp_path / "photo.png")
    exact = ModelClassifier(opened, device="cpu")([open_image(tmp_path / "photo.png")])[0]
    for name, thresholds in (("some", [*np.repeat(0.0, 7), 1.0, 1.0, 1.0]), ("none", np.minimum(exact + 0.01, 1))):
        weights = tmp_path / f"{name}.safetensors"
        facts = {"task": "multilabel", "class_names": opened.class_names, "model": opened.recipe.model.model,
                 "findings": {"thresholds": [float(one) for one in thresholds]},
                 "preprocessing": preprocessing(opened.recipe)}  # fmt: skip
        save_file(opened.model.state_dict(), weights, metadata={PACKED: json.dumps(facts)})
        artifact = export(weights, tmp_path / name, ExportPlan(to="openvino", input=input))
        command = [build("openvino") / "classify", artifact.folder, tmp_path / "photo.png"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        classifier = Classifier(open_artifact(artifact.folder), threads=1)
        labels = classifier.labels(classifier([open_image(tmp_path / "photo.png")])[0])
        assert [line.partition("  ")[2] for line in done.stdout.splitlines() if line != "none"] == [
            n for n, _ in labels
        ]
        assert len(labels) == (7 if name == "some" else 0)
        assert (done.stdout == "none\n") == (name == "none")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["photo.png"], "of format openvino, and this one is of format onnx"),
        (["photo.png", "--top", "0"], "--top takes a positive number"),
        (["photo.png", "--threads"], "--threads needs a value"), (["photo.png", "--gpu", "1"], "no option --gpu"),
        ([], "expected an artifact"),
    ],
)  # fmt: skip
def test_commands_that_are_refused(options: list[str], words: str, build, tmp_path: Path):
    require("openvino")
    command = [build("openvino") / "classify", write_artifact(tmp_path / "artifact"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "help: " in done.stderr
