"""Checkpoints: atomic, verified, free of pickle.

    RUN/checkpoints/
        step-00001234/
            model.safetensors      the network that is deployed
            task.safetensors       what else the task needs: heads, a target network
            ema.safetensors  optimizer.safetensors
            state.json             progress, recipe, class names, preprocessing
            MANIFEST.json          size and sha256 of each file
        best -> step-00001234

A checkpoint is written to a temporary folder, flushed to the disk, and renamed. So a folder called step-… is either
complete, or was damaged later, which the manifest shows. The newest valid one is found by looking for it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from vitcli.errors import DiskError, is_disk_full
from vitcli.weights.checkpoint_folders import checkpoints, folder_of, step_of
from vitcli.weights.manifest import write_manifest

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Snapshot:
    """A run at one step, in memory of the host that nothing else changes."""

    step: int
    tensors: dict[str, Tensors]  #: file stem -> tensors
    state: dict[str, Any]  #: state.json

    @property
    def num_bytes(self) -> int:
        return sum(value.nbytes for values in self.tensors.values() for value in values.values())


def write(run_dir: Path, snapshot: Snapshot, *, same_tensors: Path | None = None) -> Path:
    """Write the snapshot into a temporary folder, which `publish` gives its name.

    Args:
        same_tensors: a checkpoint that holds the very same tensors; its files are linked instead of written again.

    Raises:
        DiskError: there is no room; nothing is left behind.
    """
    temporary = run_dir / "checkpoints" / f".writing-{snapshot.step:08d}-{os.getpid()}"
    with _disk_errors_in_words(run_dir, snapshot, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
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


def publish(run_dir: Path, snapshot: Snapshot, temporary: Path) -> Path:
    """Give the folder that `write` made its name, in one step; the former checkpoint of the same step goes.

    Raises:
        DiskError: it cannot be renamed.
    """
    final = folder_of(run_dir, snapshot.step)
    old = final.with_suffix(".old")
    with _disk_errors_in_words(run_dir, snapshot, temporary):
        if final.exists():  # until the next line, the old one is still found
            final.rename(old)
        temporary.rename(final)
        _flush(final.parent)
        shutil.rmtree(old, ignore_errors=True)
    return final


@contextmanager
def _disk_errors_in_words(run_dir: Path, snapshot: Snapshot, temporary: Path) -> Iterator[None]:
    """On any error the temporary folder goes; one of the disk becomes a DiskError."""
    try:
        yield
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error):
            free = shutil.disk_usage(run_dir).free
            need, there = f"{snapshot.num_bytes / 2**20:.1f} MiB", f"{free / 2**20:.1f} MiB"
            raise DiskError(
                f"the disk is full: checkpoint {snapshot.step} needs {need}, {there} are free",
                help="free some space, then continue with --resume auto; older checkpoints are intact",
            ) from None
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise DiskError(f"cannot write checkpoint {snapshot.step} to {run_dir}: {reason}") from None
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
    """Let the link `best` point to this checkpoint, if it is there; replaced in one step."""
    if not checkpoint.exists():
        return
    link, temporary = checkpoint.parent / "best", checkpoint.parent / f".best-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(checkpoint.name)
    temporary.replace(link)


def prune(run_dir: Path, *, policy: str | None, keep: int, primary: dict[int, float]) -> None:
    """Delete what the policy does not keep; the newest checkpoint and the best one always stay.

    Args:
        policy: latest_k keeps the newest, top_k those with the highest `primary`, None all.
        primary: step -> primary number of the checkpoints that were evaluated.
    """
    folders = checkpoints(run_dir)
    if policy is None or len(folders) <= keep:
        return
    best = (run_dir / "checkpoints" / "best").resolve()
    lowest = float("-inf")
    rank = (lambda folder: primary.get(step_of(folder), lowest)) if policy == "top_k" else step_of
    kept = {folders[0], *sorted(folders, key=rank, reverse=True)[:keep]}
    for folder in folders:
        if folder not in kept and folder.resolve() != best:
            trash = folder.with_name(f".trash-{folder.name}")
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def clean_up(run_dir: Path) -> None:
    """Remove what a killed process left half-written or half-deleted."""
    for old in (run_dir / "checkpoints").glob("step-*.old"):
        if not old.with_suffix("").exists():
            old.rename(old.with_suffix(""))
    for pattern in (".writing-*", ".trash-*", ".best-*", "step-*.old"):
        for path in (run_dir / "checkpoints").glob(pattern):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
