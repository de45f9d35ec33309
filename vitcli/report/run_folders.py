"""Finds runs: those below a folder, and the one that a word of a command means."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vitcli.catalog import nearest
from vitcli.errors import UsageError

#: where runs are unless --run_dir says otherwise
RUNS = Path("runs")
#: what a run's folder holds; damaged ones lack some
_PARTS = ("recipe.yaml", "env.json", "data.json", "metrics.jsonl", "status.json", "checkpoints")
#: levels of folders that are searched for runs, such as DIR/experiment/run
_DEPTH = 2


def is_run(path: Path) -> bool:
    """Whether the folder holds at least two of the things that training writes."""
    return _num_parts(path) >= 2


def is_surely_run(path: Path) -> bool:
    """Whether so much of a run is there that it may be removed with all that is in it: another project has a
    data.json and checkpoints too."""
    return _num_parts(path) >= 4 and not (path / ".git").exists()


def _num_parts(path: Path) -> int:
    with suppress(OSError):
        return sum((path / part).exists() for part in _PARTS) if path.is_dir() else 0
    return 0


def runs_below(folder: Path) -> list[Path]:
    """All runs in the folder, at most two levels below it, by name; the folder itself if it is a run.

    Raises:
        UsageError: there is no such folder, or it cannot be read.
    """
    if not os.path.isdir(folder):  # Path raises if the name is too long
        what = f"{folder} is not a folder" if os.path.exists(folder) else f"there is no folder {folder}"
        raise UsageError(what, help=_did_you_mean(folder) or "give a folder that holds runs")
    try:
        return [folder] if is_run(folder) else sorted(_search(folder, _DEPTH))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read ({error.strerror})") from None


def _search(folder: Path, depth: int) -> Iterator[Path]:
    for path in folder.iterdir():
        if not path.is_dir() or path.name.startswith("."):
            continue
        if is_run(path):
            yield path
        elif depth > 1:
            with suppress(PermissionError):
                yield from _search(path, depth - 1)


def find_run(word: str) -> Path:
    """The folder of a run, by its path or by its name in runs/.

    Raises:
        UsageError: there is no such run; the message has the nearest name.
    """
    path, below = Path(word), RUNS / word
    if is_run(path):
        return path
    if path.parent == Path() and is_run(below):
        return below
    if not os.path.exists(path):  # Path raises if the name is too long
        raise UsageError(f"there is no run {word}", help=_did_you_mean(path) or "`vitcli runs ls DIR` lists the runs")
    if path.parent.name == "checkpoints":
        raise UsageError(f"{word} is a checkpoint, not a run", help=f"give its run: {path.parents[1]}")
    what = "a folder, but no run" if path.is_dir() else "not the folder of a run"
    inside = runs_below(path) if path.is_dir() else []
    help = f"give one of its {len(inside)} runs, such as {inside[0]}" if inside else _did_you_mean(path)
    raise UsageError(f"{word} is {what}", help=help or "`vitcli runs ls DIR` lists the runs")


def _did_you_mean(path: Path) -> str | None:
    """The nearest run, or the nearest folder with this parent."""
    parent = path.parent
    if parent == Path() and (likely := nearest(path.name, _names(RUNS, only_runs=True))):
        return f"did you mean {RUNS / likely}?"
    for only_runs in (True, False):
        if likely := nearest(path.name, _names(parent, only_runs=only_runs)):
            return f"did you mean {parent / likely}?"
    return None


def _names(folder: Path, *, only_runs: bool) -> list[str]:
    with suppress(OSError):
        return [path.name for path in folder.iterdir() if (is_run(path) if only_runs else path.is_dir())]
    return []
