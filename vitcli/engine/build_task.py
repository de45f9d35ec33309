"""The task of a run with its network: first values, what is frozen or rounded, the kernels of the device."""

import torch
from torch import nn

from vitcli import catalog
from vitcli.data.streams import stream_seed
from vitcli.engine.precision import train_in_float8
from vitcli.layers.cpu import use_cpu_kernels
from vitcli.layers.fake_quant import simulate_int8
from vitcli.layers.gpu import use_gpu_kernels
from vitcli.log import Reporter
from vitcli.networks.build import build_network, float_layers
from vitcli.optim.freeze import freeze
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Task
from vitcli.weights.load import load_weights
from vitcli.weights.read import Weights


def build_task(
    recipe: Recipe,
    class_names: list[str] | None,
    device: torch.device,
    reporter: Reporter,
    weights: Weights | None = None,
    network: nn.Module | None = None,
) -> Task:
    """The recipe's task with its first values: the seed's, or those of `weights`, with a report of what was loaded."""
    kind: type[Task] = catalog.load("tasks", recipe.learning.task)
    torch.manual_seed(stream_seed("init", recipe.system.seed))
    if network is None:
        network = build_network(recipe, kind.num_outputs(class_names))
    if weights:
        section = recipe.model
        report = load_weights(
            network,
            weights,
            class_names=class_names,
            reset_head=section.reset_head,
            pos_resample=section.pos_resample,
        )
        reporter.say(f"weights  {weights.source}: {report.lines()[0]}")
        reporter.notes(report.lines()[1:])
    if recipe.model.quantize == "int8_qat":
        reporter.say(simulate_int8(network, keep_float=float_layers(network)))
    if recipe.optimizer.freeze:
        reporter.say(freeze(network, recipe.optimizer.freeze))
    if recipe.system.amp == "fp8":
        reporter.say(train_in_float8(network))
    if device.type == "cpu":
        use_cpu_kernels(network)
    elif device.type == "cuda" and _may_use_triton(recipe):
        use_gpu_kernels(network)
    task = kind(recipe, network.to(device), class_names).to(device)
    if lies_by_pixel(recipe, device):
        task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return task


def lies_by_pixel(recipe: Recipe, device: torch.device) -> bool:
    """Whether images and weights are in the layout NHWC (`channels_last`)."""
    return recipe.system.channels_last and device.type != "cpu"


def _may_use_triton(recipe: Recipe) -> bool:
    """Compiled networks get the compiler's kernels; sharded ones were not tried."""
    system = recipe.system
    return system.fast_kernels and not system.compile and system.parallel == "ddp"
