"""`vitcli runs ls` and `vitcli runs rm`: which runs there are, and how to be rid of one; without torch."""

import os
import shutil
import sys
from pathlib import Path

from rich.markup import escape

from vitcli.engine.run_dir import write_result
from vitcli.errors import DiskError, UsageError
from vitcli.log import SafeConsole
from vitcli.report import in_words
from vitcli.report.run_folders import RUNS, find_run, is_surely_run, runs_below
from vitcli.report.run_list import facts, in_order, run_columns
from vitcli.report.run_record import RunRecord
from vitcli.report.text_table import table_lines, width_of


def ls(folder: Path | None, order: str = "age", *, reverse: bool = False, json_file: Path | None = None) -> None:
    """Print one line for each run in the folder (default: runs/), and write them to `json_file`.

    Raises:
        UsageError: there is no such folder, or the file cannot be written.
    """
    console = SafeConsole(highlight=False, emoji=False, soft_wrap=True)
    where = folder or RUNS
    none_yet = folder is None and not where.exists()
    runs = [] if none_yet else in_order([RunRecord(path) for path in runs_below(where)], order, reverse=reverse)
    if runs:
        lines = table_lines(run_columns([_below(run.path, where) for run in runs], runs), width_of(console))
        console.print(escape(lines[0]), style="bold")
        for line in lines[1:]:
            console.print(escape(line))
    else:
        console.print(f"no runs in {escape(str(where))}; start one: vitcli train -c RECIPE --data_dir DIR")
    for run in runs:
        for note in run.notes:
            console.note(f"{_below(run.path, where)}: {note}")
    if json_file:
        write_result(json_file, [facts(run) for run in runs])


def rm(words: list[str], *, yes: bool = False) -> None:
    """Remove the folders of runs, after asking.

    Raises:
        UsageError: one is not the folder of a run, or is in use, or nobody can be asked; nothing was removed.
        DiskError: the disk refuses.
    """
    console = SafeConsole(highlight=False, emoji=False, soft_wrap=True)
    runs = [RunRecord(path) for path in dict.fromkeys(_removable(word) for word in words)]
    total = in_words.size(sum(run.num_bytes for run in runs))
    if not yes and not _agreed(console, runs, total):
        console.print("nothing was removed")
        return
    for run in runs:
        num_bytes = run.num_bytes
        _check_unused(run.path)  # somebody may have continued it since then
        try:
            shutil.rmtree(run.path)
        except OSError as error:
            raise DiskError(f"{run.path} cannot be removed completely: {error.strerror}: {error.filename}") from None
        console.print(f"removed {escape(str(run.path))}, {in_words.size(num_bytes)}")
    if len(runs) > 1:
        console.print(f"{total} in all")


def _below(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path != folder else str(path)


def _removable(word: str) -> Path:
    """The folder that `word` means, if it may be removed."""
    path = Path(os.path.normpath(find_run(word)))
    if path.is_symlink():
        raise UsageError(f"{path} is a link", help=f"remove the link, or the run itself: {path.resolve()}")
    if not is_surely_run(path):
        help = "it lacks most of what training writes; remove it yourself if it is one"
        raise UsageError(f"{path} may not be a run", help=help)
    if Path.cwd().is_relative_to(path.resolve()):
        raise UsageError(f"{path} contains the current folder", help="go somewhere else: cd ..")
    _check_unused(path)
    return path


def _check_unused(path: Path) -> None:
    if user := RunRecord(path).user:
        raise UsageError(f"{path} is in use by {user}", help="stop it first: Ctrl-C, or SIGTERM to this process")


def _agreed(console: SafeConsole, runs: list[RunRecord], total: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("removing runs must be confirmed, and there is no terminal to ask on", help="add --yes")
    for run in runs:
        console.print(f"{escape(str(run.path))}  {run.status}, {in_words.size(run.num_bytes)}")
    console.print(f"remove {'this run' if len(runs) == 1 else f'these {len(runs)} runs'} ({total})? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
