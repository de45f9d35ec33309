"""Builds a training run from a recipe: plan, network, task, optimizer, moving average, batches, evaluators."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitcli import catalog
from vitcli.data.datasets import Splits
from vitcli.data.sampler import BatchPlan
from vitcli.data.value_range import settled_range
from vitcli.distributed import World
from vitcli.engine.bad_images import BAD_IMAGES, BadImages
from vitcli.engine.build_batches import build_batches, build_plan
from vitcli.engine.build_task import build_task, lies_by_pixel
from vitcli.engine.check_network import check_network
from vitcli.engine.half_step import HalfStep
from vitcli.engine.host_memory import memory_of
from vitcli.engine.meter import Meter
from vitcli.engine.nonfinite import NONFINITE, NonfiniteSteps
from vitcli.engine.precision import build_autocast, chosen_amp
from vitcli.engine.side_stream import SideStream
from vitcli.engine.training import Training
from vitcli.engine.writer import CheckpointWriter
from vitcli.errors import UsageError
from vitcli.evaluators.evaluator import Evaluator, Setting
from vitcli.layers.cpu.memory import keep_freed_memory
from vitcli.log import Reporter
from vitcli.networks.opened import open_weights
from vitcli.networks.precedence import adopt_preprocessing, preprocessing
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.optim.schedule import scaled_lr
from vitcli.parallel.parts import Compiler
from vitcli.parallel.replicas import Replicas
from vitcli.parallel.sharded import Shards
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Task
from vitcli.weights.read import Weights


def build_training(
    recipe: Recipe,
    world: World,
    run_dir: Path,
    splits: Splits,
    reporter: Reporter,
    *,
    fresh: bool,
    network: nn.Module | None = None,
) -> Training:
    """Every part of the run.

    Args:
        fresh: start from `ckpt_path` where the recipe names one (a resumed run has its own weights). The preprocessing
            of these weights is used where the recipe leaves it open; see `Training.recipe`.
        network: instead of the recipe's model.
    """
    section = recipe.model
    weights = open_weights(section.ckpt_path, use_ema=section.use_ema) if fresh and section.ckpt_path else None
    recipe = _with_preprocessing(recipe, weights, splits, reporter)
    prepare_device(recipe, world.device)
    plan = build_plan(recipe, world, splits.train)
    lr_factor, lr_text = scaled_lr(recipe.scheduler, plan.global_batch)
    reporter.say(lr_text)
    class_names = _class_names(recipe, splits)
    if network is None:
        check_network(recipe, world, plan, class_names)
    task = build_task(recipe, class_names, world.device, reporter, weights, network)
    reporter.notes(task.notes(accumulation=plan.accumulation, world_size=world.size))
    ema = _build_ema(recipe, task)
    parallel = _build_parallel(recipe, world, task, ema)
    half_step, side = HalfStep(task), SideStream(world.device)
    return Training(
        recipe=recipe,
        world=world,
        run_dir=run_dir,
        task=task,
        parallel=parallel,
        optimizer=_build_optimizer(recipe, task, world.device, reporter),
        scaler=torch.amp.GradScaler(world.device.type, enabled=chosen_amp(recipe, world.device) == "fp16"),
        ema=ema,
        plan=plan,
        lr_factor=lr_factor,
        batches=partial(side.loaded, build_batches(recipe, world, splits, plan, task.num_views)),
        side=side,
        evaluators=build_evaluators(recipe, world, splits, task),
        autocast=build_autocast(recipe, world.device),
        facts=_facts(recipe, task, class_names),
        reporter=reporter,
        bad_images=_bad_images(recipe, run_dir, plan, reporter),
        meter=Meter(world.device),
        writer=CheckpointWriter(run_dir, recipe.checkpoint),
        memory=memory_of(world.is_main, keeps_copies=recipe.checkpoint.ckpt_async),
        half_step=half_step,
        nonfinite=NonfiniteSteps(
            recipe.optimizer.on_nonfinite, half_step, run_dir / NONFINITE, splits.train, plan, reporter.faults
        ),
        channels_last=lies_by_pixel(recipe, world.device),
    )


def _with_preprocessing(recipe: Recipe, weights: Weights | None, splits: Splits, reporter: Reporter) -> Recipe:
    """The recipe with the preprocessing of the weights, where it sets none, and the range of values of the images."""
    if weights:
        recipe, said = adopt_preprocessing(recipe, weights)
        reporter.notes(said)
    given = recipe.augmentation.pixel_range
    found = settled_range(splits.train, recipe.model.in_channels, given)
    if found == given:
        return recipe
    reporter.notes([f"images of more than 8 bits per channel: pixel_range {list(found)}"])
    return recipe.changed("the images", pixel_range=list(found))


def _class_names(recipe: Recipe, splits: Splits) -> list[str] | None:
    """The classes to learn or to evaluate; None where neither needs labels."""
    learns_classes = catalog.load("tasks", recipe.learning.task).needs_labels
    return splits.class_names if learns_classes or splits.val is not None else None


def _facts(recipe: Recipe, task: Task, class_names: list[str] | None) -> dict[str, Any]:
    """What the users of the network need to know; written into each checkpoint."""
    of_outputs = class_names if task.num_outputs(class_names) else None
    return {"class_names": of_outputs, "preprocessing": preprocessing(recipe)}


def _bad_images(recipe: Recipe, run_dir: Path, plan: BatchPlan, reporter: Reporter) -> BadImages:
    ratio = recipe.dataset.max_bad_ratio
    return BadImages(run_dir / BAD_IMAGES, max_ratio=ratio, of=plan.num_samples, faults=reporter.faults)


def _build_ema(recipe: Recipe, task: Task) -> ExponentialMovingAverage | None:
    optim = recipe.optimizer
    if not optim.ema:
        return None
    return ExponentialMovingAverage(task.network, decay=optim.ema_decay, ramp_steps=optim.ema_ramp_steps)


def _build_parallel(
    recipe: Recipe, world: World, task: Task, ema: ExponentialMovingAverage | None
) -> Replicas | Shards:
    """How the task lies on the ranks. Its parameters may become other objects, so the optimizer is built after it."""
    system = recipe.system
    compiler = Compiler(system.compile_seconds) if system.compile else None
    if system.parallel == "fsdp" and world.size > 1:
        return Shards(task, ema.model if ema else None, world.size, world.device, compiler)
    return Replicas(task, world.size, world.device, compiler)


def _build_optimizer(recipe: Recipe, task: Task, device: torch.device, reporter: Reporter) -> torch.optim.Optimizer:
    optim = recipe.optimizer
    decay = {"weight_decay": optim.weight_decay, "weight_decay_filter": optim.weight_decay_filter}
    groups = param_groups(task, **decay, layer_decay=optim.layer_decay)
    optimizer = build_optimizer(optim, groups, device, task)
    if describe := getattr(optimizer, "describe", None):
        reporter.say(describe())
    return optimizer


def prepare_device(recipe: Recipe, device: torch.device) -> None:
    """Settings of the process that hold for the whole run."""
    if device.type == "cpu":
        keep_freed_memory()
    if recipe.system.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def build_evaluators(recipe: Recipe, world: World, splits: Splits, task: Task) -> dict[str, Evaluator]:
    """The evaluators that the recipe names, else the task's own.

    Raises:
        UsageError: one of them needs a classifier, and the task trains none.
        DataError: one of them needs labels or a validation split that the data does not have.
    """
    own = dict.fromkeys(measurement.evaluator for measurement in task.measurements(task.network))
    setting = Setting(recipe, splits.val, world, build_autocast(recipe, world.device), splits.train)
    evaluators: dict[str, Evaluator] = {}
    if splits.val is None and not recipe.system.val_while_train:
        own = {}
    for name in recipe.evaluation.evaluate or own:
        kind: type[Evaluator] = catalog.load("evaluators", name)
        if kind.needs_classifier and name not in own and not task.num_outputs(splits.class_names):
            message = f"the evaluator {name} needs a classifier, and `task: {recipe.learning.task}` trains none"
            raise UsageError(message, help="choose other evaluators with --evaluate")
        evaluators[name] = kind(setting)
    return evaluators
