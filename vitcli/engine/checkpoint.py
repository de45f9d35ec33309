"""Checkpoints: atomic, verified, free of pickle.

    RUN/checkpoints/
        step-00001234/
            model.safetensors      the network that is deployed
            task.safetensors       what else the task needs: heads, a target network
            ema.safetensors  optimizer.safetensors
            state.json             progress, recipe, class names, preprocessing
            MANIFEST.json          size and hash of each file
        best -> step-00001234      for people; state.json knows the best step

A checkpoint is written to a temporary folder, flushed to the disk, and renamed. So a folder called step-… is either
complete, or was damaged later, which the manifest shows. The newest valid one is found by looking for it.
Temporary names have the step and the process that uses them:

    .writing-00001234-PID   being written         .replaced-00001234-PID   complete, another of the same step comes
    .trash-00001234-PID     being deleted         .best-PID                becomes the link `best`
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from vitcli.disk import disk_errors, tried_again
from vitcli.engine.run_dir import check_there, how_to_continue, is_at_work
from vitcli.weights.checkpoint_folders import checkpoints, folder_of, is_checkpoint, step_of
from vitcli.weights.manifest import write_manifest

Tensors = dict[str, Tensor]

_TEMPORARY = re.compile(r"\.(?P<what>writing|replaced|trash|best)-(?:(?P<step>[0-9]{8,})-)?(?P<pid>[0-9]+)")
#: what a file system without symbolic links answers
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Snapshot:
    """A run at one step, in memory of the host that nothing changes until it is written."""

    step: int
    tensors: dict[str, Tensors]  #: file stem -> tensors
    state: dict[str, Any]  #: state.json

    @property
    def num_bytes(self) -> int:
        return sum(value.nbytes for values in self.tensors.values() for value in values.values())


def write(run_dir: Path, snapshot: Snapshot, *, same_tensors: Path | None = None) -> Path:
    """Write the checkpoint, or nothing. What only passes is tried again, from the beginning.

    Args:
        same_tensors: a checkpoint that holds the very same tensors; its files are linked instead of written again.

    Raises:
        DiskError: the disk refuses, or the run is gone; nothing is left behind.
    """
    check_there(run_dir)
    what, num_bytes, then = f"checkpoint {snapshot.step}", snapshot.num_bytes, how_to_continue(run_dir)
    with disk_errors(what, run_dir, num_bytes=num_bytes, then=then):
        return tried_again(lambda: _publish(run_dir, snapshot, _write(run_dir, snapshot, same_tensors)))


def _write(run_dir: Path, snapshot: Snapshot, same_tensors: Path | None) -> Path:
    """Everything in a temporary folder, on the disk."""
    temporary = _temporary(run_dir, "writing", snapshot.step)
    with _removed_on_error(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()  # not its parents: if they are gone, the run is
        for stem, values in snapshot.tensors.items():
            path = temporary / f"{stem}.safetensors"
            if same_tensors is None or not _linked(same_tensors / path.name, path):
                save_file(values, path)
                path.chmod(0o644)  # safetensors makes it readable by its owner only
        (temporary / "state.json").write_text(json.dumps(snapshot.state, indent=1) + "\n", encoding="utf-8")
        write_manifest(temporary)
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
    return temporary


def _publish(run_dir: Path, snapshot: Snapshot, temporary: Path) -> Path:
    """Give the temporary folder its name, in one step; the former checkpoint of the same step goes."""
    final = folder_of(run_dir, snapshot.step)
    replaced = _temporary(run_dir, "replaced", snapshot.step)
    with _removed_on_error(temporary):
        if is_checkpoint(final):
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)  # `checkpoints` finds it under this name too
        try:
            temporary.rename(final)
        except OSError:
            if replaced.exists():
                replaced.rename(final)
            raise
        _flush(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def _temporary(run_dir: Path, what: str, step: int) -> Path:
    return run_dir / "checkpoints" / f".{what}-{step:08d}-{os.getpid()}"


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _linked(existing: Path, path: Path) -> bool:
    """Whether `path` could be made a second name of the file `existing`; not every file system has them."""
    with suppress(OSError):
        os.link(existing, path)
        return True
    return False


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_tensors(folder: Path, stem: str) -> Tensors:
    """The tensors in a file of the checkpoint; none where there is no such file."""
    path = folder / f"{stem}.safetensors"
    return load_file(path) if path.exists() else {}


def mark_best(checkpoint: Path) -> None:
    """Let the link `best` point to this checkpoint, if both can be; replaced in one step."""
    link, temporary = checkpoint.parent / "best", checkpoint.parent / f".best-{os.getpid()}"
    if not is_checkpoint(checkpoint) or (link.exists() and not link.is_symlink()):  # a copied run may have a folder
        return
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(checkpoint.name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        temporary.replace(link)


def prune(run_dir: Path, *, policy: str | None, keep: int, primary: dict[int, float], best_step: int | None) -> None:
    """Delete what the policy does not keep; the newest checkpoint and the best one always stay.

    Args:
        policy: latest_k keeps the newest, top_k those with the highest `primary`, None all.
        primary: step -> primary number of the checkpoints that were evaluated.
    """
    folders = checkpoints(run_dir)
    if policy is None or len(folders) <= keep:
        return
    lowest = float("-inf")
    rank = (lambda folder: primary.get(step_of(folder), lowest)) if policy == "top_k" else step_of
    kept = {folders[0], *sorted(folders, key=rank, reverse=True)[:keep]}
    for folder in folders:
        if folder not in kept and step_of(folder) != best_step:
            trash = _temporary(run_dir, "trash", step_of(folder))
            shutil.rmtree(trash, ignore_errors=True)
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def clean_up(run_dir: Path) -> None:
    """Remove what a killed process left half-written or half-deleted; what a living one uses stays."""
    folder = run_dir / "checkpoints"
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        found = _TEMPORARY.fullmatch(path.name)
        if not found or is_at_work(int(found["pid"])):
            continue
        if found["what"] == "replaced" and not (final := folder_of(run_dir, int(found["step"]))).exists():
            path.rename(final)
        elif path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
