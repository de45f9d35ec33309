"""The train loop, the only one: steps, log lines, the end of each epoch, and a defined end for every failure."""

from collections.abc import Iterator
from typing import Any

from vitcli.data.batch import Batch
from vitcli.distributed import any_rank
from vitcli.engine.measure import measure, note_best
from vitcli.engine.signals import StopFlag, stop_flag
from vitcli.engine.state import DIVERGED_HELP, save
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.errors import DivergedError, Interrupted
from vitcli.evaluators.evaluator import Stopped


def fit(training: Training) -> None:
    """Train from `training.progress.step` to the end.

    Raises:
        Interrupted: a signal came; everything up to the present step is in a checkpoint.
        DivergedError: loss or gradients became NaN or infinite; no checkpoint holds any of it.
        DataError: unreadable images; DiskError: no room for a checkpoint.
    """
    progress = training.progress
    training.reporter.start(training.total_steps, progress.step)
    with stop_flag() as stop:
        _close_epoch_if_due(training, stop)  # a run may have been stopped between an epoch and its evaluation
        batches = training.bad_images.watch(training.batches(progress.step))
        while progress.step < training.total_steps:
            _step(training, batches)
            if any_rank(bool(stop)):
                _stop(training, stop)
            _close_epoch_if_due(training, stop)
            every = training.recipe.checkpoint.ckpt_save_steps
            if every and progress.step % every == 0 and progress.closed_step != progress.step:
                _refuse_nan(training)
                save(training)


def _step(training: Training, batches: Iterator[Batch]) -> None:
    lr = train_step(training, batches)
    step, steps_per_epoch, recipe = training.progress.step, training.plan.steps_per_epoch, training.recipe
    training.reporter.advance(step, (step - 1) // steps_per_epoch, recipe.scheduler.epoch_size)
    if step % recipe.system.log_interval == 0 or step % steps_per_epoch == 0:
        _log_line(training, lr)


def _log_line(training: Training, lr: float) -> None:
    """Read the meter: the only place where the host waits for the device while training."""
    _refuse_nan(training)
    training.bad_images.check()
    meter, step = training.meter, training.progress.step
    if not meter.steps:
        return
    speed, waiting = meter.timings()
    values = {"step": step, "epoch": round(step / training.plan.steps_per_epoch, 4), **meter.means(), "lr": lr}
    if training.scaler.is_enabled():
        values |= {"loss_scale": training.scaler.get_scale(), "dropped_steps": int(meter.dropped.item())}
    timings = {"images_per_second": round(speed, 2), "data_wait_ratio": round(waiting, 4)}
    text = f"loss {values['loss']:.4f}  lr {lr:.2e}  {speed:,.0f} img/s  data wait {waiting:.0%}"
    training.reporter.step(values | timings, text=text)
    meter.reset()


def _refuse_nan(training: Training) -> None:
    step, meter = training.progress.step, training.meter
    if any_rank(bool(meter.diverged.item())):
        raise DivergedError(f"the loss or its gradients became NaN or infinite before step {step}", help=DIVERGED_HELP)
    if training.scaler.is_enabled() and any_rank(meter.is_stuck):
        dropped = int(meter.dropped_in_a_row.item())
        message = f"the last {dropped} steps up to step {step} had infinite gradients and were dropped"
        scale = training.scaler.get_scale()
        raise DivergedError(f"{message}; the loss scale of fp16 fell to {scale:.1e}", help=DIVERGED_HELP)


def _stop(training: Training, stop: StopFlag) -> None:
    """Save this very step on all ranks, then end."""
    _refuse_nan(training)
    if training.saved_step != training.progress.step:
        save(training)
    step = training.progress.step
    raise Interrupted(
        f"stopped at step {step} of {training.total_steps}; the checkpoint is written",
        help=f"continue with: vitcli train --resume {training.run_dir}",
    )


def _close_epoch_if_due(training: Training, stop: StopFlag) -> None:
    """After the last step of an epoch: save, evaluate, save the result; as often as the recipe says, and at the end."""
    progress, plan, recipe = training.progress, training.plan, training.recipe
    if progress.step % plan.steps_per_epoch or progress.step == 0 or progress.closed_step == progress.step:
        return
    _refuse_nan(training)
    epoch, num_epochs = progress.step // plan.steps_per_epoch, recipe.scheduler.epoch_size
    last = epoch == num_epochs
    wanted = last or epoch % recipe.checkpoint.ckpt_save_interval == 0
    training.average_buffers()
    values: dict[str, Any] = {"step": progress.step, "epoch": epoch}
    text = f"epoch {epoch}/{num_epochs}"
    if last or (recipe.system.val_while_train and epoch % recipe.system.val_interval == 0):
        if wanted and training.saved_step != progress.step:
            save(training)  # what was trained is safe before anything else can fail
        try:
            numbers = measure(training, lambda: bool(stop))
        except Stopped:
            _stop(training, stop)
            raise
        values |= numbers
        text += note_best(training, numbers)
    progress.closed_step = progress.step
    training.reporter.epoch(values, text=text)
    if wanted or progress.best_step == progress.step:
        save(training)
    training.meter.reset()
