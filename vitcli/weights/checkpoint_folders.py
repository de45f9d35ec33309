"""The checkpoint folders of a run as they are found on disk: RUN/checkpoints/step-00001234/."""

from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.weights.json_file import read_json
from vitcli.weights.manifest import verify_manifest

STATE = "state.json"
#: version of what state.json holds; checkpoints without a number are of the first
FORMAT = 2


def check_format(state: dict[str, Any], checkpoint: Path) -> None:
    """DataError if a newer vitcli wrote the checkpoint whose state.json holds `state`."""
    if (number := state.get("format", 1)) > FORMAT:
        raise DataError(
            f"checkpoint {checkpoint} was written by a newer vitcli (format {number}, this one reads up to {FORMAT})",
            help="upgrade vitcli: pip install --upgrade vitcli",
        )


def checkpoints(run_dir: Path) -> list[Path]:
    """All checkpoint folders of the run, newest first, valid or not."""
    folders = (run_dir / "checkpoints").glob("step-????????*")
    return sorted(folders, key=lambda folder: (step_of(folder), folder.suffix == ""), reverse=True)


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
    tensors = {path.name for path in folder.glob("*.safetensors")}
    if problems := verify_manifest(folder, {STATE, "model.safetensors", *tensors}):
        return problems
    try:
        read_json(folder / STATE)
    except DataError as error:
        return [error.message.replace(str(folder / STATE), STATE)]
    return []


def folder_of(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))
