"""`vitcli train`: from a recipe and a folder of images to a run with its checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitcli.commands.resume import check_global_batch, check_resume, find_resume
from vitcli.commands.setup import (
    build_autocast,
    build_evaluate,
    build_model,
    check_device,
    check_launch,
    check_num_classes,
    num_workers,
    preprocessing,
    relative,
    say_notes,
)  # fmt: skip
from vitcli.data.datasets import Splits, build_splits
from vitcli.data.loader import build_train_loader
from vitcli.data.mixing import BatchPreparer
from vitcli.data.sampler import BatchPlan
from vitcli.data.streams import stream_seed
from vitcli.data.transforms import build_train_transform
from vitcli.distributed import World, from_main, gathered, joined, num_launched, wrapped
from vitcli.engine import checkpoint, run_dir
from vitcli.engine.accidents import accidents_in_words
from vitcli.engine.bad_images import BadImages
from vitcli.engine.loop import fit
from vitcli.engine.training import Meter, Training
from vitcli.errors import DivergedError, Interrupted, VitcliError
from vitcli.layers.memory import keep_freed_memory
from vitcli.log import Reporter
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.optim.schedule import accumulation_steps, scaled_lr
from vitcli.recipe.load import Recipe
from vitcli.recipe.write import recipe_text
from vitcli.tasks.classification import Classification
from vitcli.weights.load import load_weights


@dataclass(frozen=True)
class TrainResult:
    """Where the run lives and what it came to; metrics are None when nothing was evaluated."""

    run_dir: Path
    step: int
    best_top1: float | None
    best_step: int | None
    last_top1: float | None
    seconds: float


def train(recipe: Recipe) -> TrainResult:
    """Train as the recipe says; with torchrun, on every rank.

    Raises:
        VitcliError: see `errors.py`; nothing that was saved is lost by any of them.
    """
    launch_notes = check_launch(recipe)
    with joined(recipe.system.device, num_launched() > 1) as world:
        folder, resumed_from, damaged = _claim_run_dir(recipe, world)
        reporter = Reporter(enabled=world.is_main)
        try:
            say_notes(reporter, recipe.notes, launch_notes, check_device(recipe, world.device), damaged)
            return _train(recipe, world, folder, resumed_from, reporter)
        finally:
            reporter.close()
            if world.is_main:
                run_dir.leave(folder)


def _train(recipe: Recipe, world: World, folder: Path, resumed_from: Path | None, reporter: Reporter) -> TrainResult:
    """The run as a table of contents."""
    splits = build_splits(recipe.dataset)
    say_notes(reporter, splits.train.notes, splits.val.notes)
    check_num_classes(recipe, splits.class_names)
    data_facts = {
        "class_names": splits.class_names,
        "train": splits.train.fingerprint(),
        "val": splits.val.fingerprint(),
    }
    check_resume(recipe, folder, resumed_from, data_facts, world.size)
    training = _build(recipe, world, folder, splits, reporter, fresh=resumed_from is None)
    if resumed_from:
        check_global_batch(checkpoint.load_state(resumed_from), training.plan.global_batch)
        training.restore(resumed_from)
        reporter.say(f"continuing at step {training.progress.step}")
    elif world.is_main:
        _write_run_files(recipe, world, folder, data_facts)
    _announce(training, splits)
    reporter.record_in(folder, training.progress.step)
    return _fit(training)


def _fit(training: Training) -> TrainResult:
    """The training itself; status.json says how it ended."""
    start = time.perf_counter()
    if training.world.is_main:
        run_dir.write_status(training.run_dir, "running")
    try:
        with accidents_in_words(training.run_dir, training.plan.global_batch):
            fit(training)
    except VitcliError as error:
        if training.world.is_main:
            status = {Interrupted: "interrupted", DivergedError: "diverged"}.get(type(error), "failed")
            run_dir.write_status(training.run_dir, status, exit_code=error.exit_code, message=error.message)
        raise
    return _finish(training, time.perf_counter() - start)


def _claim_run_dir(recipe: Recipe, world: World) -> tuple[Path, Path | None, list[str]]:
    """The run's folder, the checkpoint to continue from, and what is wrong with newer ones; decided on rank 0."""

    def decide() -> tuple[Path, Path | None, list[str]]:
        folder, resumed_from, damaged = find_resume(recipe)
        if folder is None:
            folder = run_dir.new_run_dir(recipe.name, recipe.checkpoint.run_dir)
        run_dir.ensure_writable(folder)
        run_dir.lock(folder)
        checkpoint.clean_up(folder)
        return folder, resumed_from, damaged

    decision: Any = None
    if world.is_main:
        try:
            decision = decide()
        except VitcliError as error:
            decision = error
    decision = from_main(decision)
    if isinstance(decision, VitcliError):
        raise decision
    return decision


def _build(recipe: Recipe, world: World, folder: Path, splits: Splits, reporter: Reporter, *, fresh: bool) -> Training:
    """Every part of the run, in the order in which they depend on each other."""
    device, optim = world.device, recipe.optimizer
    if device.type == "cpu":
        keep_freed_memory()
    if recipe.system.deterministic:
        torch.use_deterministic_algorithms(True)
    accumulation = accumulation_steps(
        recipe.dataset.batch_size, world.size, optim.gradient_accumulation_steps, optim.global_batch_size
    )
    plan = BatchPlan(
        num_samples=len(splits.train), batch_size=recipe.dataset.batch_size, world_size=world.size,
        accumulation=accumulation, seed=recipe.system.seed, shuffle=recipe.dataset.shuffle,
        drop_remainder=recipe.dataset.drop_remainder,
    )  # fmt: skip
    torch.manual_seed(stream_seed("init", recipe.system.seed))
    model = build_model(recipe, len(splits.class_names))
    if fresh and recipe.model.ckpt_path:
        report = load_weights(model, recipe.model.ckpt_path, reset_head=recipe.model.reset_head)
        for line in report.lines():
            reporter.say(line)
    channels_last = recipe.system.channels_last and device.type != "cpu"
    if recipe.system.channels_last and not channels_last:
        reporter.note("channels_last is left out: PyTorch's CPU kernels crash with it in training")
    model.to(device=device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    task = Classification(model, recipe.loss)
    if recipe.system.compile:
        task.compile()
    groups = param_groups(model, weight_decay=optim.weight_decay, weight_decay_filter=optim.weight_decay_filter)
    ema = ExponentialMovingAverage(model, decay=optim.ema_decay, ramp_steps=optim.ema_ramp_steps) if optim.ema else None
    peak_lr, lr_text = scaled_lr(recipe.scheduler, plan.global_batch)
    reporter.say(lr_text)
    return Training(
        recipe=recipe, world=world, run_dir=folder, model=model, task=wrapped(task, world),
        optimizer=build_optimizer(optim, groups, device),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.system.amp == "fp16"),
        ema=ema, plan=plan, peak_lr=peak_lr, channels_last=channels_last,
        prepare=BatchPreparer(recipe.augmentation, len(splits.class_names), in_channels=recipe.model.in_channels),
        batches=_batches(recipe, world, splits, plan), evaluate=build_evaluate(recipe, splits.val, world),
        autocast=build_autocast(recipe, device), reporter=reporter, meter=Meter(device),
        bad_images=BadImages(folder / "bad_images.jsonl", max_ratio=recipe.dataset.max_bad_ratio, of=plan.num_samples),
        facts={"class_names": splits.class_names, "preprocessing": preprocessing(recipe)},
    )  # fmt: skip


def _batches(recipe: Recipe, world: World, splits: Splits, plan: BatchPlan) -> Callable[[int], Any]:
    def batches(start_step: int) -> Any:
        return build_train_loader(
            splits.train,
            build_train_transform(recipe.augmentation, in_channels=recipe.model.in_channels),
            plan,
            seed=recipe.system.seed,
            rank=world.rank,
            start_step=start_step,
            total_steps=recipe.scheduler.epoch_size * plan.steps_per_epoch,
            num_workers=num_workers(recipe, world),
            on_bad_image=recipe.dataset.on_bad_image,
            pin_memory=world.device.type == "cuda",
        )

    return batches


def _write_run_files(recipe: Recipe, world: World, folder: Path, data_facts: dict[str, Any]) -> None:
    (folder / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    run_dir.write_json(folder / "env.json", run_dir.environment(world.device, world.size))
    run_dir.write_json(folder / "data.json", data_facts)


def _announce(training: Training, splits: Splits) -> None:
    """What is about to happen, in three lines."""
    recipe, plan, world = training.recipe, training.plan, training.world
    num_parameters = sum(p.numel() for p in training.model.parameters())
    processes = f" on {world.size} processes" if world.size > 1 else ""
    factors = [
        f"{plan.batch_size}",
        f"{plan.world_size} processes" if plan.world_size > 1 else "",
        f"{plan.accumulation} micro-steps" if plan.accumulation > 1 else "",
    ]
    split = f" ({' x '.join(filter(None, factors))})" if plan.num_blocks > 1 else ""
    say = training.reporter.say
    say(f"run      {relative(training.run_dir)}")
    say(f"data     {len(splits.train):,} + {len(splits.val):,} images, {len(splits.class_names)} classes")
    where = f"{recipe.augmentation.image_resize} px, {world.device.type}{processes}"
    say(f"model    {recipe.model.model}, {num_parameters:,} parameters, {where}")
    epochs = recipe.scheduler.epoch_size
    say(f"training {epochs} epochs x {plan.steps_per_epoch} steps of {plan.global_batch} images{split}")


def _finish(training: Training, seconds: float) -> TrainResult:
    """The table at the end, and the commands that come next."""
    progress, reporter = training.progress, training.reporter
    reporter.close()
    best = progress.best_top1 if progress.best_step is not None else None
    last = progress.top1.get(progress.step)
    run = relative(training.run_dir)
    rows = [("run", run), ("steps", f"{progress.step:,}"), ("time", f"{seconds / 60:.1f} min")]
    if best is not None and progress.best_step is not None:
        epoch = progress.best_step // training.plan.steps_per_epoch
        rows += [("best top-1", f"{best:.2f} % (epoch {epoch})"), ("last top-1", f"{last:.2f} %")]
    if bad := set().union(*gathered(training.bad_images.names)):
        rows.append(("unreadable images", f"{len(bad)}, replaced by others and listed in bad_images.jsonl"))
    reporter.table("done", rows)
    reporter.say(f"next: vitcli validate --ckpt_path {run}")
    if training.world.is_main:
        run_dir.write_status(training.run_dir, "done", step=progress.step, best_top1=best)
    return TrainResult(training.run_dir, progress.step, best, progress.best_step, last, seconds)
