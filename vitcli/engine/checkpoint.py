"""Checkpoints: atomic, verified, free of pickle.

    RUN/checkpoints/
        step-00001234/
            model.safetensors  ema.safetensors  optimizer.safetensors
            state.json         step, best metric, recipe, class names, preprocessing, versions
            MANIFEST.json      size and sha256 of each file
        best -> step-00001234

A checkpoint is written to a temporary folder, flushed to the disk, and renamed; so a folder called step-… is either
whole or damaged by something else, which the manifest shows. The newest valid one is found by looking for it.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitcli.errors import DiskError, is_disk_full
from vitcli.weights.checkpoint_folders import STATE, checkpoints, folder_of, step_of
from vitcli.weights.json_file import read_json
from vitcli.weights.manifest import write_manifest

Tensors = dict[str, Tensor]


def save_checkpoint(run_dir: Path, step: int, tensors: dict[str, Tensors], state: dict[str, Any]) -> Path:
    """Write `tensors` (file stem -> tensors) and `state` as the checkpoint of `step`; the folder it became.

    Raises:
        DiskError: there is no room; older checkpoints are untouched and nothing is left behind.
    """
    folder, final = run_dir / "checkpoints", folder_of(run_dir, step)
    temporary = folder / f".writing-{step:08d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for stem, values in tensors.items():
            path = temporary / f"{stem}.safetensors"
            save_file({name: value.detach().contiguous().cpu() for name, value in values.items()}, path)
            path.chmod(0o644)  # safetensors makes it readable by its owner only
        (temporary / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        write_manifest(temporary)
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
        old = final.with_suffix(".old")
        if final.exists():  # the same step again, now with its metric; until the next line the old one is still found
            final.rename(old)
        temporary.rename(final)
        _flush(folder)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error):
            need = sum(value.nbytes for values in tensors.values() for value in values.values())
            free = shutil.disk_usage(folder if folder.exists() else run_dir).free
            message = (
                f"the disk is full: checkpoint {step} needs {need / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free"
            )
            raise DiskError(
                message, help="make room, then continue with --resume auto; older checkpoints are intact"
            ) from None
        if isinstance(error, OSError):
            raise DiskError(f"cannot write checkpoint {step} to {folder}: {error.strerror or error}") from None
        raise
    return final


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_state(folder: Path) -> dict[str, Any]:
    return read_json(folder / STATE)


def load_tensors(folder: Path, stem: str) -> Tensors:
    return load_file(folder / f"{stem}.safetensors")


def mark_best(checkpoint: Path) -> None:
    """Let the link `best` point to this checkpoint, if it is there; replaced in one step."""
    if not checkpoint.exists():
        return
    link, temporary = checkpoint.parent / "best", checkpoint.parent / f".best-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(checkpoint.name)
    temporary.replace(link)


def prune(run_dir: Path, *, policy: str | None, keep: int, top1: dict[int, float]) -> None:
    """Delete what the policy does not keep; the newest checkpoint and the best one always stay.

    Args:
        policy: latest_k keeps the newest, top_k those with the highest `top1`, None all.
        top1: step -> metric of the checkpoints that were evaluated.
    """
    folders = checkpoints(run_dir)
    if policy is None or len(folders) <= keep:
        return
    best = (run_dir / "checkpoints" / "best").resolve()
    rank = (lambda folder: top1.get(step_of(folder), -1.0)) if policy == "top_k" else step_of
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


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> Tensors:
    """The optimizer's state under the names of its parameters: `exp_avg/stem.0.conv_kxk.0.conv.weight`."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{field}/{names[id(parameter)]}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for parameter, fields in optimizer.state.items()
        for field, value in fields.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Tensors) -> None:
    """Put back what `optimizer_tensors` took."""
    indices = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    index_of = {
        name: indices[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in indices
    }
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        field, name = key.split("/", 1)
        state.setdefault(index_of[name], {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
