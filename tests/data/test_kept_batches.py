"""Evaluation batches in memory: made once, the same ones, and made again where that is needed."""

import pytest
import torch

from tests.support.images import photo
from vitcli.data.datasets import build_split
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.kept_batches import KeptBatches
from vitcli.data.loader import build_eval_loader
from vitcli.recipe.schema import Augmentation, Dataset


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "val/cat").mkdir(parents=True)
    for number in range(5):
        photo(12, 12, number).save(tmp_path / f"val/cat/{number}.png")
    return tmp_path


def kept(folder, **options) -> KeptBatches:
    images, transform = build_split(Dataset(data_dir=folder), "val"), build_eval_transform(Augmentation(image_resize=8))
    return KeptBatches(build_eval_loader(images, transform, batch_size=2, on_bad_image="list"), **options)


def spoil(folder) -> None:
    for file in (folder / "val/cat").iterdir():
        file.write_bytes(b"no image")


def pixels(batches) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches])


def test_images_are_read_once(folder):
    batches = kept(folder)
    first = pixels(batches)
    spoil(folder)
    assert torch.equal(pixels(batches), first)
    assert len(first) == 5
    assert len(batches) == 3


def test_an_interrupted_evaluation_keeps_nothing(folder):
    batches = kept(folder)
    next(iter(batches))
    spoil(folder)
    assert all(batch.bad for batch in batches)


def test_a_repaired_image_is_read_again(folder):
    content = (folder / "val/cat/1.png").read_bytes()
    (folder / "val/cat/1.png").write_bytes(b"no image")
    batches = kept(folder)
    assert len(pixels(batches)) == 4
    (folder / "val/cat/1.png").write_bytes(content)
    assert len(pixels(batches)) == 5


@pytest.mark.parametrize(("room", "fits"), [(2 * 5 * 3 * 64, True), (2 * 5 * 3 * 64 - 1, False)])
def test_no_more_than_half_of_the_memory(folder, room: int, fits: bool):
    batches = kept(folder, available=lambda: room)
    assert len(pixels(batches)) == 5
    assert (batches.kept is not None) == fits
    assert len(pixels(batches)) == 5
