"""`vitcli train --dry_run True`: what a training would do, on one screen. No folder is made, and nothing is written."""

import math
import shutil
from itertools import groupby
from pathlib import Path

import torch

from vitcli.data.datasets import Splits
from vitcli.data.loader import num_workers
from vitcli.distributed import World, joined, num_launched
from vitcli.engine.before_torch import check_start
from vitcli.engine.build import build_training
from vitcli.engine.check_data import CheckedSplit, check_splits, leaks_of
from vitcli.engine.early_stopping import check_early_stopping
from vitcli.engine.kernels import choose_kernels
from vitcli.engine.opened_data import open_data
from vitcli.engine.precision import chosen_amp
from vitcli.engine.preflight import check_device, check_launch
from vitcli.engine.run_dir import check_free
from vitcli.engine.training import Training
from vitcli.engine.trial import Trial, try_out
from vitcli.image_size import in_words
from vitcli.layers.reparam import reparameterize
from vitcli.log import Reporter
from vitcli.models.sizes import gmacs_of
from vitcli.networks.build import build_network
from vitcli.recipe import schema
from vitcli.recipe.load import Recipe
from vitcli.recipe.write import yaml_value

Rows = list[tuple[str, str]]


def preflight(recipe: Recipe) -> None:
    """Check the recipe, the data and the machine, and print what was found; with torchrun, on every rank.

    Raises:
        VitcliError: what a training would refuse; see `errors.py`.
    """
    launch_notes = check_launch(recipe)
    check_start(recipe)
    check_free(recipe.checkpoint.run_dir)
    with joined(recipe.system.device, num_launched() > 1) as world:
        reporter = Reporter(enabled=world.is_main)
        reporter.notes(recipe.notes, launch_notes, check_device(recipe, world.device))
        _preflight(recipe, world, reporter)


def _preflight(recipe: Recipe, world: World, reporter: Reporter) -> None:
    recipe, splits = open_data(recipe, reporter)
    training = build_training(recipe, world, recipe.checkpoint.run_dir or Path("runs"), splits, reporter, fresh=True)
    choose_kernels(training, None)
    check_early_stopping(training)
    extent = recipe.dataset.check_data or "quick"
    checked = {} if extent == "off" else check_splits(splits, extent, world)
    rows = _data_rows(training, splits) + _check_rows(checked) + _model_rows(training, splits)
    trial = try_out(training)
    rows += _speed_rows(training, trial) + _cost_rows(training, trial)
    reporter.table("recipe: what differs from the defaults", _recipe_rows(training.recipe))
    reporter.table("dry run: nothing was written", rows)


def _recipe_rows(recipe: Recipe) -> Rows:
    """Section -> the keys that are set, with their values."""
    given = recipe.sets(*(name for name in schema.SECTION_OF if name != "dry_run"))
    flat = recipe.flat()
    return [
        (section, ", ".join(f"{name} {yaml_value(flat[name])}" for name in names))
        for section, names in groupby(given, schema.SECTION_OF.__getitem__)
    ]


def _data_rows(training: Training, splits: Splits) -> Rows:
    plan, counts = training.plan, splits.train.class_counts()
    rows = [("images", f"{len(splits.train):,} for training, {len(splits.val or ()):,} for validation")]
    if present := {name: count for name, count in counts.items() if count}:
        ends = [f"{name} {present[name]:,}" for name in (end(present, key=present.__getitem__) for end in (max, min))]
        rows.append(("classes", f"{len(counts):,}; images of the largest and the smallest: {', '.join(ends)}"))
    if (dropped := len(splits.train) - plan.steps_per_epoch * plan.global_batch) > 0:
        rows.append(("left out", f"{dropped:,} images in each epoch, by drop_remainder"))
    return rows


def _check_rows(checked: dict[str, CheckedSplit]) -> Rows:
    if not checked:
        return [("unreadable", "not checked")]
    rows = []
    for name, split in checked.items():
        first = f", such as {split.unreadable[0]}" if split.unreadable else ""
        rows.append((f"unreadable in {name}", f"{len(split.unreadable):,} of {split.num_read:,} that were read{first}"))
    if "val" in checked:
        leaks = leaks_of(checked)
        example = f", such as {leaks[0][1]} = {leaks[0][0]}" if leaks else ""
        rows.append(("in both splits", f"{len(leaks):,} of the images that were read{example}"))
    return rows


def _model_rows(training: Training, splits: Splits) -> Rows:
    recipe = training.recipe
    network = training.task.network
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        bare = reparameterize(build_network(recipe, training.task.num_outputs(splits.class_names)).eval())
    gmacs = gmacs_of(bare, recipe.model.in_channels, recipe.augmentation.height_and_width)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    size = in_words(recipe.augmentation.image_resize)
    return [("model", f"{recipe.model.model}, {parameters:,} parameters, {gmacs:.3g} GMACs for an image of {size}")]


def _speed_rows(training: Training, trial: Trial) -> Rows:
    """What was measured, and which of the two, loader or network, waits for the other."""
    recipe, world = training.recipe, training.world
    workers = num_workers(recipe.dataset, world.local_size)
    amp = chosen_amp(recipe, world.device)
    batch = f"{trial.micro_batch} at a time, {'fp32' if amp == 'off' else amp}"
    rows = [
        (
            "loader, measured",
            f"{trial.loaded_per_second:,.0f} images/s with {workers} worker{'s' * (workers != 1)} per process",
        ),
        ("network, measured", f"{trial.trained_per_second:,.0f} images/s on {world.device.type}, {batch}"),
    ]
    if trial.loaded_per_second >= trial.trained_per_second:
        return [*rows, ("waiting", "the loader will wait for the network")]
    needed = math.ceil(max(workers, 1) * trial.trained_per_second / trial.loaded_per_second)
    return [*rows, ("waiting", f"the network will wait for the loader; about {needed} workers would be needed")]


def _cost_rows(training: Training, trial: Trial) -> Rows:
    recipe, plan = training.recipe, training.plan
    speed = min(trial.loaded_per_second, trial.trained_per_second)
    seconds = training.total_steps * plan.global_batch / speed
    section, epochs = recipe.checkpoint, recipe.scheduler.epoch_size
    written = math.ceil(epochs / section.ckpt_save_interval)
    written += training.total_steps // section.ckpt_save_steps if section.ckpt_save_steps else 0
    kept = written if section.ckpt_save_policy is None else min(written, section.keep_checkpoint_max + 2)
    free = shutil.disk_usage(_existing(training.run_dir)).free
    need = kept * trial.checkpoint
    warning = "" if need < free else "; this is not enough"
    peak = "GPU memory, measured peak" if training.world.device.type == "cuda" else "memory, measured peak"
    whose = "" if training.world.device.type == "cuda" else ", without the workers"
    few = f" with {trial.micro_batch} images at a time" if trial.micro_batch < plan.batch_size else ""
    return [
        (
            "steps",
            f"{training.total_steps:,} of {plan.global_batch} images: {epochs:,} epochs x {plan.steps_per_epoch:,}",
        ),
        ("time, estimated", f"{_duration(seconds)} at {speed:,.0f} images/s, without the evaluations"),
        (peak, f"{_bytes(trial.peak_memory)} per process{few}{whose}"),
        ("disk, estimated", f"{_bytes(need)} for {kept:,} checkpoints; {_bytes(free)} are free{warning}"),
    ]


def _existing(folder: Path) -> Path:
    """The nearest folder on the way up that exists."""
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
