"""What a network is worth at the end of an epoch: the numbers of the task's evaluators, and which epoch is the best."""

from collections.abc import Callable

from vitcli.distributed import mark_alive
from vitcli.engine.training import Training
from vitcli.tasks.task import Measurement


def measure(training: Training, should_stop: Callable[[], bool]) -> dict[str, float]:
    """The numbers of all evaluators of the run; every rank must call it.

    Raises:
        Stopped: `should_stop` said so, on any rank.
    """
    network = training.evaluated_network
    own = training.task.measurements(network)
    others = training.evaluators.keys() - {measurement.evaluator for measurement in own}
    numbers: dict[str, float] = {}

    def alive() -> bool:
        mark_alive()
        return should_stop()

    for evaluator_name, measured, prefix in [*own, *(Measurement(name, network) for name in sorted(others))]:
        if evaluator := training.evaluators.get(evaluator_name):
            found = evaluator(measured, should_stop=alive)
            numbers |= {prefix + name: found[name] for name in evaluator.metrics}
            if warning := evaluator.warning(found):
                training.reporter.note(warning)
    return numbers


def note_best(training: Training, numbers: dict[str, float]) -> str:
    """Remember the best epoch; returns what the epoch's line says of `numbers`."""
    progress, name = training.progress, training.task.primary
    if name in numbers:
        progress.primary[progress.step] = numbers[name]
        if progress.best is None or numbers[name] > progress.best:
            progress.best_step, progress.best = progress.step, numbers[name]
    shown = "".join(f"  {name} {value:.4g}" for name, value in numbers.items())
    which = " (average)" if training.ema and numbers else ""
    return shown + which + ("  best so far" if progress.best_step == progress.step else "")
