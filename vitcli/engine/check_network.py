"""What is refused of a network before it is built: memory that it does not have, a batch that it cannot train on."""

import torch
from torch import nn

from vitcli import catalog
from vitcli.data.sampler import BatchPlan
from vitcli.distributed import World
from vitcli.errors import UsageError
from vitcli.models.shapes import shapes_only
from vitcli.models.sizes import num_parameters
from vitcli.networks.build import build_network, trains_on_one_image
from vitcli.optim.optimizers import state_bytes
from vitcli.process import available_memory
from vitcli.recipe.load import Recipe

_GIB = 2**30


def check_network(recipe: Recipe, world: World, plan: BatchPlan, class_names: list[str] | None) -> None:
    """Raise UsageError if the recipe's network cannot be trained here. Built without values, it takes no memory.

    A network that is too large for the memory would be killed by the system, without a word.
    """
    num_outputs = catalog.load("tasks", recipe.learning.task).num_outputs(class_names)
    try:
        with shapes_only():
            network = build_network(recipe, num_outputs)
    except RuntimeError:  # a plugin's model that needs values to be built
        return
    _check_memory(recipe, world, num_parameters(network))
    if plan.smallest_batch == 1 and not recipe.optimizer.freeze:
        _check_single_image(recipe, plan, network)


def _check_memory(recipe: Recipe, world: World, count: int) -> None:
    """Refuse weights, gradients and an optimizer that are more than there is; activations are not counted."""
    needed, there = count * _bytes_per_parameter(recipe, world), _there(world.device)
    if there is None or needed <= there:
        return
    place = "the GPU has" if world.device.type == "cuda" else "this machine has left"
    height, width = recipe.augmentation.height_and_width
    message = f"{recipe.model.model} has {count:,} parameters for images of {width} x {height} px; "
    message += f"it takes at least {needed / _GIB:.1f} GiB, and {place} {there / _GIB:.1f}"
    help = "choose a smaller --model or --image_resize; --opt adamw_8bit and --ckpt_async False need less"
    raise UsageError(message, help=help)


def _bytes_per_parameter(recipe: Recipe, world: World) -> float:
    """On a GPU, or of all processes of this machine that share its memory."""
    optim = recipe.optimizer
    trained = 0 if optim.freeze else 4 + state_bytes(optim)  # how much is frozen is not known here
    average = 4 if optim.ema else 0
    of_each = (4 + trained + average) / (world.size if recipe.system.parallel == "fsdp" else 1)
    if world.device.type == "cuda":
        return of_each
    copies = 4 + average + max(0, trained - 4) if recipe.checkpoint.ckpt_async else 0
    return of_each * world.local_size + copies


def _there(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return available_memory() if device.type == "cpu" else None


def _check_single_image(recipe: Recipe, plan: BatchPlan, network: nn.Module) -> None:
    """Refuse batches of one image if BatchNorm cannot train on them."""
    if trains_on_one_image(network, recipe.model.in_channels, recipe.augmentation.height_and_width):
        return
    which = "a batch" if plan.batch_size == 1 else "the last batch of each epoch"
    reason = f"the last map of {recipe.model.model} is one pixel"
    help = "raise --batch_size" if plan.batch_size == 1 else "set drop_remainder: true, or another batch_size"
    raise UsageError(f"{which} has one image, on which BatchNorm cannot train: {reason}", help=help)
