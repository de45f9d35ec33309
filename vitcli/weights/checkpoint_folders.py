"""The checkpoint folders of a run as they are found on disk: RUN/checkpoints/step-00001234/.

Only this exact name is a checkpoint. A copy next to it, such as step-00001234-keep or step-00001234.bak, is the user's.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.weights.json_file import read_json
from vitcli.weights.manifest import verify_manifest

STATE = "state.json"
#: the files of tensors; others in the folder are not read
STEMS = ("model", "task", "ema", "optimizer")
#: version of what state.json holds; checkpoints without a number are of the first
FORMAT = 2

_CHECKPOINT = re.compile(r"step-([0-9]{8,})")
#: a checkpoint while another of the same step takes its place; complete
_REPLACED = re.compile(r"\.replaced-([0-9]{8,})-[0-9]+")


def check_format(state: dict[str, Any], checkpoint: Path) -> None:
    """DataError if a newer vitcli wrote the checkpoint whose state.json holds `state`, or no vitcli did."""
    number = state.get("format", 1)
    if type(number) is not int:
        raise DataError(f"checkpoint {checkpoint} has no state of a vitcli run", help="use another checkpoint")
    if number > FORMAT:
        raise DataError(
            f"checkpoint {checkpoint} was written by a newer vitcli (format {number}, this one reads up to {FORMAT})",
            help="upgrade vitcli: pip install --upgrade vitcli",
        )


def checkpoints(run_dir: Path) -> list[Path]:
    """All checkpoint folders of the run, newest first, valid or not."""
    folder = run_dir / "checkpoints"
    found = [path for path in folder.iterdir() if is_checkpoint(path)] if folder.is_dir() else []
    return sorted(found, key=lambda path: (step_of(path), path.name.startswith("step-")), reverse=True)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is a folder, no link, with the name of a checkpoint."""
    named = _CHECKPOINT.fullmatch(path.name) or _REPLACED.fullmatch(path.name)
    return named is not None and path.is_dir() and not path.is_symlink()


def best_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint of the best evaluation, by the newest state.json; None: there was none, or it is gone.

    The link `best` says the same, for people; not every file system has links, nor every copy of a run.
    """
    for folder in checkpoints(run_dir):
        with suppress(DataError, KeyError, TypeError, ValueError):  # a damaged one is no checkpoint
            step = read_json(folder / STATE)["progress"]["best_step"]
            best = None if step is None else folder_of(run_dir, step)
            return best if best and is_checkpoint(best) else None
    return None


def newest_valid(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are all as they were written, and what is wrong with the newer ones."""
    damaged = []
    for folder in checkpoints(run_dir):
        problems = problems_in(folder)
        if not problems:
            return folder, damaged
        damaged.append(f"{folder} is damaged ({'; '.join(problems)})")
    return None, damaged


def problems_in(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, one sentence per problem; empty if it is as it was written."""
    tensors = {name for stem in STEMS if (folder / (name := f"{stem}.safetensors")).exists()}
    if problems := verify_manifest(folder, {STATE, "model.safetensors", *tensors}):
        return problems
    try:
        read_json(folder / STATE)
    except DataError as error:
        return [error.message.replace(str(folder / STATE), STATE)]
    return []


def has_both(file: str | Path) -> bool:
    """Whether `file` is the average of the weights in a checkpoint, next to the raw ones."""
    file = Path(file)
    return file.name == "ema.safetensors" and (file.parent / STATE).is_file()


def folder_of(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    found = _CHECKPOINT.fullmatch(checkpoint.name) or _REPLACED.fullmatch(checkpoint.name)
    assert found is not None, f"{checkpoint} is no checkpoint"
    return int(found[1])
