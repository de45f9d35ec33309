"""The train loop, the only one: steps, log lines, each epoch's evaluation, and a defined end for every failure."""

from typing import Any

from vitcli.distributed import any_rank, mark_alive
from vitcli.engine.signals import StopFlag, stop_flag
from vitcli.engine.state import DIVERGED_HELP, save
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.errors import DivergedError, Interrupted
from vitcli.evaluators.evaluator import Stopped
from vitcli.tasks.task import Measurement


def fit(training: Training) -> None:
    """Train from `training.progress.step` to the end.

    Raises:
        Interrupted: a signal came; everything up to the present step is in a checkpoint.
        DivergedError: loss or gradients became NaN or infinite; no checkpoint holds any of it.
        DataError: unreadable images; DiskError: no room for a checkpoint.
    """
    progress, recipe, steps_per_epoch = training.progress, training.recipe, training.plan.steps_per_epoch
    training.reporter.start(training.total_steps, progress.step)
    with stop_flag() as stop:
        _close_epoch_if_due(training, stop)  # a run may have been stopped between an epoch and its evaluation
        batches = training.bad_images.watch(training.batches(start_step=progress.step))
        while progress.step < training.total_steps:
            lr = train_step(training, batches)
            epoch = (progress.step - 1) // steps_per_epoch
            training.reporter.advance(progress.step, epoch, recipe.scheduler.epoch_size)
            if progress.step % recipe.system.log_interval == 0 or progress.step % steps_per_epoch == 0:
                _log_line(training, lr)
            if any_rank(bool(stop)):
                _stop(training, stop)
            _close_epoch_if_due(training, stop)
            every = recipe.checkpoint.ckpt_save_steps
            if every and progress.step % every == 0 and progress.closed_step != progress.step:
                _refuse_nan(training)
                save(training)


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
            numbers = _measure(training, stop)
        except Stopped:
            _stop(training, stop)
            raise
        values |= numbers
        text += _note_best(training, numbers)
    progress.closed_step = progress.step
    training.reporter.epoch(values, text=text)
    if wanted or progress.best_step == progress.step:
        save(training)
    training.meter.reset()


def _measure(training: Training, stop: StopFlag) -> dict[str, float]:
    """The numbers of all evaluators of the run; every rank must call it.

    Raises:
        Stopped: a signal came, on any rank.
    """
    network = training.ema.model if training.ema else training.task.network
    own = training.task.measurements(network)
    others = training.evaluators.keys() - {measurement.evaluator for measurement in own}
    numbers: dict[str, float] = {}

    def should_stop() -> bool:
        mark_alive()
        return bool(stop)

    for evaluator_name, measured, prefix in [*own, *(Measurement(name, network) for name in sorted(others))]:
        if evaluator := training.evaluators.get(evaluator_name):
            found = evaluator(measured, should_stop=should_stop)
            numbers |= {prefix + name: found[name] for name in evaluator.metrics}
            if warning := evaluator.warning(found):
                training.reporter.note(warning)
    return numbers


def _note_best(training: Training, numbers: dict[str, float]) -> str:
    """Remember the best epoch; returns what the epoch's line says of `numbers`."""
    progress, name = training.progress, training.task.primary
    if name in numbers:
        progress.primary[progress.step] = numbers[name]
        if progress.best is None or numbers[name] > progress.best:
            progress.best_step, progress.best = progress.step, numbers[name]
    shown = "".join(f"  {name} {value:.4g}" for name, value in numbers.items())
    which = " (average)" if training.ema and numbers else ""
    return shown + which + ("  best so far" if progress.best_step == progress.step else "")
