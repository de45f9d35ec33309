"""`vitcli train`: from a recipe and a folder of images to a run with its checkpoints."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcli import catalog
from vitcli.data.datasets import Splits, build_splits
from vitcli.distributed import World, joined, num_launched
from vitcli.engine import run_dir
from vitcli.engine.build import build_training
from vitcli.engine.failures import failures_in_words
from vitcli.engine.loop import fit
from vitcli.engine.precision import chosen_amp
from vitcli.engine.preflight import check_device, check_frozen, check_launch
from vitcli.engine.resume import ResumePoint, check_global_batch, check_resume, claim_run_dir
from vitcli.engine.state import restore
from vitcli.engine.training import Training
from vitcli.errors import DivergedError, Interrupted, UsageError, VitcliError
from vitcli.image_size import in_words
from vitcli.log import Reporter, relative
from vitcli.networks.classes import check_num_classes
from vitcli.networks.precedence import adopt_of_run
from vitcli.recipe.load import Recipe
from vitcli.recipe.plugins import plugin_words
from vitcli.recipe.write import recipe_text
from vitcli.weights.fetch import is_remote


@dataclass(frozen=True)
class TrainResult:
    """Where the run lives and what it achieved; None where nothing was evaluated."""

    run_dir: Path
    step: int
    metric: str | None  #: name of the number that chose the best checkpoint
    best: float | None
    best_step: int | None
    last: float | None
    seconds: float


def train(recipe: Recipe) -> TrainResult:
    """Train as the recipe says; with torchrun, on every rank.

    Raises:
        VitcliError: see `errors.py`; nothing that was saved is lost by any of them.
    """
    launch_notes = check_launch(recipe)
    _check_weights(recipe)
    check_frozen(recipe)
    recipe = _with_absolute_paths(recipe)
    with joined(recipe.system.device, num_launched() > 1) as world:
        folder, point, damaged = claim_run_dir(recipe, world)
        reporter = Reporter(enabled=world.is_main)
        try:
            reporter.notes(recipe.notes, launch_notes, check_device(recipe, world.device), damaged)
            return _train(recipe, world, folder, point, reporter)
        finally:
            reporter.close()
            if world.is_main:
                run_dir.leave(folder)


def _check_weights(recipe: Recipe) -> None:
    """Raise UsageError if a recipe for fine-tuning is given no weights: its rates and epochs are for trained ones."""
    if recipe.model.ckpt_path is None and not recipe.model.from_scratch:
        message = f"the recipe {recipe.name} starts from trained weights, but there is no ckpt_path"
        raise UsageError(message, help="add --ckpt_path SOURCE, or --from_scratch True to start from random values")


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """So that a checkpoint finds its data from wherever it is used."""
    section, ckpt_path = recipe.dataset, recipe.model.ckpt_path
    names = ("data_dir", "val_labels", "class_names")
    paths = {name: getattr(section, name) for name in names} | {"ckpt_path": ckpt_path}
    local = {name: Path(path).absolute() for name, path in paths.items() if path and not is_remote(path)}
    return recipe.changed(**local)


def _train(recipe: Recipe, world: World, folder: Path, point: ResumePoint | None, reporter: Reporter) -> TrainResult:
    """The run as a table of contents."""
    splits = _splits(recipe, reporter)
    data_facts = _data_facts(splits)
    if point:
        recipe = adopt_of_run(recipe, point.state["recipe"])
        reporter.notes(check_resume(recipe, folder, point, data_facts))
    training = build_training(recipe, world, folder, splits, reporter, fresh=point is None)
    if point:
        check_global_batch(point, training.plan.global_batch)
        restore(training, point)
        reporter.say(f"continuing at step {training.progress.step}")
    else:
        if world.is_main:
            _write_run_files(training.recipe, world, folder, data_facts)
        reporter.record_in(folder, step=0)
    _announce(training, splits)
    return _fit(training)


def _splits(recipe: Recipe, reporter: Reporter) -> Splits:
    needs_labels = catalog.load("tasks", recipe.learning.task).needs_labels
    wanted = {"needs_labels": needs_labels, "needs_val": recipe.system.val_while_train}
    splits = build_splits(recipe.dataset, **wanted, seed=recipe.system.seed)
    reporter.notes(splits.train.notes, splits.val.notes if splits.val else ())
    if splits.class_names is not None:
        check_num_classes(recipe, splits.class_names)
    return splits


def _data_facts(splits: Splits) -> dict[str, Any]:
    """data.json: what must be the same when the run is resumed."""
    return {
        "class_names": splits.class_names,
        "train": splits.train.fingerprint(),
        "val": splits.val.fingerprint() if splits.val else None,
    }


def _write_run_files(recipe: Recipe, world: World, folder: Path, data_facts: dict[str, Any]) -> None:
    (folder / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    run_dir.write_json(folder / "env.json", run_dir.environment(world.device, world.size))
    run_dir.write_json(folder / "data.json", data_facts)


def _announce(training: Training, splits: Splits) -> None:
    """What is about to happen, in four lines."""
    recipe, plan, world = training.recipe, training.plan, training.world
    num_parameters = sum(p.numel() for p in training.task.network.parameters())
    processes = f" on {world.size} processes" if world.size > 1 else ""
    factors = [
        f"{plan.batch_size}",
        f"{plan.world_size} processes" if plan.world_size > 1 else "",
        f"{plan.accumulation} micro-steps" if plan.accumulation > 1 else "",
    ]
    split = f" ({' x '.join(filter(None, factors))})" if plan.num_blocks > 1 else ""
    say = training.reporter.say
    classes = "no labels" if splits.class_names is None else f"{len(splits.class_names)} classes"
    say(f"run      {relative(training.run_dir)}")
    say(f"data     {len(splits.train):,} + {len(splits.val or ()):,} images, {classes}")
    amp = chosen_amp(recipe, world.device)
    size = in_words(recipe.augmentation.image_resize)
    where = f"{size}, {world.device.type}{processes}, {'fp32' if amp == 'off' else amp}"
    left_out = len(splits.train) - plan.steps_per_epoch * plan.global_batch
    if left_out > 0:
        training.reporter.notes(
            [f"drop_remainder leaves out {left_out} images in each epoch, not always the same ones"]
        )
    say(f"model    {recipe.model.model}, {num_parameters:,} parameters, {where}")
    epochs = recipe.scheduler.epoch_size
    say(f"training {epochs} epochs x {plan.steps_per_epoch} steps of {plan.global_batch} images{split}")


def _fit(training: Training) -> TrainResult:
    """The training itself; status.json says how it ended."""
    start = time.perf_counter()
    if training.world.is_main:
        run_dir.write_status(training.run_dir, "running")
    try:
        with failures_in_words(training.run_dir, training.world, training.plan.global_batch):
            fit(training)
    except BaseException as error:
        _record_end(training, error)
        raise
    return _finish(training, time.perf_counter() - start)


def _record_end(training: Training, error: BaseException) -> None:
    """Word for the other ranks, and status.json on rank 0."""
    if not isinstance(error, Interrupted):
        run_dir.leave_word(training.run_dir, training.world.rank, error)
    if not training.world.is_main:
        return
    kind = "interrupted" if isinstance(error, Interrupted) else "failed"
    status = "diverged" if isinstance(error, DivergedError) else kind
    known = isinstance(error, VitcliError)
    message = error.message if known else f"{type(error).__name__}: {error}"
    run_dir.write_status(training.run_dir, status, exit_code=error.exit_code if known else 1, message=message)


def _finish(training: Training, seconds: float) -> TrainResult:
    """The table at the end, and the command that comes next."""
    progress, reporter, metric = training.progress, training.reporter, training.task.primary
    reporter.close()
    last = progress.primary.get(progress.step)
    run = relative(training.run_dir)
    rows = [("run", run), ("steps", f"{progress.step:,}"), ("time", f"{seconds / 60:.1f} min")]
    if progress.best_step is not None:
        epoch = progress.best_step // training.plan.steps_per_epoch
        rows.append((f"best {metric}", f"{progress.best:.2f} (epoch {epoch})"))
    if last is not None:
        rows.append((f"last {metric}", f"{last:.2f}"))
    if bad := training.bad_images.of_all_ranks():
        rows.append(("unreadable images", f"{len(bad)}, replaced by others and listed in bad_images.jsonl"))
    reporter.table("done", rows)
    reporter.say(f"next: {training.task.next_command(run)}{plugin_words()}")
    if training.world.is_main:
        run_dir.write_status(training.run_dir, "done", step=progress.step, metric=metric, best=progress.best)
    best = progress.best, progress.best_step
    return TrainResult(training.run_dir, progress.step, metric, *best, last, seconds)
