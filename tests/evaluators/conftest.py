"""What all evaluators are tested with: small splits in memory, and a network whose features are easy to compute."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vitcli.data.datasets import Splits, build_splits
from vitcli.data.source import ArrayImages
from vitcli.distributed import World
from vitcli.evaluators.evaluator import Setting
from vitcli.recipe.load import load_recipe

SIDE = 8
MakeSetting = Callable[..., Setting]


class Pixels(nn.Module):
    """Its features are the pixels; like every model it has `to_latent` before its head."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.to_latent = nn.Identity()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(3 * SIDE * SIDE, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.to_latent(x.flatten(1))))


def source(num_images: int, num_classes: int, seed: int = 0) -> ArrayImages:
    """Random images of SIDE x SIDE with random labels."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (num_images, SIDE, SIDE, 3), dtype=np.uint8)
    return ArrayImages(pixels, generator.integers(0, num_classes, num_images), [*"abcdefghij"][:num_classes], "noise")


class Unlabeled(ArrayImages):
    """`source` without its labels."""

    def __init__(self, num_images: int) -> None:
        images = source(num_images, 2)
        super().__init__(images.pixels, images.targets, images.class_names, "noise")
        self.targets = self.class_names = None

    def __len__(self) -> int:
        return len(self.rows)


def pixels(images: ArrayImages) -> torch.Tensor:
    """(N, 3 * SIDE * SIDE) as `Pixels` sees them: /255, mean 0.5, std 0.25."""
    rows = [np.asarray(images.load(index).convert("RGB"), dtype=np.float32) for index in range(len(images))]
    return torch.from_numpy((np.stack(rows) / 255 - 0.5) / 0.25).permute(0, 3, 1, 2).flatten(1)


@pytest.fixture
def setting() -> MakeSetting:
    def make(val: ArrayImages | None, train: ArrayImages | None = None, *, crops=None, **keys) -> Setting:
        recipe = load_recipe(
            image_resize=SIDE, crop_pct=1.0, mean=[0.5], std=[0.25], batch_size=7, num_parallel_workers=0, **keys
        )
        world = World(0, 1, 0, 1, torch.device("cpu"))
        return Setting(recipe, val, world, partial(torch.autocast, "cpu", enabled=False), train, crops)

    return make


@pytest.fixture(scope="session")
def digits() -> Splits:
    return build_splits(load_recipe(dataset="digits").dataset)
