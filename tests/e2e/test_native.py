"""The C++ program without a framework computes what PyTorch computes, with every kind of kernel; damage is refused."""

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.deploy.test_native import VITS, fastvit, vit
from tests.support.commands import environment
from vitcli.data.eval_transform import build_eval_transform
from vitcli.deploy.artifact import NewArtifact
from vitcli.deploy.formats import Order, Setting, open_format
from vitcli.deploy.key_values import from_text, to_text
from vitcli.deploy.network import Deployed, for_runtime
from vitcli.image_size import height_and_width
from vitcli.recipe.schema import Augmentation
from vitcli.weights.manifest import sha256_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="cmake and a C++ compiler needed"),
]

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
PRECISIONS = ("fp32", "bf16", "int8_dynamic")
#: largest difference of a logit: from PyTorch in float64; from the reference, where roundings may differ
EXACT, NEAR = 1e-4, 0.02
#: emulated has the shapes and encodings of AVX-512; "" chooses the fastest kernels of this processor
KERNELS = ("", "portable", "emulated")
FASTVITS: list[dict[str, Any]] = [{}, {"attention": False}, {"dim": 20, "in_chans": 1}, {"img_size": (33, 70)}]


@pytest.fixture(scope="session")
def programs(build: Callable[[str], Path]) -> Path:
    return build("native")


def artifact(model: nn.Module, folder: Path, precision: str, *, takes_pixels: bool = False) -> Path:
    """Exported as `vitcli export` does it, without the gate."""
    size, channels = getattr(model, "img_size", 32), getattr(model, "in_chans", 3)
    height, width = height_and_width(size)
    form = open_format("native", to="export")
    example = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    example = example if takes_pixels else example.permute(0, 3, 1, 2).float()
    normalization = (MEAN[:channels], STD[:channels]) if takes_pixels else None
    with NewArtifact(folder) as new:
        network = Deployed(for_runtime(model), normalization=normalization).eval()
        order = Order(network=network, example=example, folder=new.folder, precision=precision, output="logits")
        form.export(order)
        facts = {
            "format": "native", "file": form.FILE, "precision": precision, "device": "cpu", "model": "m",
            "input": {"dtype": "uint8" if takes_pixels else "float32", "layout": "NHWC" if takes_pixels else "NCHW",
                      "batch": None},
            "output": "probabilities" if takes_pixels else "logits", "activation": "softmax", "thresholds": None,
            "preprocessing": {"image_resize": size, "in_channels": channels, "crop_pct": 1.0, "crop_mode": "center",
                              "interpolation": "bicubic", "pixel_range": "auto",
                              "mean": MEAN[:channels], "std": STD[:channels]},
        }  # fmt: skip
        new.write(facts, [f"class {i}" for i in range(5)], None)
        new.finish(facts, "")
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((97, 80), Image.Resampling.BICUBIC).save(path)
    return path


def run(program: Path, *words: object, kernels: str = "") -> subprocess.CompletedProcess:
    command = [program, *map(str, words)]
    env = environment(VITCLI_KERNELS=kernels)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False, env=env)


def computed(program: Path, folder: Path, photo: Path, kernels: str, threads: int = 1) -> np.ndarray:
    done = run(program, folder, photo, "--threads", threads, kernels=kernels)
    assert (done.returncode, done.stderr) == (0, "")
    return np.array([float(line) for line in done.stdout.splitlines()])


def input_of(model: nn.Module, photo: Path) -> torch.Tensor:
    """(1, C, H, W) float64, normalized."""
    channels = getattr(model, "in_chans", 3)
    augmentation = Augmentation(image_resize=getattr(model, "img_size", 32), crop_pct=1.0, interpolation="bicubic")
    seen = build_eval_transform(augmentation, in_channels=channels)(Image.open(photo))
    pixels = torch.from_numpy(np.array(seen)).double().view(*height_and_width(augmentation.image_resize), channels)
    mean, std = torch.tensor(MEAN[:channels]).double(), torch.tensor(STD[:channels]).double()
    return ((pixels / 255 - mean) / std).permute(2, 0, 1).unsqueeze(0)


def compare(model: nn.Module, programs: Path, photo: Path, folder: Path) -> None:
    images = input_of(model, photo)
    with torch.no_grad():
        exact = model.double()(images).numpy()[0]
    model.float()
    for precision in PRECISIONS:
        made = artifact(model, folder / precision, precision)
        session = open_format("native").open_session(made / "model.txt", Setting(precision, threads=1))
        reference = session(images.float().numpy())[0]
        for kernels in KERNELS:
            found = computed(programs / "logits", made, photo, kernels)
            assert np.abs(found - reference).max() < (EXACT if precision == "fp32" else NEAR), (precision, kernels)
            if precision == "fp32":
                assert np.abs(found - exact).max() < EXACT, kernels
    assert exact.std() > 0.02


@pytest.mark.parametrize("options", VITS, ids=str)
def test_vit(options: dict[str, Any], programs: Path, photo: Path, tmp_path: Path):
    compare(vit(**options), programs, photo, tmp_path)


@pytest.mark.parametrize("options", FASTVITS, ids=str)
def test_fastvit(options: dict[str, Any], programs: Path, photo: Path, tmp_path: Path):
    compare(fastvit(**{"img_size": 64} | options), programs, photo, tmp_path)


def test_threads_and_pixels(programs: Path, photo: Path, tmp_path: Path):
    """The same numbers with any number of threads; a network that takes pixels gives probabilities."""
    model = vit(img_size=96, patch_size=8, depth=3)
    made = artifact(model, tmp_path / "made", "fp32", takes_pixels=True)
    one, five = (computed(programs / "logits", made, photo, "", threads) for threads in (1, 5))
    np.testing.assert_array_equal(one, five)
    with torch.no_grad():
        exact = model.double()(input_of(model, photo)).softmax(-1).numpy()[0]
    assert np.abs(one - exact).max() < EXACT
    said = run(programs / "classify", made, photo, "--top", 1)
    assert said.stdout == f"{one.max():.4f}  class {one.argmax()}\n"


def test_unknown_kernels_are_refused(programs: Path, photo: Path, tmp_path: Path):
    made = artifact(vit(), tmp_path / "made", "fp32")
    done = run(programs / "logits", made, photo, kernels="sse9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "VITCLI_KERNELS is 'sse9'" in done.stderr
    assert "portable" in done.stderr


def resigned(folder: Path, text: str) -> None:
    """Write model.txt, and the description that vouches for it."""
    (folder / "model.txt").write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    values = from_text((folder / "artifact.txt").read_text())
    values |= {f"sha256.{name}": sha256_of(folder / name) for name in ("model.txt", "model.safetensors")}
    (folder / "artifact.txt").write_text(to_text(values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"native_version": "2"}, "version 2, and this program reads version 1"),
        ({"architecture": "resnet"}, "architecture 'resnet' is unknown"),
        ({"depth": "3"}, "blocks.2.qkv.bias is missing"),
        ({"embed_dim": "33"}, "another shape"), ({"num_heads": "0"}, "num_heads is not 1 to"),
        ({"patch_size": "8"}, "patches do not make the image"), ({"pool": "sum"}, "pool 'sum' is unknown"),
        ({"mlp_activation": "elu"}, "mlp_activation is unknown"), ({"num_classes": "4"}, "head.bias has another shape"),
        ({"weights": "../w"}, "is not the name of a file"), ({"weights_bytes": "7"}, "has another size"),
        ({"tensor.positions": "F32 6x32 999999999 768"}, "does not fit into the file"),
        ({"tensor.positions": "F32 6x32 0 999"}, "does not fit into the file"),
        ({"tensor.positions": "F64 6x32 0 768"}, "type 'F64' are unknown"),
        ({"tensor.positions": "F32 6x0 0 768"}, "impossible shape"), ({"tensor.positions": "F32"}, "is not a tensor"),
        ({"tensor.positions": "BF16 6x32 0 384"}, "is not F32"), ({"num_pooled_tokens": "2"}, "is not 1 to 1"),
    ],
)  # fmt: skip
def test_descriptions_that_are_refused(values: dict[str, str], words: str, programs: Path, photo: Path, tmp_path: Path):
    made = artifact(vit(), tmp_path / "made", "fp32")
    resigned(made, to_text(from_text((made / "model.txt").read_text()) | values))
    done = run(programs / "classify", made, photo)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "model.txt" in done.stderr


def test_truncated_and_foreign_weights_are_refused(programs: Path, photo: Path, tmp_path: Path):
    made = artifact(vit(), tmp_path / "made", "fp32")
    whole = (made / "model.safetensors").read_bytes()
    (made / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    done = run(programs / "classify", made, photo)
    assert (done.returncode, done.stdout) == (2, "")
    assert "was changed" in done.stderr
    resigned(made, (made / "model.txt").read_text())
    assert "has another size" in run(programs / "classify", made, photo).stderr


def mutations(text: str, seed: int) -> Iterator[str]:
    """Descriptions with a correct checksum of which a line was changed, removed or repeated."""
    values, random_ = from_text(text), random.Random(seed)
    words = ["0", "1", "-1", "2", "7", "65536", "999999999", "4294967296", "nan", "", "x", "1,1", "I8 1x1 0 1", "token"]
    while True:
        changed, key = dict(values), random_.choice(list(values))
        match random_.randrange(4):
            case 0:
                changed[key] = random_.choice(words)
            case 1:
                del changed[key]
            case 2:
                changed[key] = values[random_.choice(list(values))]
            case _:
                changed[key] = re.sub(r"\d+", lambda m: str(int(m[0]) + random_.choice((-1, 1, 64))), values[key])
        yield to_text(changed)


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_no_description_crashes_the_program(count: int, programs: Path, photo: Path, tmp_path: Path):
    """It runs, or says what is wrong; a signal or another exit code would be a fault."""
    made = [artifact(vit(head_hidden=7, distilled=True), tmp_path / "vit", "int8_dynamic"),
            artifact(fastvit(depths=(1, 1, 1, 1), img_size=32), tmp_path / "fastvit", "bf16")]  # fmt: skip
    codes = []
    for seed, folder in enumerate(made):
        changed = mutations((folder / "model.txt").read_text(), seed)
        for _ in range(count // 2):
            text = next(changed)
            resigned(folder, text)
            done = run(programs / "logits", folder, photo, "--threads", 1)
            assert done.returncode in (0, 2), f"{text}\n{done.stderr}"
            assert (done.returncode == 0) == (done.stderr == "")
            codes.append(done.returncode)
    assert 0.5 < np.mean(codes) / 2 < 1
