"""A run becomes a snapshot, a snapshot becomes a checkpoint, and a checkpoint becomes the run again.

    snapshot (every rank)  ->  checkpoint.write  ->  checkpoint.publish

Only the first looks at the run; what it returns is on the host and does not change any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitcli.distributed import from_main
from vitcli.engine import checkpoint
from vitcli.engine.checkpoint import Snapshot, Tensors
from vitcli.engine.resume import ResumePoint
from vitcli.engine.training import Progress, Training
from vitcli.errors import DiskError, DivergedError, ResumeError
from vitcli.tasks.task import NETWORK
from vitcli.weights.checkpoint_folders import FORMAT, folder_of

DIVERGED_HELP = (
    "lower lr, lengthen warmup_epochs, or set clip_grad: true; with amp fp16 try bf16. Checkpoints written before are "
    "intact; a run with another lr is a new one and can start from them by --ckpt_path"
)


def snapshot(training: Training) -> Snapshot:
    """The run as it is now. Every rank must call it; ranks other than 0 get no tensors."""
    training.average_buffers()
    meter = training.meter.state()
    tensors: dict[str, Tensors] = {}
    if training.world.is_main:
        tensors["model"] = _on_host(training.task.network.state_dict())
        if extra := training.task.extra_state():
            tensors["task"] = _on_host(extra)
        if training.ema:
            tensors["ema"] = _on_host(training.ema.model.state_dict())
        tensors["optimizer"] = _on_host(optimizer_tensors(training.optimizer, training.task))
    state = {
        "format": FORMAT,
        "progress": asdict(training.progress),
        "epoch": training.progress.step / training.plan.steps_per_epoch,
        "global_batch": training.plan.global_batch,
        "meter": meter,
        "metrics_lines": training.reporter.num_lines,
        "scaler": training.scaler.state_dict(),
        "recipe": training.recipe.flat(),
        **training.facts,
    }
    return Snapshot(training.progress.step, tensors, state)


def save(training: Training) -> None:
    """Write a checkpoint of this moment, delete old ones, mark the best. Every rank must call it.

    Raises:
        DiskError: on all ranks, when rank 0 could not write.
        DivergedError: a weight or statistic is not finite; nothing was written.
    """
    taken = snapshot(training)
    failure = None
    if training.world.is_main:
        try:
            _refuse_not_finite(taken)
            _write(training, taken)
        except (DiskError, DivergedError) as error:
            failure = error
    if failure := from_main(failure):
        raise failure
    training.saved_step = taken.step


def _write(training: Training, taken: Snapshot) -> None:
    run_dir, section, progress = training.run_dir, training.recipe.checkpoint, training.progress
    before = folder_of(run_dir, taken.step) if training.saved_step == taken.step else None
    temporary = checkpoint.write(run_dir, taken, same_tensors=before)
    folder = checkpoint.publish(run_dir, taken, temporary)
    try:
        if progress.best_step == taken.step:
            checkpoint.mark_best(folder)
        policy, keep = section.ckpt_save_policy, section.keep_checkpoint_max
        checkpoint.prune(run_dir, policy=policy, keep=keep, primary=progress.primary)
    except OSError as error:
        message = f"checkpoint {taken.step} is written, but older ones or the link `best` cannot be changed"
        raise DiskError(f"{message}: {error.strerror or error}") from None


def _refuse_not_finite(taken: Snapshot) -> None:
    for stem in ("model", "task", "ema"):
        for name, value in taken.tensors.get(stem, {}).items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise DivergedError(f"{name} is not finite after step {taken.step}", help=DIVERGED_HELP)


def restore(training: Training, point: ResumePoint) -> None:
    """Go back to the moment of the checkpoint.

    Raises:
        ResumeError: it has other tensors than the run.
    """
    folder, state = point.folder, upgraded(point.state)
    is_current = point.state["format"] == FORMAT
    tensors = {stem: checkpoint.load_tensors(folder, stem) for stem in ("model", "task", "ema", "optimizer")}
    if not is_current:
        tensors["optimizer"] = {key.replace("/", f"/{NETWORK}", 1): t for key, t in tensors["optimizer"].items()}
    try:
        training.task.restore(tensors["model"], tensors["task"])
        if training.ema:
            training.ema.model.load_state_dict(tensors["ema"])
        restore_optimizer(training.optimizer, training.task, tensors["optimizer"])
    except (KeyError, RuntimeError) as error:
        help = "the model or task of a plugin changed; start a new run from these weights with --ckpt_path"
        raise ResumeError(f"{folder} does not fit this run: {str(error).splitlines()[0]}", help=help) from None
    if state["scaler"]:
        training.scaler.load_state_dict(state["scaler"])
    progress = training.progress = Progress(**state["progress"])
    progress.primary = {int(step): value for step, value in progress.primary.items()}  # JSON's keys are strings
    training.meter.restore(state["meter"], is_main=training.world.is_main)
    training.reporter.record_in(training.run_dir, progress.step, keep_lines=state["metrics_lines"])
    training.averaged_step = progress.step
    training.saved_step = progress.step if is_current else None
    if training.world.is_main and progress.best_step is not None:  # killed before the link was set, perhaps
        checkpoint.mark_best(folder_of(training.run_dir, progress.best_step))


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """state.json of format 1 as format 2 has it; the steps since its last log line are not counted in the next."""
    if state["format"] == FORMAT:
        return state
    old = state["progress"]
    best = old["best_top1"] if old["best_step"] is not None else None
    progress = {name: old[name] for name in ("step", "closed_step", "best_step")}
    return state | {
        "progress": progress | {"best": best, "primary": old["top1"]},
        "meter": {"sums": {}, "steps": 0, "dropped_in_a_row": 0.0},
        "metrics_lines": None,
    }


def optimizer_tensors(optimizer: Optimizer, task: nn.Module) -> Tensors:
    """The optimizer's state under the names of its parameters: `exp_avg/network.stem.0.conv_kxk.0.conv.weight`."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    return {
        f"{field}/{names[id(parameter)]}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for parameter, fields in optimizer.state.items()
        for field, value in fields.items()
    }


def restore_optimizer(optimizer: Optimizer, task: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took, in the memory layout of the parameters."""
    trained: Iterable[nn.Parameter] = (p for group in optimizer.param_groups for p in group["params"])
    index_of = {id(parameter): index for index, parameter in enumerate(trained)}
    parameters = dict(task.named_parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        field, name = key.split("/", 1)
        parameter = parameters[name]
        if value.shape == parameter.shape:  # a file has all of them row by row, the network may be channels_last
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(index_of[id(parameter)], {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _on_host(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies that later steps do not change, row by row."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
