"""`vitcli train`: from a recipe and a folder of images to a run with its checkpoints."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcli.commands.build import build_training
from vitcli.commands.resume import check_global_batch, check_resume, claim_run_dir
from vitcli.data.datasets import Splits, build_splits
from vitcli.distributed import World, gathered, joined, num_launched
from vitcli.engine import checkpoint, run_dir
from vitcli.engine.accidents import accidents_in_words
from vitcli.engine.loop import fit
from vitcli.engine.precision import chosen_amp
from vitcli.engine.preflight import check_device, check_frozen, check_launch
from vitcli.engine.training import Training
from vitcli.errors import DivergedError, Interrupted, LostContact, VitcliError
from vitcli.log import Reporter, relative
from vitcli.networks.classes import check_num_classes
from vitcli.networks.preprocessing import adopt_of_run
from vitcli.recipe.load import Recipe
from vitcli.recipe.plugins import plugin_words
from vitcli.recipe.write import recipe_text
from vitcli.weights.fetch import is_remote


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
    check_frozen(recipe)
    recipe = _with_absolute_paths(recipe)
    with joined(recipe.system.device, num_launched() > 1) as world:
        folder, resumed_from, damaged = claim_run_dir(recipe, world)
        reporter = Reporter(enabled=world.is_main)
        try:
            reporter.notes(recipe.notes, launch_notes, check_device(recipe, world.device), damaged)
            return _train(recipe, world, folder, resumed_from, reporter)
        finally:
            reporter.close()
            if world.is_main:
                run_dir.leave(folder)


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """So that a checkpoint finds its data from wherever it is used."""
    paths: dict[str, str | Path | None] = {"data_dir": recipe.dataset.data_dir, "ckpt_path": recipe.model.ckpt_path}
    local = {name: Path(path).absolute() for name, path in paths.items() if path and not is_remote(path)}
    return recipe.changed(**local)


def _train(recipe: Recipe, world: World, folder: Path, resumed_from: Path | None, reporter: Reporter) -> TrainResult:
    """The run as a table of contents."""
    splits = build_splits(recipe.dataset)
    reporter.notes(splits.train.notes, splits.val.notes)
    check_num_classes(recipe, splits.class_names)
    data_facts = {
        "class_names": splits.class_names,
        "train": splits.train.fingerprint(),
        "val": splits.val.fingerprint(),
    }
    if resumed_from and recipe.model.ckpt_path:
        recipe = adopt_of_run(recipe, checkpoint.load_state(resumed_from)["recipe"])
    reporter.notes(check_resume(recipe, folder, resumed_from, data_facts))
    training = build_training(recipe, world, folder, splits, reporter, fresh=resumed_from is None)
    if resumed_from:
        check_global_batch(checkpoint.load_state(resumed_from), training.plan.global_batch)
        training.restore(resumed_from)
        reporter.say(f"continuing at step {training.progress.step}")
    elif world.is_main:
        _write_run_files(training.recipe, world, folder, data_facts)
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
    except LostContact as error:
        cause = run_dir.word_of_another(training.run_dir) or error
        _record_end(training, cause)
        raise cause from None
    except BaseException as error:
        _record_end(training, error)
        raise
    return _finish(training, time.perf_counter() - start)


def _record_end(training: Training, error: BaseException) -> None:
    """status.json on rank 0, word for rank 0 on the others."""
    if not training.world.is_main:
        if isinstance(error, VitcliError) and not isinstance(error, Interrupted):
            run_dir.leave_word(training.run_dir, training.world.rank, error)
        return
    kind = "interrupted" if isinstance(error, Interrupted) else "failed"
    status = "diverged" if isinstance(error, DivergedError) else kind
    known = isinstance(error, VitcliError)
    message = error.message if known else f"{type(error).__name__}: {error}"
    run_dir.write_status(training.run_dir, status, exit_code=error.exit_code if known else 1, message=message)


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
    amp = chosen_amp(recipe, world.device)
    where = f"{recipe.augmentation.image_resize} px, {world.device.type}{processes}, {'fp32' if amp == 'off' else amp}"
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
    reporter.say(f"next: vitcli validate --ckpt_path {run}{plugin_words()}")
    if training.world.is_main:
        run_dir.write_status(training.run_dir, "done", step=progress.step, best_top1=best)
    return TrainResult(training.run_dir, progress.step, best, progress.best_step, last, seconds)
