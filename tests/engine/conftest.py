"""A small training run, made from recipe keys."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vitcli.data.datasets import build_splits
from vitcli.distributed import World
from vitcli.engine.build import build_training
from vitcli.engine.training import Training
from vitcli.log import Reporter
from vitcli.recipe.load import load_recipe

BASE = {
    "dataset": "synthetic", "num_samples": 64, "image_resize": 16, "batch_size": 16, "epoch_size": 2, "lr": 0.1,
    "opt": "sgd", "momentum": 0.9, "num_parallel_workers": 0, "hflip": 0.0,
}  # fmt: skip


@pytest.fixture
def make(tmp_path: Path):
    """A `Training` of a small network, with BatchNorm if `norm`, from recipe keys."""

    def training(*, norm: bool = False, **keys: object) -> Training:
        recipe = load_recipe(None, **(BASE | keys))
        world = World(0, 1, 0, 1, torch.device("cpu"))
        run_dir = tmp_path / "run"
        (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        splits = build_splits(recipe.dataset)
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(64, 10))
        if norm:
            network.insert(1, nn.BatchNorm2d(4))
        reporter = Reporter(enabled=False)
        return build_training(recipe, world, run_dir, splits, reporter, fresh=True, network=network)

    return training
