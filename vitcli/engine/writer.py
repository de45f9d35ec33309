"""The thread that writes checkpoints while training goes on; there is one at most, and it writes one at a time."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from vitcli.disk import disk_errors
from vitcli.engine import checkpoint
from vitcli.engine.checkpoint import Snapshot
from vitcli.engine.nonfinite import DIVERGED_HELP
from vitcli.errors import DivergedError, VitcliError
from vitcli.recipe.schema import Checkpoint
from vitcli.weights.checkpoint_folders import folder_of


class CheckpointWriter:
    """Writes what it is given, deletes old checkpoints, marks the best; for rank 0.

    It takes everything from the snapshot, nothing from the run, which is at another step by then.
    """

    def __init__(self, run_dir: Path, section: Checkpoint) -> None:
        self.run_dir = run_dir
        self.section = section
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def start(self, taken: Snapshot, *, same_tensors: bool) -> None:
        """Begin to write. The snapshot must not change until `wait` returns.

        same_tensors: there is a checkpoint of this step, with the very same tensors.
        """
        assert self._writing is None, "two writers"
        self._writing = self._thread.submit(self._write, taken, same_tensors)

    @property
    def has_failed(self) -> bool:
        """Whether the writing has ended with an error that `wait` will return."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def wait(self) -> VitcliError | None:
        """Until nothing is being written; what went wrong, once."""
        writing, self._writing = self._writing, None
        try:
            if writing:
                writing.result()
        except VitcliError as error:
            return error
        return None

    def _write(self, taken: Snapshot, same_tensors: bool) -> None:
        """The whole work of a save.

        Raises:
            DiskError: see `checkpoint.write`. DivergedError: a value is not finite; nothing was written.
        """
        _refuse_not_finite(taken)
        before = folder_of(self.run_dir, taken.step) if same_tensors else None
        folder = checkpoint.write(self.run_dir, taken, same_tensors=before)
        progress: dict[str, Any] = taken.state["progress"]
        best_step, policy = progress["best_step"], self.section.ckpt_save_policy
        kept = {"keep": self.section.keep_checkpoint_max, "primary": progress["primary"], "best_step": best_step}
        with disk_errors(f"checkpoint {taken.step} is written, but deletions or the link `best`", self.run_dir):
            if best_step == taken.step:
                checkpoint.mark_best(folder)
            checkpoint.prune(self.run_dir, policy=policy, **kept)


def _refuse_not_finite(taken: Snapshot) -> None:
    for tensors in taken.tensors.values():
        for name, value in tensors.items():
            if value.is_floating_point() and not torch.isfinite(value.float()).all():  # there is none for float8
                raise DivergedError(f"{name} is not finite after step {taken.step}", help=DIVERGED_HELP)
