"""What a training takes at least of the memory: one that cannot fit would be killed by the system, without a word."""

import torch

from vitcli.distributed import World
from vitcli.errors import UsageError
from vitcli.models.sizes import num_parameters
from vitcli.networks.build import build_network
from vitcli.optim.optimizers import state_bytes
from vitcli.process import available_memory
from vitcli.recipe.load import Recipe

_GIB = 2**30


def check_memory(recipe: Recipe, world: World, num_outputs: int) -> None:
    """Raise UsageError if weights, gradients and optimizer are more than there is; activations are not counted."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            count = num_parameters(build_network(recipe, num_outputs))
    except RuntimeError:  # a plugin's model that needs values to be built
        return
    needed, there = count * _bytes_per_parameter(recipe, world), _there(world.device)
    if there is None or needed <= there:
        return
    place = "the GPU has" if world.device.type == "cuda" else "this machine has left"
    height, width = recipe.augmentation.height_and_width
    size = f"{count:,} parameters for images of {width} x {height} px"
    message = (
        f"{recipe.model.model} has {size}; it takes at least {needed / _GIB:.1f} GiB, and {place} {there / _GIB:.1f}"
    )
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
