"""When a run is saved, and what follows if that fails.

    save  ->  snapshot (every rank)  ->  CheckpointWriter (rank 0, in the background)  ->  settle (every rank)

The steps that follow a save run while it is written. Whatever may end the run otherwise waits for it: the next save, an
evaluation, a signal, an error, the end. So at most the newest checkpoint is lost when the process is killed, and an
evaluation begins when everything that was trained is on the disk.
"""

from vitcli.distributed import any_rank, from_main, gathered
from vitcli.engine.state import snapshot
from vitcli.engine.training import Training
from vitcli.errors import DiskError, DivergedError, VitcliError


def save(training: Training) -> None:
    """Take a snapshot of this moment and begin to write it; with ckpt_async false, until it is written.

    Every rank must call it.

    Raises:
        DiskError, DivergedError: as `settle`, of this checkpoint or of the one before.
    """
    settle(training)  # never two writers
    training.average_buffers()
    taken = snapshot(training, training.meter.state())
    if training.world.is_main:
        training.writer.start(taken, same_tensors=training.saved_step == taken.step)
    training.saved_step, training.is_saving = taken.step, True
    if not training.recipe.checkpoint.ckpt_async:
        settle(training)


def save_alone(training: Training) -> None:
    """Write this moment on rank 0 without asking the other ranks, which may be gone.

    Weights, optimizer and average are exact. With several ranks, BatchNorm's running statistics, which training does
    not use, are those of rank 0 instead of the mean, and the steps since the last log line are not in the next one.

    Raises:
        DiskError, DivergedError: nothing was written.
    """
    training.writer.wait()
    training.meter.steps -= len(training.nonfinite.look(training.progress.step, is_main=True))
    alone = training.world.size > 1
    taken = snapshot(training, training.meter.state_without_sums() if alone else training.meter.state())
    training.writer.start(taken, same_tensors=False)
    if failure := training.writer.wait():
        raise failure
    training.saved_step = taken.step


def settle(training: Training) -> None:
    """Wait until the checkpoint that was begun is written. Every rank must call it.

    Raises:
        DiskError: rank 0 could not write, and on_save_error is `stop`.
        DivergedError: a weight or statistic is not finite; nothing was written.
    """
    if not training.is_saving:
        return
    training.is_saving = False
    training.unsaved = from_main(training.writer.wait() if training.world.is_main else None)
    if training.unsaved:
        training.saved_step = None
        _stop_or_warn(training, training.unsaved)


def check_between_steps(training: Training, must_end: bool) -> bool:
    """Whether any rank must end. Every rank must call it.

    Raises:
        DiskError, DivergedError: a checkpoint or another file of the run could not be written.
    """
    has_failed = training.writer.has_failed
    if not any_rank(must_end or has_failed or bool(training.reporter.faults)):
        return False
    if any_rank(has_failed):
        settle(training)
    check_files(training)
    return any_rank(must_end)


def check_files(training: Training) -> None:
    """What the disk refused of metrics and lists. Every rank must call it.

    Raises:
        DiskError: on_save_error is `stop`. What was trained is saved before, if that is possible.
    """
    failure = next(filter(None, gathered(training.reporter.faults.take())), None)
    if failure is None:
        return
    if training.recipe.checkpoint.on_save_error == "stop":
        try:
            if training.saved_step != training.progress.step:
                save(training)
            settle(training)
        except DiskError:
            raise failure from None
        failure.message += f"; step {training.progress.step} is saved"
    _stop_or_warn(training, failure)


def finish(training: Training) -> None:
    """Wait for everything to be written. Every rank must call it.

    Raises:
        DiskError: the last checkpoint of the run, with all that was trained, could not be.
    """
    settle(training)
    check_files(training)
    if training.unsaved:
        raise training.unsaved


def _stop_or_warn(training: Training, failure: VitcliError) -> None:
    if isinstance(failure, DivergedError) or training.recipe.checkpoint.on_save_error == "stop":
        raise failure
    training.reporter.note(f"{failure.message}; training goes on, because on_save_error is warn")
