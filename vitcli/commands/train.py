"""`vitcli train`: from a recipe and a folder of images to a run with its checkpoints."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vitcli.commands.report import report_at_the_end
from vitcli.data.datasets import Splits
from vitcli.data.fingerprint import Extent, fingerprint_of
from vitcli.data.split_list import rows_of, split_list
from vitcli.distributed import World, decided_on_main, joined, num_launched
from vitcli.engine import run_dir
from vitcli.engine.before_torch import check_start
from vitcli.engine.build import build_training
from vitcli.engine.check_data import check_data
from vitcli.engine.early_stopping import check_early_stopping, why_stopped
from vitcli.engine.failures import failures_in_words
from vitcli.engine.first_batch import first_page
from vitcli.engine.kernels import choose_kernels
from vitcli.engine.loop import fit
from vitcli.engine.nonfinite import NONFINITE
from vitcli.engine.opened_data import open_data
from vitcli.engine.precision import attention_in_words, chosen_amp
from vitcli.engine.preflight import check_device, check_launch, with_absolute_paths
from vitcli.engine.resume import ResumePoint, check_global_batch, check_resume, claim_run_dir
from vitcli.engine.sessions import Clock, Session, earlier_sessions
from vitcli.engine.signals import stop_flag
from vitcli.engine.state import restore
from vitcli.engine.training import Training
from vitcli.errors import DiskError, DivergedError, Interrupted, LostContact, UsageError, VitcliError
from vitcli.image_size import in_words
from vitcli.log import Reporter, phase, relative
from vitcli.networks.precedence import adopt_of_run
from vitcli.recipe.load import Recipe
from vitcli.recipe.plugins import plugin_words
from vitcli.recipe.write import recipe_text, yaml_value
from vitcli.sinks.sink import Sinks, check_sinks


@dataclass(frozen=True)
class TrainResult:
    """Where the run lives and what it achieved; None where nothing was evaluated."""

    run_dir: Path
    step: int
    metric: str | None  #: name of the number that chose the best checkpoint
    best: float | None
    best_step: int | None
    last: float | None
    seconds: float  #: of training, over all sessions


def train(recipe: Recipe) -> TrainResult:
    """Train as the recipe says; with torchrun, on every rank.

    Raises:
        VitcliError: see `errors.py`; nothing that was saved is lost by any of them.
    """
    if recipe.system.dry_run:
        raise UsageError("`dry_run` is set", help="call vitcli.commands.preflight.preflight(recipe)")
    launch_notes = check_launch(recipe)
    check_start(recipe)
    check_sinks(recipe.system.sinks, chosen="sinks" in recipe.origins)
    recipe = with_absolute_paths(recipe)
    with joined(recipe.system.device, num_launched() > 1) as world:
        folder, point, damaged = claim_run_dir(recipe)
        reporter = Reporter(enabled=world.is_main)
        try:
            reporter.notes(recipe.notes, launch_notes, check_device(recipe, world.device), damaged)
            result = _train(recipe, world, folder, point, reporter)
        finally:
            reporter.close()
            if world.is_main:
                run_dir.leave(folder)
    if recipe.evaluation.report and world.is_main:
        reporter.picture(result.step, "val/worst", report_at_the_end(folder, recipe))
    reporter.leave_sink(0)
    return result


def _train(recipe: Recipe, world: World, folder: Path, point: ResumePoint | None, reporter: Reporter) -> TrainResult:
    """The run as a table of contents."""
    earlier = decided_on_main(partial(earlier_sessions, folder))
    recipe, splits = open_data(recipe, reporter, folder)
    with phase("fingerprint of the images"):
        data_facts = decided_on_main(partial(_data_facts, splits, recipe.dataset.data_fingerprint))
    if point:
        recipe = adopt_of_run(recipe, point.state["recipe"])
        reporter.notes(check_resume(recipe, folder, point, data_facts))
    with phase("building the model"):
        training = build_training(recipe, world, folder, splits, reporter, fresh=point is None)
    with phase("choosing the kernels"):
        choose_kernels(training, point.state if point else None)
    training.facts["data"] = data_facts
    check_early_stopping(training)
    if point:
        check_global_batch(point, training.plan.global_batch)
        with phase("restoring the checkpoint"):
            restore(training, point)
        # unreadable validation images may have been fixed
        decided_on_main(lambda: run_dir.write_json(folder / "data.json", training.facts["data"]))
        reporter.say(f"continuing at step {training.progress.step}")
    else:
        reporter.notes(check_data(training.recipe, splits, world))
        decided_on_main(lambda: run_dir.begin(folder, _run_files(training, splits)))
        reporter.record_in(folder, step=0)
    _announce(training, splits)
    if world.is_main:
        _open_sinks(training, splits)
    return _fit(training, earlier)


def _open_sinks(training: Training, splits: Splits) -> None:
    """They get what is recorded from here on; those that the user chose begin with pictures of the first batch."""
    reporter, recipe, step = training.reporter, training.recipe, training.progress.step
    where = training.run_dir, {key: yaml_value(value) for key, value in recipe.flat().items()}
    reporter.sink = Sinks(recipe.system.sinks, *where, step, reporter.faults, reporter.note)
    if step == 0 and "sinks" in recipe.origins:
        try:
            reporter.picture(step, "train/batch", first_page(recipe, training.world.device, splits, training.task))
        except VitcliError as error:  # an unreadable image, which the training will report or replace
            reporter.note(f"the sinks get no picture of the first batch: {error.message}")


def _data_facts(splits: Splits, extent: Extent) -> dict[str, Any]:
    """data.json: what must be the same when the run is resumed."""
    return {
        "class_names": splits.class_names,
        "train": fingerprint_of(splits.train, extent),
        "val": fingerprint_of(splits.val, extent) if splits.val else None,
    }


def _run_files(training: Training, splits: Splits) -> dict[str, str]:
    """What the folder of a new run holds, name -> text."""
    recipe, world = training.recipe, training.world
    files = {
        "env.json": run_dir.json_text(run_dir.environment(world.device, world.size)),
        "data.json": run_dir.json_text(training.facts["data"]),
    }
    if splits.val and recipe.dataset.held_out:
        files["split.csv"] = split_list(rows_of({"train": splits.train, "val": splits.val}))
    return files | {"recipe.yaml": recipe_text(recipe)}


def _announce(training: Training, splits: Splits) -> None:
    """What is about to happen, in a few lines."""
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
    if kernel := attention_in_words(training.task.network, recipe, world.device):
        say(f"kernel   {kernel}")
    epochs = recipe.scheduler.epoch_size
    say(f"training {epochs} epochs x {plan.steps_per_epoch} steps of {plan.global_batch} images{split}")


def _fit(training: Training, earlier: list[Session]) -> TrainResult:
    """The training itself; status.json says how it ended, also where torchrun ends this rank because of another."""
    clock = Clock(earlier)
    with stop_flag() as stop:
        decided_on_main(lambda: _write_status(training, "running", sessions=clock.going_on))
        try:
            facts = training.run_dir, training.world, training.plan.global_batch, training.progress
            with failures_in_words(*facts):
                fit(training, stop)
        except BaseException as error:
            _record_end(training, clock, error)
            raise
        return _finish(training, clock)


def _write_status(training: Training, status: str, **facts: Any) -> None:
    run_dir.write_status(training.run_dir, status, metric=training.task.primary, **facts)


def _record_end(training: Training, clock: Clock, error: BaseException) -> None:
    """Word for the other ranks, and status.json on rank 0, as far as the disk takes them."""
    if not run_dir.is_there(training.run_dir):
        return
    if not isinstance(error, LostContact) and type(error) is not Interrupted:
        run_dir.leave_word(training.run_dir, training.world.rank, error)
    if not training.world.is_main:
        return
    known = isinstance(error, VitcliError)
    exit_code = error.exit_code if known else 1
    training.reporter.leave_sink(exit_code)
    status = {DivergedError.exit_code: "diverged", Interrupted.exit_code: "interrupted"}.get(exit_code, "failed")
    message = error.message if known else f"{type(error).__name__}: {error}"
    try:
        _write_status(training, status, exit_code=exit_code, message=message, sessions=clock.ended)
    except DiskError as refused:
        training.reporter.note(f"status.json still says `running`: {refused.message}")


def _finish(training: Training, clock: Clock) -> TrainResult:
    """The table at the end, and the command that comes next."""
    progress, reporter, metric = training.progress, training.reporter, training.task.primary
    reporter.close()
    seconds, num_sessions = clock.seconds, len(clock.ended)
    last = progress.primary.get(progress.step)
    run = relative(training.run_dir)
    of_sessions = f" in {num_sessions} sessions" if num_sessions > 1 else ""
    rows = [("run", run), ("steps", f"{progress.step:,}"), ("time", f"{seconds / 60:.1f} min{of_sessions}")]
    if progress.best_step is not None:
        epoch = progress.best_step // training.plan.steps_per_epoch
        rows.append((f"best {metric}", f"{progress.best:.2f} (epoch {epoch})"))
    stopped_early = why_stopped(training)
    if stopped_early:
        rows.append(("stopped early", stopped_early))
    if last is not None:
        rows.append((f"last {metric}", f"{last:.2f}"))
    if training.nonfinite.skipped:
        rows.append(("skipped steps", f"{training.nonfinite.skipped}, not finite; see {NONFINITE}"))
    if bad := training.bad_images.of_all_ranks():
        rows.append(("unreadable images", f"{len(bad)}, replaced by others and listed in bad_images.jsonl"))
    reporter.table("done", rows)
    reporter.next(f"{training.task.next_command(run)}{plugin_words()}")
    if training.world.is_main:
        facts = {"step": progress.step, "best": progress.best, "stopped_early": stopped_early}
        _write_status(training, "done", **facts, sessions=clock.ended)
    best = progress.best, progress.best_step
    return TrainResult(training.run_dir, progress.step, metric, *best, last, seconds)
