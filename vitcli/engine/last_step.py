"""A run that fails keeps what it has trained: its last complete step is saved before the error goes on."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vitcli.engine.run_dir import how_to_continue
from vitcli.engine.saving import save_alone
from vitcli.engine.training import Training
from vitcli.errors import DiskError, DivergedError, VitcliError


@contextmanager
def last_step_saved(training: Training) -> Iterator[None]:
    """If the block fails, rank 0 saves the last complete step, and the help of the error says how to continue from it.

    The other ranks are not asked: they may be gone, or wait for this one. Nothing is saved

    - after an error that leaves nothing to save: a loss that is not finite, a full disk;
    - if the step failed while the weights were being changed;
    - with `parallel: fsdp`: rank 0 has a part of each tensor only;
    - with several processes on GPUs: what a GPU computed from the gradients of a rank that died cannot be known.
    """
    try:
        yield
    except (DivergedError, DiskError):
        raise
    except Exception as error:
        with suppress(DiskError, DivergedError, RuntimeError, MemoryError):  # a GPU may have failed for good
            if training.world.is_main and _can_be_saved(training):
                save_alone(training)
        if isinstance(error, VitcliError) and not (error.help and "--resume" in error.help):
            error.help = "\n".join(filter(None, [error.help, how_to_continue(training.run_dir)]))
        raise


def _can_be_saved(training: Training) -> bool:
    if training.saved_step == training.progress.step:
        return False
    if not training.parallel.has_all or (training.world.size > 1 and training.world.device.type != "cpu"):
        return False
    return training.half_step.undo()
