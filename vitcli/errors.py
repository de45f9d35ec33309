"""What can go wrong, the exit code of each error, and how it is shown: what is wrong, where, and what to do."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class VitcliError(Exception):
    """An error that is shown to the user as a message, never as a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return render("error", self.message, help=self.help)


class UsageError(VitcliError):
    """A command that cannot be carried out as it was given."""

    exit_code = 2


class WeightsError(VitcliError):
    """A weights file that does not fit the model, or that contains what must not be loaded."""

    exit_code = 2


class DataError(VitcliError):
    """Images, labels or weight files that cannot be read or contradict each other."""

    exit_code = 3


class ResumeError(VitcliError):
    """A run that cannot be continued exactly; nothing was overwritten."""

    exit_code = 4


class DivergedError(VitcliError):
    """The loss or a gradient became infinite or NaN; the weights were not touched by it."""

    exit_code = 5


class DiskError(VitcliError):
    """The disk is full or cannot be written."""

    exit_code = 74


class Interrupted(VitcliError):
    """Stopped by a signal after a checkpoint was written; the same command with `--resume auto` continues."""

    exit_code = 75


class LostContact(Interrupted):
    """Another process of the run ended or stopped responding; its own message may follow."""


@dataclass(frozen=True)
class Place:
    """A position in a text file, counted from 1; `text` is the whole line."""

    file: str
    line: int
    column: int
    text: str = ""
    width: int = 1


@dataclass(frozen=True)
class Problem:
    """One mistake of a recipe; `place` is a position in a file, or the name of another source."""

    message: str
    place: Place | str
    help: str | None = None

    def __str__(self) -> str:
        return render("error", self.message, place=self.place, help=self.help)


class RecipeError(UsageError):
    """All mistakes in a recipe."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} mistake{'s' if len(problems) > 1 else ''} in the recipe")
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def render(kind: str, message: str, *, place: Place | str | None = None, help: str | None = None) -> str:
    """The text that is printed: the message, the line it is about with a marker below it, and the help."""
    lines = [f"{kind}: {message}"]
    if isinstance(place, str):
        lines.append(f"  --> {place}")
    elif place is not None:
        number = str(place.line)
        lines.append(f"  --> {place.file}:{place.line}:{place.column}")
        if place.text:
            lines.append(f"  {number} | {place.text}")
            lines.append(f"  {' ' * len(number)} | {' ' * (place.column - 1)}{'^' * max(1, place.width)}")
    if help:
        lines.append(f"help: {help}")
    return "\n".join(lines)


def show(error: VitcliError) -> int:
    """Print `error` on stderr and return its exit code."""
    text = str(error)
    if sys.stderr.isatty():
        text = text.replace("error:", "\x1b[1;31merror:\x1b[0m").replace("help:", "\x1b[1;36mhelp:\x1b[0m")
    print(text, file=sys.stderr, flush=True)
    return error.exit_code


def show_brief(error: VitcliError) -> int:
    """Print one line on a rank other than 0: most errors occur on all ranks, and rank 0 shows them in full."""
    print(f"rank {os.environ.get('RANK')}: {error.message.splitlines()[0]}", file=sys.stderr, flush=True)
    return error.exit_code


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` means that the disk is full; torch and safetensors have error types of their own for it."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return full or "No space left on device" in str(error) or "os error 28" in str(error)


@contextmanager
def plugin_errors_in_words(module: str, help: str) -> Iterator[None]:
    """An exception in the code of the plugin `module` becomes a UsageError that names the plugin's file and line."""
    try:
        yield
    except VitcliError:
        raise
    except Exception as error:
        what = error.msg if isinstance(error, SyntaxError) else error
        raise UsageError(f"{_place_in(module, error)}: {type(error).__name__}: {what}", help=help) from error


def _place_in(module: str, error: Exception) -> str:
    """file:line of the last line of the plugin that was running; without one, its file, or its name."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}"
    package = module.partition(".")[0]
    lines = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] == package
    ]
    return lines[-1] if lines else getattr(sys.modules.get(module), "__file__", None) or module
