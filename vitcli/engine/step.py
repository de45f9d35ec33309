"""One optimizer step: micro-steps forward and backward, clipping, the guard against NaN, the update, the average.

Nothing here asks the device for a number, so that the host runs ahead of it: a step whose gradients are not finite is
dropped by a flag on the device, and what the console shows is read at log lines only (`nonfinite.py`, `meter.py`).
"""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vitcli.data.batch import Batch
from vitcli.data.streams import stream_seed
from vitcli.distributed import all_sum
from vitcli.engine.training import Training
from vitcli.optim.optimizers import drop_step_if
from vitcli.optim.schedule import learning_rate
from vitcli.parallel.shards import whole


def train_step(training: Training, batches: Iterator[Batch]) -> float:
    """Do step `training.progress.step` and count it; returns the learning rate used."""
    recipe, plan, step = training.recipe, training.plan, training.progress.step
    lr = learning_rate(step, plan.steps_per_epoch, recipe.scheduler, training.lr_factor)
    for group in training.optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    num_samples = plan.num_samples_of(step % plan.steps_per_epoch)
    training.half_step.begin()
    shares: dict[str, Tensor] = {}
    for micro in range(plan.accumulation):
        for name, value in _micro_step(training, batches, micro, num_samples).items():
            shares[name] = shares[name] + value if name in shares else value
    nonfinite = _update(training, shares["loss"])
    training.progress.step = step + 1
    if training.ema:
        training.ema.update(step + 1)
    training.task.after_step(step + 1, training.total_steps)
    training.meter.add({name: share.masked_fill(nonfinite, 0) for name, share in shares.items()}, num_samples)
    training.half_step.complete()
    return lr


def _micro_step(training: Training, batches: Iterator[Batch], micro: int, num_samples: int) -> dict[str, Tensor]:
    """Forward and backward of one micro-batch; its shares of the step's means: the loss's, and each metric's."""
    plan, world, step = training.plan, training.world, training.progress.step
    with training.meter.waiting():
        loaded = next(batches)
    assert (loaded.step, loaded.micro) == (step, micro), f"batch {loaded.step}.{loaded.micro} in step {step}.{micro}"
    with training.side.work():
        batch = training.task.prepare(loaded, training.recipe.system.seed)
        if training.channels_last:
            batch = batch.channels_last()
    batch = training.side.handed_over(batch)
    _seed_generators(stream_seed("dropout", training.recipe.system.seed, step, batch.block), world.device)
    share = len(batch) / num_samples
    with nullcontext() if micro == plan.accumulation - 1 else training.parallel.unsynchronized():
        with training.autocast():
            output = training.parallel.module(batch)
        # the mean over the global batch; the sum over ranks is divided by their number, which is undone here
        training.scaler.scale(output.loss * (share * world.size)).backward()
    return {name: value.detach() * share for name, value in {"loss": output.loss, **output.metrics}.items()}


def _seed_generators(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, for this device and the CPU only: looking after all kinds of devices takes 0.4 ms."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _update(training: Training, loss: Tensor) -> Tensor:
    """Clip, then update the weights unless the loss or a gradient is not finite; () bool: whether that is a mistake.

    All ranks decide the same: an infinite loss of one rank may have finite gradients.
    """
    optimizer, scaler, section = training.optimizer, training.scaler, training.recipe.optimizer
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = whole(get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if section.clip_grad:
        clip_grads_with_norm_(parameters, section.clip_value, norm)
    bad_norm, bad_loss = all_sum((~torch.stack([norm, loss]).isfinite()).float()) > 0
    bad = nonfinite = bad_norm | bad_loss
    training.half_step.change_weights()
    if scaler.is_enabled():  # fp16: now and then gradients are infinite; the loss never is
        nonfinite = bad_loss
        training.meter.drop(bad)
        scaler.update()
    drop_step_if(optimizer, bad)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    training.nonfinite.end_step(nonfinite)
    return nonfinite
