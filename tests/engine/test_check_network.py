"""A training that cannot fit into the memory is refused before it takes any."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vitcli.data.sampler import BatchPlan
from vitcli.distributed import World
from vitcli.engine import check_network
from vitcli.errors import UsageError
from vitcli.process import available_memory
from vitcli.recipe.load import Recipe, load_recipe

#: parameters of the model of these tests
COUNT = 5_717_416  # timm's vit_tiny_patch16_224, with 1000 classes


def check(recipe: Recipe, world: World) -> None:
    plan = BatchPlan(num_samples=100, batch_size=10, world_size=world.size)
    check_network.check_network(recipe, world, plan, [str(number) for number in range(1000)])


def world(size: int = 1, device: str = "cpu") -> World:
    return World(0, size, 0, size, torch.device(device))


@pytest.mark.parametrize(
    ("keys", "processes", "bytes_each"),
    [
        ({}, 1, 28),  # weights, gradients, two moments; in the copy for a checkpoint all but the gradients
        ({"ckpt_async": False}, 1, 16),
        ({"ckpt_async": False, "ema": True}, 1, 20),
        ({"ckpt_async": False, "opt": "sgd", "momentum": 0.9}, 1, 12),
        ({"ckpt_async": False, "opt": "sgd", "momentum": 0}, 1, 8),
        ({"ckpt_async": False, "opt": "adamw_8bit"}, 1, 10),
        ({"ckpt_async": False}, 4, 64),
        ({"ckpt_async": False, "parallel": "fsdp"}, 4, 16),
        ({"ckpt_async": False, "freeze": "backbone"}, 1, 4),
        ({"ema": True}, 2, 2 * 20 + 16),
    ],
)
def test_what_a_training_takes(keys: dict[str, Any], processes: int, bytes_each: int, monkeypatch: pytest.MonkeyPatch):
    recipe = load_recipe(model="vit_ti_patch16", **keys)
    monkeypatch.setattr(check_network, "available_memory", lambda: COUNT * bytes_each)
    check(recipe, world(processes))
    monkeypatch.setattr(check_network, "available_memory", lambda: COUNT * bytes_each - 1)
    with pytest.raises(UsageError, match=f"vit_ti_patch16 has {COUNT:,} parameters for images of 224 x 224 px"):
        check(recipe, world(processes))
    monkeypatch.setattr(check_network, "available_memory", lambda: None)
    check(recipe, world(processes))


def test_nothing_random_is_used(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_rng_state()
    check(load_recipe(model="fastvit_t8"), world())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_left(tmp_path: Path):
    whole = available_memory(tmp_path)
    assert whole is None or 2**20 < whole < 2**50
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) is None or available_memory(tmp_path) > 2**20
    (tmp_path / "memory.max").write_text("4096\n")
    assert available_memory(tmp_path) in (None, 4096)
