"""One optimizer step: micro-steps forward and backward, clipping, the guard against NaN, the update, the average.

Nothing here reads a number from the GPU, so the host can run ahead of it: a bad step is dropped on the device. The
console's numbers are read from the meter at log lines only.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vitcli.data.streams import stream_seed
from vitcli.distributed import unsynchronized
from vitcli.engine.training import Training
from vitcli.optim.optimizers import drop_step_if
from vitcli.optim.schedule import learning_rate
from vitcli.tasks.classification import Batch


def train_step(training: Training, batches: Iterator) -> float:
    """Do step `training.progress.step` and count it; returns the learning rate used."""
    recipe, plan, step = training.recipe, training.plan, training.progress.step
    epoch, step_in_epoch = plan.epoch_and_step(step)
    lr = learning_rate(step, plan.steps_per_epoch, recipe.scheduler, training.peak_lr)
    for group in training.optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    num_samples = sum(_num_samples(training, epoch, step_in_epoch))
    step_loss = torch.zeros((), device=training.world.device)
    for micro in range(plan.accumulation):
        loss = _micro_step(training, batches, micro, num_samples)
        step_loss += loss
    _update(training, step_loss)
    training.progress.step = step + 1
    if training.ema:
        training.ema.update(step + 1)
    training.after_step(step + 1)
    meter = training.meter
    meter.loss += step_loss
    meter.steps += 1
    meter.images += num_samples
    return lr


def _num_samples(training: Training, epoch: int, step_in_epoch: int) -> list[int]:
    """Samples of every block of this step; they differ only in an incomplete last step."""
    plan = training.plan
    full = (step_in_epoch + 1) * plan.global_batch <= plan.num_samples
    if full:
        return [plan.batch_size] * plan.num_blocks
    blocks = [(micro, rank) for micro in range(plan.accumulation) for rank in range(plan.world_size)]
    return [len(plan.indices(epoch, step_in_epoch, micro, rank)) for micro, rank in blocks]


def _micro_step(training: Training, batches: Iterator, micro: int, num_samples: int) -> Tensor:
    """Forward and backward of one micro-batch; returns its share of the step's mean loss."""
    plan, world, seed = training.plan, training.world, training.recipe.system.seed
    step, block = training.progress.step, plan.block(micro, world.rank)
    before = time.perf_counter()
    loaded = next(batches)
    training.meter.wait_seconds += time.perf_counter() - before
    images = loaded.images.to(world.device, non_blocking=True)
    labels = loaded.targets.to(world.device, non_blocking=True)
    epoch, _ = plan.epoch_and_step(step)
    images, targets = training.prepare(images, labels, seed=seed, epoch=epoch, step=step, micro=block)
    if training.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(stream_seed("dropout", seed, step, block))
    last = micro == plan.accumulation - 1
    with nullcontext() if last else unsynchronized(training.task):
        with training.autocast():
            output = training.task(Batch(images, targets))
        # the mean over the global batch; DDP divides by the number of ranks, which is undone here
        share = len(labels) * world.size / num_samples
        training.scaler.scale(output.loss * share).backward()
    return output.loss.detach() * share


def _update(training: Training, loss: Tensor) -> None:
    """Clip, then update the weights unless the loss or a gradient is not finite."""
    optimizer, scaler, section = training.optimizer, training.scaler, training.recipe.optimizer
    scaler.unscale_(optimizer)
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = get_total_norm(gradients)
    if section.clip_grad:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        clip_grads_with_norm_(parameters, section.clip_value, norm)
    if scaler.is_enabled():  # fp16: infinite gradients are part of the game, an infinite loss is not
        training.meter.diverged += ~torch.isfinite(loss)
        scaler.step(optimizer)
        scaler.update()
    else:
        bad = ~torch.isfinite(norm) | ~torch.isfinite(loss)
        training.meter.diverged += bad
        drop_step_if(optimizer, bad)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
