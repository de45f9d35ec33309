"""The train loop, the only one: steps, log lines, each epoch's evaluation, and a defined end for every failure."""

from itertools import chain, repeat
from typing import Any, NoReturn

from vitcli.distributed import any_rank, gathered, mark_alive
from vitcli.engine.early_stopping import why_stopped
from vitcli.engine.first_step import first_step
from vitcli.engine.last_step import last_step_saved
from vitcli.engine.nonfinite import DIVERGED_HELP
from vitcli.engine.run_dir import how_to_continue, told_to_others
from vitcli.engine.saving import check_between_steps, finish, save, settle
from vitcli.engine.signals import StopFlag
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.engine.upcoming import Upcoming
from vitcli.errors import DivergedError, Interrupted
from vitcli.evaluators.evaluator import ShouldStop, Stopped, UnreadableImages
from vitcli.tasks.task import Measurement

#: begins the name of a number of the network itself, where the others are of its average
RAW = "raw_"


def fit(training: Training, stop: StopFlag) -> None:
    """Train from `training.progress.step` to the end, or until `stop` is set or `why_stopped` gives a reason.

    Raises:
        Interrupted: a signal came, or torchrun is gone; everything up to the present step is in a checkpoint.
        DivergedError: loss or gradients became NaN or infinite; no checkpoint holds any of it.
        DataError: unreadable images. LostWorker: a process that decodes was killed. Everything up to the last complete
            step is in a checkpoint.
        DiskError: the disk refuses a file of the run.
    """
    training.reporter.start(training.total_steps, training.progress.step, text="the first steps")
    with last_step_saved(training):
        try:
            _fit(training, stop)
        finally:  # whatever ended it, the checkpoint that is being written is completed
            if (failure := training.writer.wait()) is not None:
                training.reporter.note(failure.message)


def _fit(training: Training, stop: StopFlag) -> None:
    progress, recipe, steps_per_epoch = training.progress, training.recipe, training.plan.steps_per_epoch
    _close_epoch_if_due(training, stop)  # a run may have been stopped between an epoch and its evaluation
    take_step = chain([first_step], repeat(train_step))
    batches = Upcoming(training.bad_images.watch(training.batches(start_step=progress.step)))
    while progress.step < training.total_steps and not why_stopped(training):
        _agree_to_go_on(training, stop, batches)
        lr = next(take_step)(training, batches)
        epoch = (progress.step - 1) // steps_per_epoch
        training.reporter.advance(progress.step, epoch, recipe.scheduler.epoch_size)
        if progress.step % recipe.system.log_interval == 0 or progress.step % steps_per_epoch == 0:
            _log_line(training, lr)
        _close_epoch_if_due(training, stop)
        every = recipe.checkpoint.ckpt_save_steps
        if every and progress.step % every == 0 and progress.closed_step != progress.step:
            _check_finite(training)
            save(training)
    finish(training)


def _agree_to_go_on(training: Training, stop: StopFlag, batches: Upcoming) -> None:
    """Unless all ranks have their next batch and none was told to stop, save this very step on all ranks, then end."""
    with training.meter.waiting():
        error = batches.look()
    if not check_between_steps(training, bool(stop) or error is not None):
        return
    if any_rank(bool(stop)):
        _stop(training)
    causes = gathered(None if error is None else told_to_others(training.world.rank, error))
    _save_to_end(training)
    raise error or next(filter(None, causes))


def _log_line(training: Training, lr: float) -> None:
    """Read the meter: the only place where the host waits for the device while training."""
    _check_finite(training)
    training.bad_images.check()
    meter, step = training.meter, training.progress.step
    if not meter.steps:
        return
    speed, waiting = meter.timings()
    values = {"step": step, "epoch": round(step / training.plan.steps_per_epoch, 4), **meter.means(), "lr": lr}
    if training.scaler.is_enabled():
        values |= {"loss_scale": training.scaler.get_scale(), "dropped_steps": int(meter.dropped.item())}
    if training.nonfinite.policy == "skip":
        values["skipped_steps"] = training.nonfinite.skipped
    timings = {"images_per_second": round(speed, 2), "data_wait_ratio": round(waiting, 4)}
    text = f"loss {values['loss']:.4f}  lr {lr:.2e}  {speed:,.0f} img/s  data wait {waiting:.0%}"
    training.reporter.step(values | timings, text=text)
    meter.reset()


def _check_finite(training: Training) -> None:
    """What the steps since the last look came to; before every log line, evaluation and checkpoint.

    Raises:
        DivergedError: see `on_nonfinite`; or fp16 drops every step.
    """
    step, meter = training.progress.step, training.meter
    skipped = training.nonfinite.look(step, is_main=training.world.is_main)
    training.reporter.notes(f"{training.nonfinite.sentence(number)}; it was skipped" for number in skipped)
    meter.steps -= len(skipped)
    if training.scaler.is_enabled() and any_rank(meter.is_stuck):
        dropped = int(meter.dropped_in_a_row.item())
        message = f"the last {dropped} steps up to step {step} had infinite gradients and were dropped"
        scale = training.scaler.get_scale()
        raise DivergedError(f"{message}; the loss scale of fp16 fell to {scale:.1e}", help=DIVERGED_HELP)


def _stop(training: Training) -> NoReturn:
    """Save this very step on all ranks, then end."""
    _save_to_end(training)
    message = f"stopped at step {training.progress.step} of {training.total_steps}"
    raise Interrupted(message, help=how_to_continue(training.run_dir))


def _save_to_end(training: Training) -> None:
    _check_finite(training)
    if training.saved_step != training.progress.step:
        save(training)
    finish(training)


def _close_epoch_if_due(training: Training, stop: StopFlag) -> None:
    """After the last step of an epoch: save, evaluate, save the result; as often as the recipe says, and at the end."""
    progress, plan, recipe = training.progress, training.plan, training.recipe
    if progress.step % plan.steps_per_epoch or progress.step == 0 or progress.closed_step == progress.step:
        return
    _check_finite(training)
    epoch, num_epochs = progress.step // plan.steps_per_epoch, recipe.scheduler.epoch_size
    last = epoch == num_epochs
    wanted = last or epoch % recipe.checkpoint.ckpt_save_interval == 0
    training.average_buffers()
    values: dict[str, Any] = {"step": progress.step, "epoch": epoch}
    text = f"epoch {epoch}/{num_epochs}"
    if last or (recipe.system.val_while_train and epoch % recipe.system.val_interval == 0):
        if wanted and training.saved_step != progress.step:
            save(training)
        settle(training)  # what was trained is safe before anything else can fail
        try:
            numbers = _measure(training, stop)
        except Stopped:
            _stop(training)
        except UnreadableImages as error:
            _list_unreadable(training, error)
            raise
        if training.world.is_main:
            training.bad_images.list_evaluated(progress.step, [])
        values |= numbers
        text += _note_best(training, numbers)
    progress.closed_step = progress.step
    training.reporter.epoch(values, text=text)
    if wanted or progress.best_step == progress.step or why_stopped(training):
        save(training)
    training.meter.reset()


def _list_unreadable(training: Training, error: UnreadableImages) -> None:
    """Write all of them into the folder of the run."""
    if training.world.is_main:
        training.bad_images.list_evaluated(training.progress.step, error.bad)
    error.help = f"{error.help}\nall are listed in {training.bad_images.file}"


def _measure(training: Training, stop: StopFlag) -> dict[str, float]:
    """The numbers of all evaluators of the run; every rank must call it.

    Raises:
        Stopped: a signal came, on any rank.
    """
    parallel = training.parallel
    network = parallel.in_one_piece(training.ema.model if training.ema else training.task.network)
    own = parallel.in_one_piece(training.task).measurements(network)
    others = training.evaluators.keys() - {measurement.evaluator for measurement in own}
    numbers: dict[str, float] = {}

    def should_stop() -> bool:
        mark_alive()
        return bool(stop)

    for evaluator_name, measured, prefix in [*own, *(Measurement(name, network) for name in sorted(others))]:
        if evaluator := training.evaluators.get(evaluator_name):
            with parallel.filled(measured):
                found = evaluator(measured, should_stop=should_stop)
            numbers |= {prefix + name: found[name] for name in evaluator.metrics}
            training.findings |= evaluator.findings()
            if warning := evaluator.warning(found):
                training.reporter.note(warning)
    return numbers | (_of_the_raw_network(training, should_stop) if training.ema else {})


def _of_the_raw_network(training: Training, should_stop: ShouldStop) -> dict[str, float]:
    """The number that chooses the best checkpoint, of the network next to its average: whether averaging helps.

    It costs a second evaluation, so not of evaluators that look at all training images.
    """
    parallel, primary = training.parallel, training.task.primary
    network = parallel.in_one_piece(training.task.network)
    for evaluator_name, measured, prefix in parallel.in_one_piece(training.task).measurements(network):
        evaluator = training.evaluators.get(evaluator_name)
        names = {prefix + name: name for name in evaluator.metrics} if evaluator else {}
        if evaluator and primary in names and not evaluator.needs_train:
            with parallel.filled(measured):
                return {RAW + primary: evaluator(measured, should_stop=should_stop)[names[primary]]}
    return {}


def _note_best(training: Training, numbers: dict[str, float]) -> str:
    """Remember the best epoch; returns what the epoch's line says of `numbers`."""
    progress, name = training.progress, training.task.primary
    if name in numbers:
        progress.primary[progress.step] = numbers[name]
        if progress.best is None or numbers[name] > progress.best:
            progress.best_step, progress.best = progress.step, numbers[name]
    shown = "".join(f"  {name} {value:.4g}" for name, value in numbers.items() if not name.startswith(RAW))
    if training.ema and numbers:
        raw = numbers.get(f"{RAW}{name}")
        shown += " (average)" if raw is None else f" (average; raw {raw:.4g})"
    return shown + ("  best so far" if progress.best_step == progress.step else "")
