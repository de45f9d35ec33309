"""The train loop, the only one: steps, log lines, the end of each epoch, and a defined end for every accident."""

import time
from typing import Any

from vitcli.distributed import all_sum, any_rank, gathered
from vitcli.engine.signals import StopFlag, stop_flag
from vitcli.engine.step import train_step
from vitcli.engine.training import DIVERGED_HELP, Training
from vitcli.errors import DivergedError, Interrupted
from vitcli.evaluators.evaluator import Stopped
from vitcli.evaluators.top1 import EvalResult


def fit(training: Training) -> None:
    """Train from `training.progress.step` to the end.

    Raises:
        Interrupted: a signal came; everything up to the present step is in a checkpoint.
        DivergedError: loss or gradients became NaN or infinite; no checkpoint holds any of it.
        DataError: unreadable images; DiskError: no room for a checkpoint.
    """
    plan, progress, reporter = training.plan, training.progress, training.reporter
    reporter.start(training.total_steps, progress.step)
    with stop_flag() as stop:
        _close_epoch_if_due(training, stop)  # a run may have been stopped between an epoch and its evaluation
        batches = training.bad_images.watch(training.batches(progress.step))
        while progress.step < training.total_steps:
            lr = train_step(training, batches)
            reporter.advance(
                progress.step, (progress.step - 1) // plan.steps_per_epoch, training.recipe.scheduler.epoch_size
            )
            if progress.step % training.recipe.system.log_interval == 0 or progress.step % plan.steps_per_epoch == 0:
                _log_line(training, lr)
            if any_rank(bool(stop)):
                _stop(training, stop)
            _close_epoch_if_due(training, stop)
            every = training.recipe.checkpoint.ckpt_save_steps
            if every and progress.step % every == 0 and progress.closed_step != progress.step:
                _refuse_nan(training)
                training.save()


def _log_line(training: Training, lr: float) -> None:
    """Read the meter: the only place where the host waits for the device while training."""
    _refuse_nan(training)
    meter = training.meter
    if not meter.steps:
        return
    loss = (all_sum(meter.loss) / meter.steps / training.world.size).item()
    seconds, wait = meter.seconds(), max(gathered(meter.wait_seconds))
    speed, waiting = meter.images / seconds, wait / seconds
    step, epoch = training.progress.step, training.progress.step / training.plan.steps_per_epoch
    values = {"step": step, "epoch": round(epoch, 4), "loss": loss, "lr": lr}
    timings = {"images_per_second": round(speed, 2), "data_wait_ratio": round(waiting, 4)}
    text = f"loss {loss:.4f}  lr {lr:.2e}  {speed:,.0f} img/s  data wait {waiting:.0%}"
    training.reporter.step(values | timings, text=text)
    meter.reset()


def _refuse_nan(training: Training) -> None:
    if any_rank(bool(training.meter.diverged.item())):
        step = training.progress.step
        raise DivergedError(f"the loss or its gradients became NaN or infinite before step {step}", help=DIVERGED_HELP)


def _stop(training: Training, stop: StopFlag) -> None:
    """Save this very step on all ranks, then leave."""
    _refuse_nan(training)
    training.save()
    step = training.progress.step
    raise Interrupted(
        f"stopped at step {step} of {training.total_steps}; the checkpoint is written",
        help=f"go on with: vitcli train --resume {training.run_dir}",
    )


def _close_epoch_if_due(training: Training, stop: StopFlag) -> None:
    """After the last step of an epoch: evaluate and save, as often as the recipe says, and always at the end."""
    progress, plan, recipe = training.progress, training.plan, training.recipe
    if progress.step % plan.steps_per_epoch or progress.step == 0 or progress.closed_step == progress.step:
        return
    _refuse_nan(training)
    epoch = progress.step // plan.steps_per_epoch
    last = epoch == recipe.scheduler.epoch_size
    training.average_buffers()
    text = f"epoch {epoch}/{recipe.scheduler.epoch_size}"
    values: dict[str, Any] = {"step": progress.step, "epoch": epoch}
    if last or (recipe.system.val_while_train and epoch % recipe.system.val_interval == 0):
        try:
            result = training.evaluate(training.evaluated_model, lambda: bool(stop))
        except Stopped:
            _stop(training, stop)
            raise
        values |= {"top1": result.top1, "top5": result.top5, "nll": result.nll}
        text += _note_result(training, result)
    progress.closed_step = progress.step
    if last or epoch % recipe.checkpoint.ckpt_save_interval == 0 or progress.best_step == progress.step:
        training.save()
    training.reporter.epoch(values, text=text)
    training.meter.start = time.perf_counter()


def _note_result(training: Training, result: EvalResult) -> str:
    """Remember the best epoch; returns what the epoch's line says of the result."""
    progress = training.progress
    progress.top1[progress.step] = result.top1
    if result.top1 > progress.best_top1:
        progress.best_step, progress.best_top1 = progress.step, result.top1
    which = " (average)" if training.ema else ""
    best = "  best so far" if progress.best_step == progress.step else ""
    return f"  top1 {result.top1:.2f}  top5 {result.top5:.2f}  nll {result.nll:.4f}{which}{best}"
