"""Runs with low-bit moments: rates of layers, frozen weights and a step left out, and a resume to the last bit."""

import pytest
import torch
from safetensors.torch import save
from torch import nn

from tests.engine.test_nonfinite import poison
from vitcli.engine import saving
from vitcli.engine.resume import ResumePoint
from vitcli.engine.state import optimizer_tensors, restore
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.optim.freeze import freeze
from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.weights.json_file import read_json

LARGE = "network.3.weight"


@pytest.fixture
def layered(make):
    """A run whose network has a large layer in the middle, a frozen first one, and half the rate in each layer below.

    Step 2 is not finite and left out.
    """

    def training(opt: str) -> Training:
        training = make(opt=opt, lr=0.01, on_nonfinite="skip")
        network = training.task.network
        network.insert(3, nn.Linear(64, 64))
        network.layer_of, network.num_layers = lambda name: int(name.split(".")[0]), 5
        freeze(network, [r"^0\."])
        groups = param_groups(training.task, weight_decay=0.05, weight_decay_filter="auto", layer_decay=0.5)
        training.optimizer = build_optimizer(training.recipe.optimizer, groups, training.world.device, training.task)
        return poison(training, 2)

    return training


def bits(training: Training) -> bytes:
    """All that training changes."""
    return save(training.task.state_dict() | optimizer_tensors(training.optimizer, training.task))


@pytest.mark.parametrize("opt", ["adamw_bf16", "adamw_fp8", "adamw_8bit", "adamw_4bit"])
def test_a_run_continues_to_the_last_bit(layered, opt: str):
    whole = layered(opt)
    first, large = whole.task.network[0].weight.clone(), whole.task.network[3].weight.clone()
    batches = iter(whole.batches(start_step=0))
    for step in range(4):
        before = bits(whole)
        train_step(whole, batches)
        assert (bits(whole) == before) == (step == 1), "step 2 is left out"
        if step == 2:
            saving.save(whole)
            saving.settle(whole)
    rates = {name: group["lr"] for group in whole.optimizer.param_groups for name in group["names"]}
    assert rates[LARGE] == rates["network.4.weight"] / 2
    assert torch.equal(whole.task.network[0].weight, first)
    assert not torch.equal(whole.task.network[3].weight, large)
    state = optimizer_tensors(whole.optimizer, whole.task)
    assert f"exp_avg.codes/{LARGE}" in state
    assert "exp_avg/network.4.weight" in state
    assert state[f"step/{LARGE}"] == 3
    again = layered(opt)
    folder = whole.run_dir / "checkpoints" / "step-00000003"
    restore(again, ResumePoint(folder, read_json(folder / "state.json")))
    train_step(again, iter(again.batches(start_step=3)))
    assert bits(again) == bits(whole)
