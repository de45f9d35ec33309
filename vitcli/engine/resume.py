"""Decides where a run continues, and refuses to continue one that is no longer the same."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcli.data.fingerprint import DIGESTS, other_labels, strongest_common
from vitcli.disk import disk_errors
from vitcli.distributed import decided_on_main
from vitcli.engine import checkpoint, run_dir
from vitcli.engine.bad_images import BAD_IMAGES, unreadable_in_evaluation
from vitcli.engine.before_torch import NOTHING_CHANGED, folder_to_resume
from vitcli.engine.run_lock import lock
from vitcli.engine.state_fields import missing_in
from vitcli.errors import DataError, ResumeError
from vitcli.recipe import schema
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.recipe.write import yaml_value
from vitcli.weights.checkpoint_folders import STATE, check_format, newest_valid
from vitcli.weights.json_file import read_json

#: keys of data.json
_DATA_FACTS = {"class_names", "train", "val"}


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a run continues from; its state.json is read once."""

    folder: Path
    state: dict[str, Any]


def _find_point(folder: Path) -> tuple[ResumePoint | None, list[str]]:
    """Where the run continues (None: it was ended before its first checkpoint), and damaged newer checkpoints.

    Raises:
        ResumeError: none of its checkpoints is valid.
    """
    newest, damaged = newest_valid(folder)
    if newest is None and not damaged:
        return None, []
    if newest is None:
        raise ResumeError(f"{folder} cannot be continued: {'; '.join(damaged)}", help=NOTHING_CHANGED)
    state = read_json(newest / STATE)
    try:
        check_format(state, newest)
    except DataError as error:
        raise ResumeError(error.message, help=error.help) from None
    return ResumePoint(newest, state), damaged


def claim_run_dir(recipe: Recipe) -> tuple[Path, ResumePoint | None, list[str]]:
    """The run's folder, where to continue, and what is wrong with newer checkpoints; decided on rank 0."""

    def claim() -> tuple[Path, ResumePoint | None, list[str]]:
        resumed = folder_to_resume(recipe)
        folder = resumed or run_dir.new_run_dir(recipe.name, recipe.checkpoint.run_dir)
        run_dir.ensure_writable(folder)
        lock(folder)
        with disk_errors("a file", folder):
            run_dir.clean_up(folder)
            checkpoint.clean_up(folder)
        point, damaged = _find_point(folder) if resumed else (None, [])
        return folder, point, damaged

    return decided_on_main(claim)


def check_resume(recipe: Recipe, folder: Path, point: ResumePoint, data_facts: dict[str, Any]) -> list[str]:
    """Refuse to continue with other data or with another recipe; returns notes.

    Raises:
        ResumeError: with the differences.
    """
    if missing := missing_in(point.state):
        help = "use an older checkpoint: remove this one"
        raise ResumeError(f"{point.folder / STATE} is not that of a run: {missing} is missing or damaged", help=help)
    now = recipe.flat()
    before = load_recipe(None).flat() | point.state["recipe"]  # a key that is younger than the run had its default
    fixed = [name for name in schema.SECTION_OF if not schema.extra(name)["free"]]
    if differences := [(name, before[name], now[name]) for name in fixed if before[name] != now[name]]:
        table = "\n".join(f"  {name:<28} {old!s:>16} -> {new}" for name, old, new in differences)
        help = f"use the old values, or start a new run from these weights: {_new_run(folder, differences)}"
        raise ResumeError(f"the recipe changed since {point.folder.name}:\n{table}", help=help)
    facts, notes = _data_before(folder, point)
    if facts == data_facts:
        return notes
    if note := _repaired(folder, facts, data_facts):
        return [*notes, note]
    if changes := _data_differences(facts, data_facts):
        listed = "\n".join(changes)
        help = "restore the data, or start a new run with --ckpt_path"
        raise ResumeError(f"the data changed since the run began:\n{listed}", help=help)
    return [*notes, _same_enough(facts["train"], data_facts["train"])]


def _data_before(folder: Path, point: ResumePoint) -> tuple[dict[str, Any], list[str]]:
    """What data.json says of the images of the run; without it, what the checkpoint says, and a note.

    Raises:
        ResumeError: neither is there, so that nothing shows that the images are the same.
    """
    file = folder / "data.json"
    try:
        facts, why = run_dir.read_json(file), f"{file} is missing"
    except DataError as error:
        facts, why = None, error.message
    if facts is not None and facts.keys() >= _DATA_FACTS:
        return facts, []
    why = why if facts is None else f"{file} is damaged"
    if (facts := point.state.get("data")) is None:
        message = f"{why}, and {point.folder.name} does not say with which images the run began"
        help = f"restore the file, or start a new run from these weights with --ckpt_path {folder}"
        raise ResumeError(message, help=help)
    return facts, [f"{why}; it is written again from {point.folder.name}"]


def _same_enough(before: dict[str, Any], now: dict[str, Any]) -> str:
    kind = strongest_common(before, now) or ""
    same = {"contents_blake2b": "contents", "names_sha256": "names"}.get(kind, "names and sizes")
    return f"image files were copied or touched since the run began; their {same} are the same"


def _repaired(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """A note if only validation images changed, and the last evaluation failed on some; they may have been removed."""
    unreadable = unreadable_in_evaluation(folder / BAD_IMAGES)
    if not unreadable or not (before["val"] and now["val"]):
        return None
    if _data_differences(before, now | {"val": before["val"]}):
        return None
    num_removed = before["val"]["num_images"] - now["val"]["num_images"]
    if not 0 <= num_removed <= len(unreadable):
        return None
    removed = f"; {num_removed} are gone, which later evaluations do not count" if num_removed else ""
    return f"the validation images changed since the last evaluation could not read {len(unreadable)} of them{removed}"


def _new_run(folder: Path, differences: list[tuple[str, Any, Any]]) -> str:
    """The command that continues from the weights of a run with other values; more epochs are only those to come."""
    changed = {name: now for name, _, now in differences}
    before, now = next(((before, now) for name, before, now in differences if name == "epoch_size"), (0, 0))
    if isinstance(before, int) and now > before:  # in a damaged checkpoint it may be anything
        changed |= {"epoch_size": now - before, "warmup_epochs": 0}
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


_NO_IMAGES = {"num_images": 0, "sha256": ""}


def _data_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is another image now. Times alone do not count: copying a folder changes them."""
    lines = []
    if before["class_names"] != now["class_names"]:
        earlier, present = set(before["class_names"] or ()), set(now["class_names"] or ())
        gone, new = sorted(earlier - present), sorted(present - earlier)
        lines.append(f"  classes: gone {gone or '-'}, new {new or '-'}")
    for split in ("train", "val"):
        old, new = before[split] or _NO_IMAGES, now[split] or _NO_IMAGES
        digest = strongest_common(old, new)
        if old["num_images"] != new["num_images"]:
            lines.append(f"  {split}: {old['num_images']} images before, {new['num_images']} now")
        elif digest == DIGESTS[0] and old[digest] != new[digest] and old.get(DIGESTS[1]) == new.get(DIGESTS[1]):
            lines.append(f"  {split}: the same files and sizes, but other contents")
        elif digest is None or old[digest] != new[digest]:
            lines.append(f"  {split}: the same number of images, but other files, sizes or labels")
        elif other_labels(old, new):
            lines.append(f"  {split}: the same files, but other labels")
    return lines
