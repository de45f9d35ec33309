"""A run becomes a snapshot, a snapshot becomes a checkpoint, and a checkpoint becomes the run again.

Only `snapshot` looks at the run; `saving.py` says when, and who writes it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitcli.disk import disk_errors
from vitcli.engine import checkpoint
from vitcli.engine.checkpoint import Snapshot, Tensors
from vitcli.engine.resume import ResumePoint
from vitcli.engine.training import Progress, Training
from vitcli.errors import ResumeError
from vitcli.parallel.shards import part_of
from vitcli.tasks.task import NETWORK
from vitcli.weights.checkpoint_folders import FORMAT, folder_of


def snapshot(training: Training, meter: dict[str, Any]) -> Snapshot:
    """The run as it is now; ranks other than 0 get no tensors. `meter`: its state.

    Every rank must call it, unless rank 0 has all of the task (`Replicas`) and calls it alone.
    """
    copied = training.memory.copied
    tensors = {"model": copied("model", training.task.network.state_dict())}
    if extra := training.task.extra_state():
        tensors["task"] = copied("task", extra)
    if training.ema:
        tensors["ema"] = copied("ema", training.ema.model.state_dict())
    tensors["optimizer"] = copied("optimizer", optimizer_tensors(training.optimizer, training.task))
    training.memory.wait()
    state = {
        "format": FORMAT,
        "progress": asdict(training.progress),
        "epoch": training.progress.step / training.plan.steps_per_epoch,
        "global_batch": training.plan.global_batch,
        "meter": meter,
        "nonfinite": training.nonfinite.state(),
        "metrics_lines": training.reporter.num_lines,
        "scaler": training.scaler.state_dict(),
        "recipe": training.recipe.flat(),
        **training.facts,
        # those of an earlier step are not for these weights
        "findings": training.findings if training.progress.closed_step == training.progress.step else {},
    }
    return Snapshot(training.progress.step, tensors, state)


def restore(training: Training, point: ResumePoint) -> None:
    """Go back to the moment of the checkpoint.

    Raises:
        ResumeError: it has other tensors than the run.
    """
    folder, state = point.folder, upgraded(point.state)
    is_current = point.state.get("format", 1) == FORMAT
    tensors = {stem: checkpoint.load_tensors(folder, stem) for stem in ("model", "task", "ema", "optimizer")}
    if not is_current:
        tensors["optimizer"] = {key.replace("/", f"/{NETWORK}", 1): t for key, t in tensors["optimizer"].items()}
    try:
        task = training.task
        task.restore(_parts(tensors["model"], task.network.state_dict()), _parts(tensors["task"], task.extra_state()))
        if training.ema:
            average = training.ema.model
            average.load_state_dict(_parts(tensors["ema"], average.state_dict()))
        restore_optimizer(training.optimizer, training.task, tensors["optimizer"])
    except (KeyError, RuntimeError) as error:
        help = "the model or task of a plugin changed; start a new run from these weights with --ckpt_path"
        raise ResumeError(f"{folder} does not fit this run: {str(error).splitlines()[0]}", help=help) from None
    if state["scaler"]:
        training.scaler.load_state_dict(state["scaler"])
    progress = training.progress = Progress(**state["progress"])
    progress.primary = {int(step): value for step, value in progress.primary.items()}  # JSON's keys are strings
    training.meter.restore(state["meter"], is_main=training.world.is_main)
    training.nonfinite.restore(state.get("nonfinite", {}), progress.step, is_main=training.world.is_main)
    training.reporter.record_in(training.run_dir, progress.step, keep_lines=state["metrics_lines"])
    training.averaged_step = progress.step
    training.saved_step = progress.step if is_current else None
    if training.world.is_main and progress.best_step is not None:  # killed before the link was set, perhaps
        with disk_errors("the link `best`", training.run_dir):
            checkpoint.mark_best(folder_of(training.run_dir, progress.best_step))


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """state.json of format 1 as format 2 has it; the steps since its last log line are not counted in the next."""
    if state.get("format", 1) == FORMAT:
        return state
    old = state["progress"]
    best = old["best_top1"] if old["best_step"] is not None else None
    progress = {name: old[name] for name in ("step", "closed_step", "best_step")}
    return state | {
        "progress": progress | {"best": best, "primary": old["top1"]},
        "meter": {"sums": {}, "steps": 0, "dropped_in_a_row": 0.0},
        "metrics_lines": None,
    }


def _parts(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensors:
    """Of each whole tensor what this rank holds of the one with the same name in `own`."""
    return {name: part_of(value, own[name]) if name in own else value for name, value in tensors.items()}


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
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(part_of(value, parameter))
        state.setdefault(index_of[id(parameter)], {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
