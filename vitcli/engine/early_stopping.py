"""Ends a run whose primary number no longer improves: a function of its progress, so a resume decides the same."""

from vitcli.distributed import from_main
from vitcli.engine.training import Training
from vitcli.errors import UsageError


def why_stopped(training: Training) -> str | None:
    """Why the run ends after the epoch that was just evaluated, in words; None: it goes on. Every rank must call it.

    The number of epochs is part of no checkpoint: a run that is resumed with a larger one goes on.
    """
    progress, patience = training.progress, training.recipe.scheduler.early_stopping_epochs
    was_evaluated = progress.closed_step == progress.step and progress.step in progress.primary
    if patience is None or progress.best_step is None or not was_evaluated or progress.step == training.total_steps:
        return None
    waited = (progress.step - progress.best_step) // training.plan.steps_per_epoch
    if not from_main(waited >= patience):
        return None
    epochs = f"{waited} epoch{'s' * (waited > 1)}"
    return f"{training.task.primary} has not improved for {epochs} (early_stopping_epochs: {patience})"


def check_early_stopping(training: Training) -> None:
    """UsageError if nothing measures the number whose improvement is waited for."""
    task = training.task
    if training.recipe.scheduler.early_stopping_epochs is None or task.primary in _measured(training):
        return
    if task.primary is None:
        name = training.recipe.learning.task
        message = f"early_stopping_epochs needs a number that improves; without labels, `task: {name}` has none"
        raise UsageError(message, help="remove early_stopping_epochs, or give labeled images")
    message = f"early_stopping_epochs waits for {task.primary}, which no evaluator of this run measures"
    raise UsageError(message, help="remove early_stopping_epochs or evaluate, or give a validation split")


def _measured(training: Training) -> set[str]:
    """The names of all numbers that the evaluators of the task give."""
    return {
        measurement.prefix + name
        for measurement in training.task.measurements(training.task.network)
        if (evaluator := training.evaluators.get(measurement.evaluator))
        for name in evaluator.metrics
    }
