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
    """A `Training` from recipe keys: of `network`, or of a small one, with BatchNorm if `norm`."""

    def training(
        *, norm: bool = False, where: str = "cpu", network: nn.Module | None = None, **keys: object
    ) -> Training:
        recipe = load_recipe(None, **(BASE | keys))
        world = World(0, 1, 0, 1, torch.device(where))
        run_dir = tmp_path / "run"
        (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        splits = build_splits(recipe.dataset)
        torch.manual_seed(0)
        network = network or small_network(norm=norm)
        return build_training(recipe, world, run_dir, splits, Reporter(enabled=False), fresh=True, network=network)

    return training


def small_network(*, norm: bool) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(64, 10))
    if norm:
        network.insert(1, nn.BatchNorm2d(4))
    return network
