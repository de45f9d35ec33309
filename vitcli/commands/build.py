"""Builds a training run out of a recipe: plan, network, optimizer, average, loaders, each from its section."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from vitcli.data.datasets import Splits
from vitcli.data.loader import build_train_loader, num_workers
from vitcli.data.mixing import BatchPreparer
from vitcli.data.sampler import BatchPlan
from vitcli.data.streams import stream_seed
from vitcli.data.transforms import build_train_transform
from vitcli.distributed import World, wrapped
from vitcli.engine.bad_images import BadImages
from vitcli.engine.evaluation import build_evaluate
from vitcli.engine.precision import build_autocast, chosen_amp
from vitcli.engine.training import Meter, Training
from vitcli.layers.cpu import use_cpu_kernels
from vitcli.layers.cpu.memory import keep_freed_memory
from vitcli.layers.fake_quant import simulate_int8
from vitcli.log import Reporter
from vitcli.networks import build as networks
from vitcli.networks.build import float_layers
from vitcli.networks.find import open_weights
from vitcli.networks.preprocessing import adopt_preprocessing, preprocessing
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.optim.freeze import freeze
from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.optim.schedule import accumulation_steps, scaled_lr
from vitcli.recipe.load import Recipe
from vitcli.tasks.classification import Classification
from vitcli.weights.load import load_weights
from vitcli.weights.read import Weights


def build_training(
    recipe: Recipe, world: World, run_dir: Path, splits: Splits, reporter: Reporter, *, fresh: bool
) -> Training:
    """Every part of the run. `fresh`: start from `ckpt_path` where the recipe names one (a resumed run has its own).

    The preprocessing of these weights is taken over where the recipe leaves it open; see `Training.recipe`.
    """
    weights = open_weights(recipe.model.ckpt_path) if fresh and recipe.model.ckpt_path else None
    if weights:
        recipe, said = adopt_preprocessing(recipe, weights)
        reporter.notes(said)
    device, optim, num_classes = world.device, recipe.optimizer, len(splits.class_names)
    prepare_device(recipe, device)
    plan = build_plan(recipe, world, len(splits.train))
    peak_lr, lr_text = scaled_lr(recipe.scheduler, plan.global_batch)
    reporter.say(lr_text)
    model = build_network(recipe, num_classes, reporter, weights).to(device)
    if optim.freeze:
        reporter.say(freeze(model, optim.freeze))
    if device.type == "cpu":
        use_cpu_kernels(model)
    channels_last = recipe.system.channels_last and device.type != "cpu"
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    task = Classification(model, recipe.loss)
    if recipe.system.compile:
        task.compile()
    groups = param_groups(
        model,
        weight_decay=optim.weight_decay,
        weight_decay_filter=optim.weight_decay_filter,
        layer_decay=optim.layer_decay,
    )
    ema = ExponentialMovingAverage(model, decay=optim.ema_decay, ramp_steps=optim.ema_ramp_steps) if optim.ema else None
    return Training(
        recipe=recipe,
        world=world,
        run_dir=run_dir,
        model=model,
        task=wrapped(task, world),
        optimizer=build_optimizer(optim, groups, device),
        scaler=torch.amp.GradScaler(device.type, enabled=chosen_amp(recipe, device) == "fp16"),
        ema=ema,
        plan=plan,
        peak_lr=peak_lr,
        channels_last=channels_last,
        prepare=BatchPreparer(recipe.augmentation, num_classes, in_channels=recipe.model.in_channels),
        batches=build_batches(recipe, world, splits, plan),
        evaluate=build_evaluate(recipe, splits.val, world),
        autocast=build_autocast(recipe, device),
        facts={"class_names": splits.class_names, "preprocessing": preprocessing(recipe)},
        reporter=reporter,
        after_step=task.after_step,
        meter=Meter(device),
        bad_images=BadImages(run_dir / "bad_images.jsonl", max_ratio=recipe.dataset.max_bad_ratio, of=plan.num_samples),
    )


def prepare_device(recipe: Recipe, device: torch.device) -> None:
    """Settings of the process that hold for the whole run."""
    if device.type == "cpu":
        keep_freed_memory()
    if recipe.system.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def build_plan(recipe: Recipe, world: World, num_samples: int) -> BatchPlan:
    """How the training images are dealt out to steps, micro-steps and ranks."""
    section, optim = recipe.dataset, recipe.optimizer
    return BatchPlan(
        num_samples=num_samples,
        batch_size=section.batch_size,
        world_size=world.size,
        accumulation=accumulation_steps(
            section.batch_size, world.size, optim.gradient_accumulation_steps, optim.global_batch_size
        ),
        seed=recipe.system.seed,
        shuffle=section.shuffle,
        drop_remainder=section.drop_remainder,
        repeats=max(1, recipe.augmentation.aug_repeats),
    )


def build_network(recipe: Recipe, num_classes: int, reporter: Reporter, weights: Weights | None) -> nn.Module:
    """The model with its first values: the seed's, or those of `weights`, with a report of what was loaded."""
    torch.manual_seed(stream_seed("init", recipe.system.seed))
    model = networks.build_network(recipe, num_classes)
    if weights:
        section = recipe.model
        report = load_weights(model, weights, reset_head=section.reset_head, pos_resample=section.pos_resample)
        reporter.say(f"weights  {weights.source}: {report.lines()[0]}")
        for line in report.lines()[1:]:
            reporter.note(line)
    if recipe.model.quantize == "int8_qat":
        reporter.say(simulate_int8(model, keep_float=float_layers(model)))
    return model


def build_batches(recipe: Recipe, world: World, splits: Splits, plan: BatchPlan) -> Callable[[int], Iterable]:
    """first step -> this rank's micro-batches from there to the end of the run."""
    transform = build_train_transform(recipe.augmentation, in_channels=recipe.model.in_channels)

    def batches(start_step: int) -> Iterable:
        return build_train_loader(
            splits.train,
            [transform],
            plan,
            seed=recipe.system.seed,
            rank=world.rank,
            start_step=start_step,
            total_steps=recipe.scheduler.epoch_size * plan.steps_per_epoch,
            num_workers=num_workers(recipe.dataset, world.local_size),
            on_bad_image=recipe.dataset.on_bad_image,
            pin_memory=world.device.type == "cuda",
        )

    return batches
