"""What is refused, or noted, before a run touches anything: the launcher, the device, weights that are not there."""

import torch

from vitcli.distributed import num_launched
from vitcli.errors import RecipeError, UsageError
from vitcli.recipe import check
from vitcli.recipe.load import Recipe


def check_launch(recipe: Recipe) -> list[str]:
    """Refuse a recipe that contradicts how it was started; returns notes."""
    problems, notes = check.launch(recipe, num_launched())
    if problems:
        raise RecipeError(problems)
    return notes


def check_device(recipe: Recipe, device: torch.device) -> list[str]:
    """Refuse what the device cannot do; returns notes on what is done differently than asked."""
    if recipe.system.amp == "fp16" and device.type == "cpu":
        raise UsageError("amp fp16 needs a GPU: CPUs have no fast fp16 arithmetic", help="use --amp bf16 or --amp off")
    if recipe.system.channels_last and device.type == "cpu":
        return ["channels_last is ignored: PyTorch's CPU kernels crash with it in training"]
    return []


def check_frozen(recipe: Recipe) -> None:
    """Refuse to freeze or to quantize weights that are random."""
    freeze, quantize = recipe.optimizer.freeze, recipe.model.quantize
    if recipe.model.ckpt_path is not None:
        return
    if isinstance(freeze, str):
        raise UsageError(f"freeze: {freeze}, but the weights are random", help="give --ckpt_path, or remove freeze")
    if quantize != "none":
        help = "train without quantize first, then give that run as --ckpt_path"
        raise UsageError(f"quantize: {quantize}, but the weights are random", help=help)
