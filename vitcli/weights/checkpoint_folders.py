"""The checkpoint folders of a run, as they are found on the disk: RUN/checkpoints/step-00001234/."""

from pathlib import Path
from typing import Any

from vitcli.errors import DataError
from vitcli.weights.manifest import verify_manifest

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
    """The newest checkpoint whose files are all as they were written, and what is wrong with those newer than it."""
    damaged = []
    for folder in checkpoints(run_dir):
        problems = verify_manifest(folder)
        if not problems:
            return folder, damaged
        damaged.append(f"{folder} is damaged ({'; '.join(problems)})")
    return None, damaged


def folder_of(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))
