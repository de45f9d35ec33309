"""Decides where a run continues, and refuses to continue one that is no longer the same."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcli.distributed import World, from_main
from vitcli.engine import checkpoint, run_dir
from vitcli.errors import DataError, ResumeError, VitcliError
from vitcli.recipe import schema
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.recipe.write import yaml_value
from vitcli.weights.checkpoint_folders import STATE, check_format, checkpoints, newest_valid
from vitcli.weights.json_file import read_json


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a run continues from; its state.json is read once."""

    folder: Path
    state: dict[str, Any]


def find_resume(recipe: Recipe) -> tuple[Path | None, ResumePoint | None, list[str]]:
    """(run folder, where to continue, damaged newer checkpoints); all None where a new run begins.

    Raises:
        ResumeError: the run named has no valid checkpoint.
    """
    wanted, folder = recipe.checkpoint.resume, recipe.checkpoint.run_dir
    if wanted is None:
        return None, None, []
    if wanted == "auto":
        assert folder is not None  # the recipe check requires it
        if not checkpoints(folder):
            return (folder if (folder / "recipe.yaml").exists() else None), None, []
    else:
        folder = _run_of(wanted)
    newest, damaged = newest_valid(folder)
    if newest is None:
        found = "; ".join(damaged) if damaged else "it holds no checkpoint"
        raise ResumeError(f"{folder} cannot be continued: {found}", help="nothing was changed; start a new run")
    state = read_json(newest / STATE)
    try:
        check_format(state, newest)
    except DataError as error:
        raise ResumeError(error.message, help=error.help) from None
    return folder, ResumePoint(newest, state), damaged


def _run_of(wanted: str) -> Path:
    folder = Path(wanted)
    if folder.parent.name == "checkpoints":
        help = f"--resume {folder.parents[1]} continues from its newest; a new run from this one: --ckpt_path {wanted}"
        raise ResumeError(f"{wanted} is a checkpoint, not a run", help=help)
    if not folder.is_dir():
        raise ResumeError(f"there is no run {wanted}", help="give the folder of a run, as printed when it started")
    return folder


def claim_run_dir(recipe: Recipe, world: World) -> tuple[Path, ResumePoint | None, list[str]]:
    """The run's folder, where to continue, and what is wrong with newer checkpoints; decided on rank 0."""
    decision: Any = None
    if world.is_main:
        try:
            folder, point, damaged = find_resume(recipe)
            if folder is None:
                folder = run_dir.new_run_dir(recipe.name, recipe.checkpoint.run_dir)
            run_dir.ensure_writable(folder)
            run_dir.lock(folder)
            run_dir.forget_words(folder)
            checkpoint.clean_up(folder)
            decision = folder, point, damaged
        except VitcliError as error:
            decision = error
    decision = from_main(decision)
    if isinstance(decision, VitcliError):
        raise decision
    return decision


def check_resume(recipe: Recipe, folder: Path, point: ResumePoint, data_facts: dict[str, Any]) -> list[str]:
    """Refuse to continue with other data or with another recipe; returns notes.

    Raises:
        ResumeError: with the differences.
    """
    now = recipe.flat()
    before = load_recipe(None).flat() | point.state["recipe"]  # a key that is younger than the run had its default
    fixed = [name for name in schema.SECTION_OF if not schema.extra(name)["free"]]
    if differences := [(name, before[name], now[name]) for name in fixed if before[name] != now[name]]:
        table = "\n".join(f"  {name:<28} {old!s:>16} -> {new}" for name, old, new in differences)
        help = f"use the old values, or start a new run from these weights: {_new_run(folder, differences)}"
        raise ResumeError(f"the recipe changed since {point.folder.name}:\n{table}", help=help)
    facts = run_dir.read_json(folder / "data.json")
    if facts is None or facts == data_facts:
        return []
    if changes := _data_differences(facts, data_facts):
        listed = "\n".join(changes)
        help = "restore the data, or start a new run with --ckpt_path"
        raise ResumeError(f"the data changed since the run began:\n{listed}", help=help)
    return ["image files were copied or touched since the run began; their names and sizes are the same"]


def _new_run(folder: Path, differences: list[tuple[str, Any, Any]]) -> str:
    """The command that continues from the weights of a run with other values; more epochs are only those to come."""
    changed = {name: now for name, _, now in differences}
    epochs = next(((before, now) for name, before, now in differences if name == "epoch_size"), (0, 0))
    if epochs[1] > epochs[0]:
        changed |= {"epoch_size": epochs[1] - epochs[0], "warmup_epochs": 0}
    text = {name: value if isinstance(value, str) else yaml_value(value) for name, value in changed.items()}
    words = [word for name in text for word in (f"--{name}", text[name])]
    return shlex.join(["vitcli", "train", "-c", f"{folder}/recipe.yaml", "--ckpt_path", str(folder), *words])


def check_global_batch(point: ResumePoint, global_batch: int) -> None:
    """The number of processes may change on resume, the global batch may not.

    Raises:
        ResumeError: it did.
    """
    before = point.state["global_batch"]
    if before != global_batch:
        help = f"add --global_batch_size {before}, or change --batch_size"
        raise ResumeError(f"the global batch was {before} and would be {global_batch}", help=help)


def _data_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is another image now. Times alone do not count: copying a folder changes them."""
    lines = []
    if before["class_names"] != now["class_names"]:
        earlier, present = set(before["class_names"] or ()), set(now["class_names"] or ())
        gone, new = sorted(earlier - present), sorted(present - earlier)
        lines.append(f"  classes: gone {gone or '-'}, new {new or '-'}")
    for split in ("train", "val"):
        old, new = before[split] or {"num_images": 0, "sha256": ""}, now[split] or {"num_images": 0}
        digest = "contents_sha256" if "contents_sha256" in old else "sha256"
        if old["num_images"] != new["num_images"]:
            lines.append(f"  {split}: {old['num_images']} images before, {new['num_images']} now")
        elif old[digest] != new.get(digest):
            lines.append(f"  {split}: the same number of images, but other files or sizes")
    return lines
