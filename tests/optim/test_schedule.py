"""Schedules against numbers computed by others: Apple's and MindCV's runs, torch's schedulers."""

import math

import pytest
import torch

from vitcli import catalog
from vitcli.errors import RecipeError
from vitcli.optim.schedule import accumulation_steps, learning_rate, scaled_lr
from vitcli.recipe.load import load_recipe
from vitcli.recipe.schema import Scheduler

STEPS = 1251  # 1,281,167 images // 1024


def by_epoch(name: str, epoch: int) -> float:
    section = load_recipe(name).scheduler
    return learning_rate(epoch * STEPS, STEPS, section)


def cosine(low: float, high: float, share: float) -> float:
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * share))


#: epoch -> rate at its first step, worked out by hand from the rules of the two projects
APPLE = {
    0: 1e-6, 1: 1e-6 + 0.999e-3 / 5, 4: 1e-6 + 4 * 0.999e-3 / 5, 5: cosine(1e-5, 1e-3, 5 / 300),
    10: cosine(1e-5, 1e-3, 10 / 300), 100: 7.525e-4, 150: 5.05e-4, 200: 2.575e-4, 299: cosine(1e-5, 1e-3, 299 / 300),
    300: 1e-5, 309: 1e-5,
}  # fmt: skip
MINDCV = {
    0: 1e-5, 1: 2.08e-4, 5: 1e-3, 10: cosine(0, 1e-3, 5 / 295), 100: cosine(0, 1e-3, 95 / 295),
    150: cosine(0, 1e-3, 145 / 295), 200: cosine(0, 1e-3, 195 / 295), 299: cosine(0, 1e-3, 294 / 295),
}  # fmt: skip
#: the same as printed from runs of the two projects, to the digits they were printed with
PRINTED = [
    ("fastvit_t8", {1: 2.008e-4, 4: 8.002e-4, 5: 9.993e-4, 10: 9.973e-4, 100: 7.525e-4, 299: 1.0e-5}, 4e-8),
    ("mindcv_fastvit_t8", {1: 2.08e-4, 10: 9.993e-4, 100: 7.652e-4, 150: 5.133e-4, 200: 2.578e-4, 299: 3e-8}, 8e-8),
]


@pytest.mark.parametrize("epoch", APPLE)
def test_apple(epoch: int):
    assert by_epoch("fastvit_t8", epoch) == pytest.approx(APPLE[epoch], abs=1e-9)


@pytest.mark.parametrize("epoch", MINDCV)
def test_mindcv(epoch: int):
    assert by_epoch("mindcv_fastvit_t8", epoch) == pytest.approx(MINDCV[epoch], abs=1e-9)


@pytest.mark.parametrize(("name", "table", "tolerance"), PRINTED)
def test_printed_rates(name: str, table: dict[int, float], tolerance: float):
    for epoch, rate in table.items():
        assert by_epoch(name, epoch) == pytest.approx(rate, abs=tolerance)


def test_stepped_once_an_epoch_or_every_step():
    apple, mindcv = load_recipe("fastvit_t8").scheduler, load_recipe("mindcv_fastvit_t8").scheduler
    rates = [learning_rate(50 * STEPS + i, STEPS, apple) for i in (0, 1, STEPS - 1)]
    assert len(set(rates)) == 1
    rates = [learning_rate(50 * STEPS + i, STEPS, mindcv) for i in (0, 1, STEPS - 1)]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 3


def torch_rates(make, section: Scheduler, num_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=section.lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


AGAINST_TORCH = {
    "one_cycle": ({}, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=60)),
    "constant": ({}, lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    "cosine_decay": ({"min_lr": 0.001}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 60, 0.001)),
    "linear_decay": ({}, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 60)),
    "polynomial_decay": ({"decay_rate": 2.0}, lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 60, 2.0)),
    "exponential_decay": ({"decay_rate": 0.9}, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9**0.1)),
    "step_decay": ({"decay_rate": 0.5, "decay_epochs": 2}, lambda o: torch.optim.lr_scheduler.StepLR(o, 20, 0.5)),
    "multi_step_decay": (
        {"decay_rate": 0.5, "multi_step_decay_milestones": (1, 4)},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [10, 40], 0.5),
    ),
}


@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_equals_torch(name: str):
    """Six epochs of ten steps, no warm-up."""
    keys, make = AGAINST_TORCH[name]
    section = Scheduler(scheduler=name, lr=0.1, epoch_size=6, **keys)
    ours = [learning_rate(step, 10, section) for step in range(60)]
    assert ours == pytest.approx(torch_rates(make, section, 60), abs=1e-9)


def test_restarts():
    section = Scheduler(scheduler="cosine_decay", lr=1.0, epoch_size=9, num_cycles=3, cycle_decay=0.5)
    peaks = [learning_rate(epoch, 1, section) for epoch in (0, 3, 6)]
    assert peaks == pytest.approx([1.0, 0.5, 0.25])


def test_cooldown_stays_at_the_floor():
    section = Scheduler(scheduler="linear_decay", lr=1.0, min_lr=0.1, epoch_size=10, warmup_epochs=2, cooldown_epochs=3)
    rates = [learning_rate(epoch, 1, section) for epoch in range(10)]
    assert rates[2] == 1.0
    assert rates[7:] == [0.1] * 3
    assert rates[6] > 0.1


@pytest.mark.parametrize(("rule", "expected"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_scaling(rule: str, expected: float):
    factor, said = scaled_lr(Scheduler(lr=1e-3, lr_base_batch=256, lr_scale=rule), 1024)
    assert factor == pytest.approx(expected)
    assert "1024" in said
    assert f"lr {1e-3 * expected:g}" in said
    section = Scheduler(lr=1e-3, min_lr=1e-5, lr_base_batch=256, epoch_size=5, warmup_epochs=1, warmup_lr=1e-4)
    for epoch in range(5):
        assert learning_rate(epoch, 1, section, factor) == pytest.approx(factor * learning_rate(epoch, 1, section))
    assert scaled_lr(Scheduler(lr=1e-3), 1024)[0] == 1.0, "without lr_base_batch: as it is"


def test_accumulation_follows_from_the_global_batch():
    assert accumulation_steps(128, 8, 1, 1024) == 1
    assert accumulation_steps(128, 1, 1, 1024) == 8
    assert accumulation_steps(128, 2, 3, None) == 3
    with pytest.raises(RecipeError, match="batch_size 64 fits"):
        accumulation_steps(96, 1, 1, 1024)


@pytest.mark.parametrize("name", catalog.SCHEDULES)
def test_every_schedule_of_the_catalog_starts_at_or_below_lr(name: str):
    section = Scheduler(scheduler=name, lr=0.1, epoch_size=6)
    assert 0 < learning_rate(0, 10, section) <= 0.1
