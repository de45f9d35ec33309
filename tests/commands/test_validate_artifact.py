"""`vitcli validate OUT`: every image counted once, by the artifact's own classes; what cannot be changed is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands.conftest import SIZE, expected
from tests.support.commands import run_here
from vitcli.commands.validate import validate
from vitcli.data.mixing import Normalizer
from vitcli.deploy.artifact import open_artifact
from vitcli.deploy.bridges import ExportedNetwork, seen_by
from vitcli.errors import DataError
from vitcli.recipe.load import load_recipe

CLASSES = ["blue", "dark", "green", "red"]


@pytest.fixture
def colors(tmp_path: Path) -> tuple[Path, list[tuple[int, np.ndarray]]]:
    """An image folder of ten images in three of four classes; (label, probabilities by hand) of each."""
    generator = np.random.default_rng(1)
    root, truth = tmp_path / "colors", []
    for label, count in ((0, 4), (2, 5), (3, 1)):
        folder = root / "val" / CLASSES[label]
        folder.mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) // (1 + number))
            image.save(folder / f"{number}.png")
            truth.append((label, expected(image)))
    return root, truth


@pytest.mark.parametrize("kind", [{}, {"format": "openvino"}, {"batch": 4}, {"pixels": False}])
def test_counts_are_those_computed_by_hand(kind: dict, artifact, colors, tmp_path: Path, capsys):
    root, truth = colors
    out = artifact(names=CLASSES, **kind)
    words = ["--data_dir", root, "--batch_size", 3, "--num_parallel_workers", 0, "--json", tmp_path / "result.json"]
    assert run_here("validate", out, *words) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["num_images"] == 10
    right = sum(int(scores.argmax()) == label for label, scores in truth)
    assert found["correct1"] == right
    assert 0 < right < 10
    assert found["correct5"] == 10, "five of four classes are all of them"
    assert found["nll"] == pytest.approx(np.mean([-math.log(scores[label]) for label, scores in truth]), abs=1e-5)
    assert found["format"] == kind.get("format", "onnx")
    printed = capsys.readouterr().out
    for words in (f"{10 * right:.2f} %  ({right} correct", "1 of 4 classes have no validation images: 'dark'", "fp32"):
        assert words in printed


def test_a_probability_of_zero_does_not_outweigh_all_others(artifact, colors, monkeypatch: pytest.MonkeyPatch):
    from vitcli.deploy.classify import Classifier

    sure = np.array([0, 0, 1, 0], dtype=np.float32)  # right for the five green images, wrong for the others
    monkeypatch.setattr(Classifier, "_probabilities", lambda self, pixels: np.tile(sure, (len(pixels), 1)))
    root, _ = colors
    recipe = load_recipe(ckpt_path=artifact(names=CLASSES), data_dir=root, num_parallel_workers=0)
    found = validate(recipe)
    assert (found["correct1"], found["num_images"]) == (5, 10)
    assert found["nll"] == pytest.approx(-math.log(np.finfo(np.float32).tiny) / 2)


@pytest.mark.parametrize("channels", [3, 1])
def test_the_network_of_an_artifact_gets_the_pixels_unchanged(channels: int, artifact, monkeypatch):
    """All 256 values survive the normalization of an evaluation, in both image formats."""
    opened = open_artifact(artifact(channels=channels))
    network, recipe = ExportedNetwork(opened), seen_by(opened, load_recipe())
    classify = network.classify
    pixels = torch.arange(4 * SIZE * SIZE).remainder(256).to(torch.uint8).view(4, 1, SIZE, SIZE)
    pixels = pixels.repeat(1, channels, 1, 1)
    normalize = Normalizer(recipe.augmentation.mean, recipe.augmentation.std, channels)
    given = []
    monkeypatch.setattr(network, "classify", lambda images: given.append(images) or classify(images))
    images = [Image.fromarray(one.permute(1, 2, 0).squeeze(-1).numpy()) for one in pixels]
    np.testing.assert_allclose(network(normalize(pixels)).exp(), [expected(i, channels) for i in images], atol=1e-6)
    np.testing.assert_array_equal(given[0], pixels.permute(0, 2, 3, 1))


def test_the_recipe_in_the_artifact_supplies_the_data(artifact, colors, capsys):
    """As a run does; an option or another recipe overrides it."""
    root, _ = colors
    recipe = f"data_dir: {root}\nval_split: val\nval_batch_size: 4\nmodel: of_a_plugin\n"
    out = artifact(names=CLASSES, recipe=recipe)
    assert run_here("validate", out, "--num_parallel_workers", 0) == 0
    assert run_here("validate", out, "--val_split", "test") == 3
    assert "no folder 'test'" in capsys.readouterr().err
    assert run_here("validate", out, "-c", "quickstart") == 3
    assert "no class of the data ('0', '1', '2', …) is a class of the network" in capsys.readouterr().err


def test_classes_with_other_names(artifact, colors, capsys):
    """Names must be those of the folders; only numbers that stand for no names are taken in the folders' order."""
    root, _ = colors
    (root / "val" / "dark").mkdir()
    Image.new("RGB", (SIZE, SIZE)).save(root / "val" / "dark" / "0.png")
    words = "--data_dir", root, "--num_parallel_workers", 0
    assert run_here("validate", artifact("nameless", names=[f"class {number}" for number in range(4)]), *words) == 0
    assert "taken in sorted order" in capsys.readouterr().out
    for name, recipe in (("hub", None), ("ours", "lr: 1\n")):
        assert (
            run_here("validate", artifact(name, names=["sea", "night", "grass", "rose, red"], recipe=recipe), *words)
            == 3
        )
        assert "is a class of the network ('sea', 'night', 'grass', …)" in capsys.readouterr().err
    bad = root / "val" / "red" / "bad.png"
    bad.write_text("no image")
    images_error = run_here("validate", artifact("good", names=CLASSES), *words)
    assert images_error == DataError.exit_code
    assert "bad.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--crop_pct", "1.0", "--model", "vit_b_patch16"],
            "--crop_pct, --model: an exported network",
        ),
        (["--fold", "full", "--eval-crops", "5"], "--fold, --eval_crops: an exported network can no longer be changed"),
        (["--use_ema", "False"], "--use_ema: an exported network"),
        (["--ckpt_path", "run"], "and --ckpt_path name what to validate"),
        (["another", "third"], "unexpected argument 'third'"),
        (["--bacth_size", "3"], "did you mean `--batch_size`?"),
        (["--json", "no/such/folder.json"], "there is no folder no/such"),
    ],
)
def test_what_cannot_be_changed_about_an_artifact(words: list[str], message: str, artifact, capsys):
    assert run_here("validate", artifact(), *words) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", "").split())


@pytest.mark.parametrize("words", [["nowhere"], ["--ckpt_path", "nowhere"], ["--batch_size", "2", "nowhere"]])
def test_anything_else_is_opened_as_ckpt_path(words: list[str], capsys):
    assert run_here("validate", "--dataset", "synthetic", *words) == 3
    assert "nowhere does not exist" in capsys.readouterr().err


def test_unknown_options_keep_their_values(capsys):
    assert run_here("validate", "--lrr", "3", "nowhere") == 2
    assert "unknown key `--lrr`" in capsys.readouterr().err


def test_a_changed_artifact_is_refused(artifact, capsys):
    out = artifact()
    (out / "labels.txt").write_text("a\nb\nc\nd\n")
    assert run_here("validate", out, "--dataset", "synthetic") == 3
    assert "labels.txt has 8 bytes instead of" in capsys.readouterr().err
