"""`vitcli data preview`: the pictures are those of the first training batch, on a page that can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.commands import options, run_here
from vitcli.data.contact_sheet import Cell, contact_sheet, displayed
from vitcli.distributed import World
from vitcli.engine.build import build_training
from vitcli.engine.first_batch import denormalized, first_batches, label
from vitcli.engine.opened_data import open_data
from vitcli.log import Reporter
from vitcli.recipe.load import load_recipe

KEYS = {
    "dataset": "digits", "model": "fvit", "depth": 1, "image_resize": 32, "batch_size": 8, "num_parallel_workers": 0,
    "mixup": 0.8, "re_prob": 0.5, "auto_augment": "rand-m9-mstd0.5-inc1", "device": "cpu",
}  # fmt: skip
ALONE = World(0, 1, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize("task", [{}, {"task": "byol", "mixup": 0, "projector_hidden_dim": 8, "projector_dim": 8}])
def test_the_first_draw_is_what_training_begins_with(tmp_path: Path, task: dict):
    recipe, splits = open_data(load_recipe(None, **KEYS | task), Reporter(enabled=False))
    training = build_training(recipe, ALONE, tmp_path / "no run", splits, Reporter(enabled=False), fresh=True)
    first = next(iter(training.batches(start_step=0)))
    expected = training.task.prepare(first, recipe.system.seed)
    draws = list(first_batches(training.recipe, ALONE, splits, training.plan, training.task, 2))
    assert torch.equal(draws[0].indices, expected.indices)
    assert torch.equal(draws[0].targets, expected.targets)
    for view, other in zip(draws[0].views, expected.views, strict=True):
        assert torch.equal(view, other)
    assert torch.equal(draws[1].indices, expected.indices), "the same images"
    assert (draws[1].epoch, draws[1].step) == (1, training.plan.steps_per_epoch)
    assert not torch.equal(draws[1].views[0], expected.views[0])
    assert not (tmp_path / "no run").exists()


def test_pixels_come_back_from_normalization():
    recipe = load_recipe(None)
    pixels = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (recipe.augmentation.mean, recipe.augmentation.std))
    picture = denormalized((pixels / 255 - mean) / std, recipe)
    assert np.array_equal(np.asarray(picture), pixels.permute(1, 2, 0).numpy())


def test_pictures_of_any_number_of_channels():
    values = np.random.default_rng(0).random((6, 4, 5))
    assert displayed(values[:1]).mode == displayed(values[:2]).mode == "L"
    assert displayed(values).mode == "RGB"
    assert np.array_equal(np.asarray(displayed(values))[..., 2], (values[2] * 255).round())


def test_labels_say_the_shares():
    assert label(torch.tensor(1), ["cat", "dog"]) == "dog"
    assert label(torch.tensor([0.3, 0.7, 0.0]), ["cat", "dog", "emu"]) == "dog 0.70 / cat 0.30"
    assert label(torch.tensor([0.0, 1.0]), ["cat", "dog"]) == "dog"
    assert label(None, []) == "no label"


def test_a_page_shows_each_pixel_and_survives_any_name():
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    name = "\x00\n" + "a very long name of a class " * 9
    page = np.asarray(contact_sheet("title", "", ["one", "two"], [[Cell((picture,), name), Cell((picture,) * 2, "")]]))
    large = pixels.repeat(5, 0).repeat(5, 1)
    windows = np.lib.stride_tricks.sliding_window_view(page, (160, 160, 3))[:, :, 0]
    likely = np.argwhere((windows[:, :, ::40, ::40] == large[::40, ::40]).all((2, 3, 4)))
    assert sum(np.array_equal(windows[row, column], large) for row, column in likely) == 3


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["data", "preview", *options(KEYS), "-o", tmp_path / "page.png"]
    assert run_here(*words, "--num_images", 2, "--num_draws", 1, "--in_channels", 1) == 0
    with Image.open(tmp_path / "page.png") as page:
        assert page.mode == "RGB"
    assert [file.name for file in tmp_path.iterdir()] == ["page.png"]
    assert run_here(*words[:-1], tmp_path / "page.txt") == 2
    assert run_here(*words, "--batch_size", 5000) == 3
    assert "fewer than one global batch" in capsys.readouterr().err


def test_a_few_images_need_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("vitcli.engine.build_batches.CachedImages")
    assert run_here("data", "preview", *options(KEYS | {"cache": "ram"}), "-o", tmp_path / "page.png") == 0


def test_no_weights_are_needed(tmp_path: Path):
    """The recipe is for fine-tuning, which a training refuses without weights."""
    assert run_here("data", "preview", "-c", "finetune", *options(KEYS), "-o", tmp_path / "page.png") == 0
