"""`vitcli predict`: answers computed by hand, ways to name images, bad images, output files, no torch."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.commands.conftest import NAMES, SIZE, expected
from tests.networks.test_opened import checkpoint
from tests.support.commands import environment
from vitcli.commands.predict import predict
from vitcli.data.find_images import find_images
from vitcli.deploy import pictures as pictures_module
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.bridges import ModelClassifier
from vitcli.deploy.classify import Classifier
from vitcli.deploy.predictions import Answer, text_of
from vitcli.errors import DataError, DiskError, UsageError
from vitcli.networks.opened import Opened
from vitcli.recipe.load import load_recipe
from vitcli.weights.read import Weights


def answers(source: Path, images: list, **options) -> list[dict]:
    file = source.parent / "answers.json"
    predict(str(source), [str(image) for image in images], json=file, **options)
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    "kind",
    [{}, {"format": "openvino"}, {"batch": 1}, {"batch": 4}, {"pixels": False}, {"channels": 1}],
    ids=["onnx", "openvino", "one at a time", "four at a time", "normalized", "gray"],
)
def test_probabilities_are_those_computed_by_hand(kind: dict, artifact, pictures: list[Path]):
    found = answers(artifact(**kind), pictures, top=99, batch_size=5)
    assert [entry["path"] for entry in found] == list(map(str, pictures))
    for entry, path in zip(found, pictures, strict=True):
        truth = dict(zip(NAMES, expected(Image.open(path), kind.get("channels", 3)), strict=True))
        given = {prediction["class"]: prediction["probability"] for prediction in entry["predictions"]}
        assert list(given) == sorted(truth, key=lambda name: -truth[name]), "all classes, most probable first"
        assert given == pytest.approx(truth, abs=2e-6)


def test_the_classifier_takes_images_of_any_size_and_pixels(artifact, pictures: list[Path]):
    classify = Classifier(open_artifact(artifact()), threads=1)
    images = [Image.open(path) for path in pictures]
    large = [image.resize((3 * SIZE, 2 * SIZE), Image.Resampling.NEAREST) for image in images]
    pixels = np.stack([classify.pixels(image) for image in images])
    assert pixels.shape == (7, SIZE, SIZE, 3)
    np.testing.assert_allclose(classify(pixels), [expected(image) for image in images], atol=1e-6)
    assert classify(large).shape == (7, 4)


def test_a_run_gives_the_answers_of_its_model(pictures: list[Path]):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    recipe = load_recipe(image_resize=SIZE, crop_pct=1.0, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    classify = ModelClassifier(Opened(model, recipe, NAMES, Weights({}, {}), []), device="cpu")
    images = [Image.open(path) for path in pictures]
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    batch = (torch.from_numpy(np.stack([np.asarray(image) for image in images])) / 255 - mean) / std
    with torch.no_grad():
        truth = model(batch.permute(0, 3, 1, 2)).softmax(-1).numpy()
    np.testing.assert_allclose(classify(images), truth, atol=1e-6)
    with pytest.raises(UsageError, match="no device 'gpu'"):
        ModelClassifier(Opened(model, recipe, NAMES, Weights({}, {}), []), device="gpu")


def test_invalid_outputs_of_a_network_are_refused(artifact, pictures: list[Path]):
    wrong = artifact("wrong", names=["too", "few"])
    with pytest.raises(DataError, match=r"returns \(1, 4\) for 1 images and 2 classes"):
        Classifier(open_artifact(wrong))([Image.open(pictures[0])])
    classify = Classifier(open_artifact(artifact()))
    classify._session = lambda images: np.full((len(images), 4), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match="not finite"):
        classify([Image.open(pictures[0])])


def test_every_way_to_name_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "b/2.jpg",
        "b/10.PNG",
        "b/deep/1.webp",
        "b/.hidden.jpg",
        "b/notes.txt",
        "a.jpg",
        "odd name",
        "[1].jpg",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    (tmp_path / "empty").mkdir()
    below = ["b/10.PNG", "b/2.jpg", "b/deep/1.webp"]
    assert find_images(["*.jpg"])[0] == ["[1].jpg", "a.jpg"]
    assert find_images(["[1].jpg"])[0] == ["[1].jpg"], "an existing file is not taken as a pattern"
    assert sorted(find_images(["b/*"])[0]) == sorted(find_images(["b/**"])[0]) == below
    (tmp_path / "b" / "deep" / "round").symlink_to(tmp_path / "b")
    assert find_images(["odd name", "b", "a.jpg", "a.jpg"]) == (
        ["odd name", *below, "a.jpg", "a.jpg"],
        ["left out: 1 .txt, 1 folder read before, 1 hidden"],
    )
    assert find_images(["a.jpg", "empty"]) == (["a.jpg"], ["no images in 'empty'"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\r\n\nnowhere.jpg\nb\n")))
    assert find_images(["-"])[0] == ["a.jpg", "nowhere.jpg", *below]
    with pytest.raises(DataError, match="no images in 'empty'; no images in 'b/n\\*'"):
        find_images(["empty", "b/n*"])
    with pytest.raises(DataError, match=r"'photos' and 'x\*' do not exist"):
        find_images(["photos", "a.jpg", "x*"])


def test_a_bad_image_does_not_affect_the_others(artifact, pictures: list[Path], capsys):
    bad = pictures[0].with_name("3a.jpg")
    bad.write_bytes(b"no image")
    source = artifact()
    with pytest.raises(DataError, match="1 of 8 images could not be read") as failure:
        answers(source, [pictures[0].parent], batch_size=3)
    assert failure.value.exit_code == 3
    printed = capsys.readouterr()
    assert f"error: cannot read the image '{bad}': not an image of a known format" in printed.err
    assert str(bad) not in printed.out
    found = json.loads((source.parent / "answers.json").read_text())
    assert [len(entry["predictions"]) for entry in found] == [4, 4, 4, 4, 0, 4, 4, 4]
    assert "not an image" in found[4]["error"]
    assert answers(source, [bad], on_bad_image="skip") == [found[4]]
    assert answers(source, [pictures[0].parent], on_bad_image="skip", batch_size=100) == found


def test_csv_can_be_read_back_and_contains_no_formula(artifact, pictures: list[Path], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("=cmd,1.png").write_bytes(pictures[1].read_bytes())
    predict(str(artifact()), ["=cmd,1.png", str(pictures[0])], csv=Path("out.csv"))
    with open("out.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "rank", "class", "probability"]
    assert [row[1] for row in rows] == ["1", "2", "3", "4"] * 2
    assert {row[2] for row in rows} == {"red, or so", '"green"', "'=blue", "-1"}
    assert {row[0] for row in rows} == {"./=cmd,1.png", str(pictures[0])}
    assert Path("./=cmd,1.png").exists(), "the path still names the file"
    assert sum(float(row[3]) for row in rows[:4]) == pytest.approx(1, abs=1e-5)
    assert Path("out.csv").read_bytes().count(b"\r\n") == 9


def test_printed_text(artifact, pictures: list[Path], capsys):
    predict(str(artifact()), [str(pictures[0])], top=2)
    path, first, second = capsys.readouterr().out.splitlines()
    truth = np.sort(expected(Image.open(pictures[0])))[::-1]
    assert path == str(pictures[0])
    assert first.split()[-2:] == [f"{100 * truth[0]:.2f}", "%"]
    assert second.split()[-2:] == [f"{100 * truth[1]:.2f}", "%"]
    assert first.index("%") == second.index("%")
    assert text_of(Answer("a\x1b[2J\n\udcff", [("b\x07", 0.5)])) == "a\\x1b[2J\\n\\udcff  b\\x07  50.00 %"


def test_files_that_cannot_be_written(artifact, pictures: list[Path], tmp_path: Path):
    source = str(artifact())
    for file, reason in ((tmp_path, "it is a folder"), (tmp_path / "no" / "a.csv", "there is no folder")):
        with pytest.raises(UsageError, match=reason):
            predict(source, [str(pictures[0])], csv=file)
    if os.path.exists("/dev/full"):
        with pytest.raises(DiskError, match="disk is full"):
            predict(source, [str(pictures[0])], json=Path("/dev/full"))


def test_pictures_of_the_answers(artifact, pictures: list[Path], tmp_path: Path, capsys):
    bad = pictures[0].with_name("3a.jpg")
    bad.write_bytes(b"no image")
    source, images = artifact(names=["red", "green", "blue", "cat\u732b"]), [pictures[0].parent]
    plain = answers(source, images, on_bad_image="skip")
    assert answers(source, images, on_bad_image="skip", overlay=tmp_path / "new" / "drawn", batch_size=2) == plain
    names = sorted(file.name for file in (tmp_path / "new" / "drawn").iterdir())
    assert names == [f"{number}.jpg" for number in range(7)], "none for an image that cannot be read"
    with Image.open(tmp_path / "new" / "drawn" / "0.jpg") as drawn:
        assert drawn.size == (360, 45 * SIZE + 4 * 24 + 16), "enlarged, and a line for each of the four classes"
    assert "mean probability" in capsys.readouterr().err
    with pytest.raises(UsageError, match="none is overwritten"):
        answers(source, images, overlay=tmp_path / "new" / "drawn")


def test_the_table_is_not_among_the_answers(artifact, pictures: list[Path], capsys):
    folder = pictures[0].parent.parent / "=blue"
    pictures[0].parent.rename(folder)
    predict(str(artifact()), [str(folder)], top=1)
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 7
    assert "mean probability" not in printed.out
    right = sum(line.split("  ")[1] == "=blue" for line in printed.out.splitlines())
    assert f"the folders name classes: {right} of 7 right" in printed.err
    predict(str(artifact("second")), [str(folder / "0.png")])
    assert not capsys.readouterr().err, "no table of one image"


def test_heat_maps_need_gradients(artifact, pictures: list[Path], tmp_path: Path):
    with pytest.raises(UsageError, match="an exported network has no gradients") as failure:
        predict(str(artifact()), [str(pictures[0])], heatmap=tmp_path / "heat", csv=tmp_path / "out.csv")
    assert "give the run" in (failure.value.help or "")
    assert not (tmp_path / "heat").exists()
    assert not (tmp_path / "out.csv").exists(), "nothing was begun"
    with pytest.raises(UsageError, match="two kinds of pictures"):
        predict(str(artifact("second")), [str(pictures[0])], heatmap=tmp_path / "a", overlay=tmp_path / "a")


@pytest.mark.parametrize("name", ["fastvit_t8", "vit_ti_patch16"])
def test_heat_maps_of_a_run(name: str, pictures: list[Path], tmp_path: Path):
    checkpoint(tmp_path / "run", name, 4)
    predict(
        str(tmp_path / "run"), [str(pictures[0].parent)], heatmap=tmp_path / "heat", overlay=tmp_path / "drawn",
        batch_size=4, device="cpu",
    )  # fmt: skip
    for folder in ("heat", "drawn"):
        assert len([*(tmp_path / folder).iterdir()]) == 7
    with Image.open(tmp_path / "heat" / "0.jpg") as drawn:
        assert drawn.size == (360, 45 * SIZE + 24 + 16)


def test_heat_maps_of_a_class(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All maps are about the class that was named, whatever the answer is."""
    drawn: list[tuple[str, float]] = []
    with_heat = pictures_module.with_heat

    def draw(*words: Any) -> Image.Image:
        drawn.append(words[-2:])
        return with_heat(*words)

    monkeypatch.setattr(pictures_module, "with_heat", draw)
    checkpoint(tmp_path / "run", "vit_ti_patch16", 4)
    network, folder = tmp_path / "run", str(pictures[0].parent)
    file = tmp_path / "answers.json"
    for name in ("c2", None):
        predict(str(network), [folder], heatmap=tmp_path / f"heat-{name}", heatmap_class=name, json=file, device="cpu")
    rows = json.loads(file.read_text())
    assert [name for name, _ in drawn] == ["c2"] * 7 + [row["predictions"][0]["class"] for row in rows]
    of_third = [next(one["probability"] for one in row["predictions"] if one["class"] == "c2") for row in rows]
    assert [probability for _, probability in drawn[:7]] == pytest.approx(of_third, abs=1e-6)
    with pytest.raises(UsageError, match="no class '2c'") as failure:
        predict(str(network), [folder], heatmap=tmp_path / "new", heatmap_class="2c", device="cpu")
    assert failure.value.help == "did you mean 'c2'?"
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="no effect without --heatmap"):
        predict(str(network), [folder], heatmap_class="c2", device="cpu")


#: packages that are slow to load, or that artifacts of another format do not need
HEAVY = {
    "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "openvino_telemetry", "nncf",
    "executorch", "torchao", "safetensors", "tensorboard", "scipy", "sklearn", "transformers",
}  # fmt: skip

_WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision"):
    sys.modules[name] = None  # importing it raises ImportError
from vitcli.cli import main
try:
    main(sys.argv[1:])
finally:
    print("loaded", *(name for name, module in sys.modules.items() if module), file=sys.stderr)
"""


def without_torch(*words: object, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", _WITHOUT_TORCH, *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=environment(), input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_no_torch_is_loaded(form: str, artifact, pictures: list[Path], tmp_path: Path):
    words = ("predict", artifact(format=form), "-", "--top", 1, "--overlay", "drawn")
    done = without_torch(*words, cwd=tmp_path, stdin=f"{pictures[0]}\n")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn" / "0.jpg").exists()
    assert done.stdout.startswith(str(pictures[0]))
    loaded = {name.split(".")[0] for name in done.stderr.split("loaded ")[1].split()}
    assert loaded & HEAVY == {{"onnx": "onnxruntime", "openvino": "openvino"}[form]}


@pytest.mark.parametrize("words", [("--help",), ("predict", "--help"), ("bench", "infer", "--help")])
def test_help_needs_no_torch(words: tuple[str, ...], tmp_path: Path):
    done = without_torch(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout or "timm:NAME" in done.stdout
