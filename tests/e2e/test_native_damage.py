"""Native folders that are damaged, foreign or manipulated: the C++ program says what is wrong, and never crashes."""

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.test_native import fastvit, vit
from tests.support.native_folders import artifact, resigned, run, write_noise
from vitcli.deploy.key_values import from_text, to_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="cmake and a C++ compiler needed"),
]
# gcc sees uninitialized values in its own <regex> under sanitizers
SANITIZERS = "-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=all -Wno-maybe-uninitialized"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("photo") / "photo.png")


@pytest.fixture(scope="session")
def programs(build: Callable[..., Path]) -> Path:
    return build("native")


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


#: values that a line of a description may get
WORDS = ["0", "1", "-1", "2", "7", "65536", "999999999", "4294967296", "nan", "", "x", "1,1", "I8 1x1 0 1", "token"]


def change_a_line(values: dict[str, str], draw: random.Random) -> dict[str, str]:
    """A line gets another value, or is removed, or repeats another one, or its numbers change a little."""
    changed, key = dict(values), draw.choice(list(values))
    match draw.randrange(4):
        case 0:
            changed[key] = draw.choice(WORDS)
        case 1:
            del changed[key]
        case 2:
            changed[key] = values[draw.choice(list(values))]
        case _:
            changed[key] = re.sub(r"\d+", lambda m: str(int(m[0]) + draw.choice((-1, 1, 64))), values[key])
    return changed


def change_bytes(path: Path, draw: random.Random) -> None:
    """Up to eight bytes become others; half of them are at the beginning of the file, where a header is."""
    content = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 8)):
        content[draw.randrange(min(64, len(content)) if draw.random() < 0.5 else len(content))] = draw.randrange(256)
    path.write_bytes(content)


def cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def damage(folder: Path, draw: random.Random) -> None:
    """Change something; mostly with the right checksums, so that the program gets further than to compare them."""
    text, model = folder / "artifact.txt", folder / "model.txt"
    match draw.randrange(10):
        case 0 | 1 | 2 | 3:
            resigned(folder, to_text(change_a_line(from_text(model.read_text()), draw)))
        case 4 | 5:
            text.write_text(to_text(change_a_line(from_text(text.read_text()), draw)))
        case 6:
            change_bytes(folder / draw.choice(["model.safetensors", "model.txt", "labels.txt"]), draw)
            resigned(folder)
        case 7:
            cut(folder / draw.choice(["model.safetensors", "model.txt", "labels.txt"]), draw)
            resigned(folder)
        case 8:
            change_bytes(folder / draw.choice(["model.safetensors", "model.txt", "labels.txt", "artifact.txt"]), draw)
        case _:
            cut(folder / draw.choice(["model.safetensors", "model.txt", "labels.txt", "artifact.txt"]), draw)


SOAK = [pytest.mark.soak, pytest.mark.timeout(7200)]


@pytest.mark.parametrize(
    ("count", "is_sanitized"),
    [
        pytest.param(150, False, marks=pytest.mark.timeout(1800)),
        pytest.param(10_000, False, marks=SOAK),
        pytest.param(10_000, True, marks=SOAK),
    ],
)
def test_no_folder_crashes_the_program(
    count: int, is_sanitized: bool, build: Callable[..., Path], photo: Path, tmp_path: Path
):
    """It runs, or says what is wrong; a signal, another exit code or a report of a sanitizer would be a fault."""
    program = (build("native", SANITIZERS, name="native_sanitized") if is_sanitized else build("native")) / "logits"
    whole = [artifact(vit(head_hidden=7, distilled=True), tmp_path / "vit", "int8_dynamic"),
             artifact(fastvit(depths=(1, 1, 1, 1), img_size=32), tmp_path / "fastvit", "bf16")]  # fmt: skip
    folder, codes = tmp_path / "damaged", Counter[int]()
    for seed in range(count):
        shutil.copytree(whole[seed % 2], folder, dirs_exist_ok=True)
        damage(folder, random.Random(seed))
        done = run(program, folder, photo, "--threads", 1)
        assert done.returncode in (0, 2, 3), f"seed {seed}\n{done.stderr}"
        assert done.stderr.startswith("error: ") == (done.returncode != 0), f"seed {seed}\n{done.stderr}"
        codes[done.returncode] += 1
    assert codes[0] > count / 20, codes
    assert codes[2] > count / 2, codes
