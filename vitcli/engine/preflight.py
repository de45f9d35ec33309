"""What is refused, or noted, before a run touches anything: the launcher, the device, weights that are not there."""

import os
from pathlib import Path

import torch

from vitcli.distributed import num_launched
from vitcli.engine.precision import chosen_amp, has_float8
from vitcli.errors import RecipeError, UsageError
from vitcli.recipe import check
from vitcli.recipe.load import Recipe
from vitcli.slurm import num_unused_tasks
from vitcli.weights.address import is_remote


def check_launch(recipe: Recipe) -> list[str]:
    """Refuse a recipe that contradicts how it was started; returns notes."""
    if (tasks := num_unused_tasks(os.environ)) and recipe.system.distribute is not False:
        help = "start it with srun, which makes each task a process of the training; or add --distribute False"
        raise UsageError(f"SLURM has {tasks} tasks for this job, but srun did not start this process", help=help)
    problems, notes = check.launch(recipe, num_launched())
    if problems:
        raise RecipeError(problems)
    if recipe.system.parallel == "fsdp" and num_launched() == 1:
        notes = [*notes, "`parallel: fsdp` has no effect with one process"]
    return notes


def check_device(recipe: Recipe, device: torch.device) -> list[str]:
    """Refuse what the device cannot do; returns notes on what is done differently than asked."""
    if recipe.system.amp == "fp16" and device.type == "cpu":
        raise UsageError("amp fp16 needs a GPU: CPUs have no fast fp16 arithmetic", help="use --amp bf16 or --amp off")
    if recipe.system.amp == "fp8" and not has_float8(device):
        message = "amp fp8 needs an NVIDIA GPU of compute capability 8.9 or more, such as an L40 or H100"
        raise UsageError(message, help="use --amp bf16 or --amp off")
    if recipe.system.parallel == "fsdp" and num_launched() > 1 and chosen_amp(recipe, device) == "fp16":
        message = "`parallel: fsdp` does not train in fp16: the loss scale of the ranks could differ"
        raise UsageError(message, help="use --amp bf16, --amp off, or --parallel ddp")
    if recipe.system.channels_last and device.type == "cpu":
        return ["channels_last is ignored: PyTorch's CPU kernels crash with it in training"]
    return []


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """So that a checkpoint finds its data from wherever it is used."""
    section, ckpt_path = recipe.dataset, recipe.model.ckpt_path
    names = ("data_dir", "val_labels", "class_names")
    paths = {name: getattr(section, name) for name in names} | {"ckpt_path": ckpt_path}
    local = {name: Path(path).absolute() for name, path in paths.items() if path and not is_remote(path)}
    return recipe.changed(**local)
