"""One step: accumulation is arithmetic, NaN never reaches a weight, clipping clips, the loss scaler is saved."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from vitcli.data.batch import Batch
from vitcli.engine.loop import fit
from vitcli.engine.meter import MAX_DROPPED_IN_A_ROW
from vitcli.engine.resume import ResumePoint
from vitcli.engine.saving import save, settle
from vitcli.engine.signals import StopFlag
from vitcli.engine.state import restore
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.errors import DivergedError
from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.weights.json_file import read_json


def resumed(training: Training, run: Training, step: int) -> Training:
    """`training` at the checkpoint that `run` saved at `step`."""
    folder = run.run_dir / "checkpoints" / f"step-{step:08d}"
    restore(training, ResumePoint(folder, read_json(folder / "state.json")))
    return training


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.task.parameters()])


def test_accumulation_equals_the_large_batch(make):
    """4 x 4 images, 2 x 8 and 1 x 16 give the same weights, up to rounding, because a step's images are the same."""
    results = []
    for batch_size in (4, 8, 16):
        training = make(batch_size=batch_size, global_batch_size=16)
        batches = iter(training.batches(start_step=0))
        for _ in range(3):
            train_step(training, batches)
        results.append(weights(training))
    assert torch.allclose(results[0], results[2], atol=1e-6)
    assert torch.allclose(results[1], results[2], atol=1e-6)


def test_ragged_last_step_is_the_mean_over_its_images(make):
    """22 images by 16: the last step holds 6, in blocks of 2 and 1; its loss is the mean over the 6."""
    losses = []
    for batch_size in (4, 16):
        training = make(batch_size=batch_size, global_batch_size=16, num_samples=22, drop_remainder=False)
        batches = iter(training.batches(start_step=0))
        train_step(training, batches)
        training.meter.reset()
        train_step(training, batches)
        assert training.meter.images == 6
        losses.append(training.meter.sums["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("opt", ["adamw", "sgd", "rmsprop", "muon", "lamb"])
def test_nan_never_reaches_a_weight(make, opt: str):
    """Optimizers that can drop a step on the device, and those that cannot."""
    training = make(opt=opt, log_interval=1)
    prepare, before = training.task.prepare, {}

    def poisoned(batch: Batch, seed: int) -> Batch:
        if batch.step == 2:
            before["weights"] = weights(training)
            return replace(batch, views=(torch.full_like(batch.images, float("inf"), dtype=torch.float32),))
        return prepare(batch, seed)

    training.task.prepare = poisoned
    with pytest.raises(DivergedError, match="in step 3"):
        fit(training, StopFlag())
    assert torch.equal(weights(training), before["weights"])
    assert weights(training).isfinite().all()
    assert not list((training.run_dir / "checkpoints").iterdir())


def test_clipping(make):
    """With a norm of at most 1e-3 and a rate of 1, plain SGD moves by at most 1e-3."""
    training = make(clip_grad=True, clip_value=1e-3, lr=1.0, momentum=0.0, weight_decay=0.0)
    before = weights(training)
    train_step(training, iter(training.batches(start_step=0)))
    assert (weights(training) - before).norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("opt", ["adamw", "muon", "lamb"])
def test_rates_of_layers(make, opt: str):
    """Each layer has its share of the schedule's rate in every step, also behind a resume; the log shows the whole."""

    def layered(**keys: object) -> Training:
        training = make(opt=opt, **keys)
        model = training.task.network
        model.layer_of, model.num_layers = lambda name: int(name.split(".")[0]), 4  # type: ignore[assignment]
        groups = param_groups(training.task, weight_decay=0.05, weight_decay_filter="auto", layer_decay=0.5)
        training.optimizer = build_optimizer(training.recipe.optimizer, groups, training.world.device, training.task)
        return training

    training = layered(scheduler="cosine_decay")
    batches = iter(training.batches(start_step=0))
    for step in range(4):
        assert train_step(training, batches) == pytest.approx(0.1 * (1 + math.cos(math.pi * step / 8)) / 2)
        if step == 1:
            save(training)
            settle(training)
    rates = {n: g["lr"] for g in training.optimizer.param_groups for n in g["names"]}
    last = 0.1 * (1 + math.cos(math.pi * 3 / 8)) / 2
    assert rates == pytest.approx(
        {"network.0.weight": last / 8, "network.0.bias": last / 8, "network.3.weight": last, "network.3.bias": last}
    )
    again = resumed(layered(scheduler="cosine_decay"), training, 2)
    batches = iter(again.batches(start_step=2))
    for _ in range(2):
        train_step(again, batches)
    assert torch.equal(weights(again), weights(training))


@pytest.mark.parametrize("opt", ["adamw", "lamb"])
def test_loss_scaler_is_saved(make, opt: str):
    """fp16: a scale too large drops steps until it fits, no weight is hurt, and the scale survives a checkpoint."""
    training = make(amp="fp16", opt=opt)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    batches = iter(training.batches(start_step=0))
    before = weights(training)
    train_step(training, batches)
    assert torch.equal(weights(training), before), "infinite gradients: the step is dropped"
    for _ in range(3):
        train_step(training, batches)
    assert training.scaler.get_scale() == 2.0**36
    save(training)
    settle(training)
    again = make(amp="fp16", opt=opt)
    again.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    resumed(again, training, 4)
    assert again.scaler.get_scale() == 2.0**36
    assert torch.equal(weights(again), weights(training))
    assert not any(training.nonfinite.flags), "a dropped step is no divergence"


def test_a_step_does_not_depend_on_the_generators_state(make):
    """Dropout's seed is a function of the step, not of what was drawn before."""
    one, two = make(), make()
    for training in (one, two):
        training.task.network.append(nn.Dropout(0.5))
    torch.manual_seed(1)
    train_step(one, iter(one.batches(start_step=0)))
    torch.manual_seed(2)
    train_step(two, iter(two.batches(start_step=0)))
    assert torch.equal(weights(one), weights(two))


def test_dropped_steps_in_a_row_are_divergence(make):
    """fp16: gradients that are never finite train nothing; the run says so instead of going on until its end."""
    training = make(amp="fp16", log_interval=1, epoch_size=20)
    training.scaler = torch.amp.GradScaler("cpu")
    before = weights(training)
    for p in training.task.parameters():
        p.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(DivergedError, match="infinite gradients and were dropped; the loss scale of fp16 fell to"):
        fit(training, StopFlag())
    assert training.progress.step == MAX_DROPPED_IN_A_ROW
    assert torch.equal(weights(training), before)


def test_the_loop_checks_whose_batch_it_gets(make):
    training = make()
    batches = iter(training.batches(start_step=1))
    with pytest.raises(AssertionError, match=r"batch 1\.0 in step 0\.0"):
        train_step(training, batches)
