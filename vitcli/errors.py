"""What can go wrong, the exit code of each, and how it is shown: where it is, what is wrong, what to do."""

import errno
import os
import sys
from dataclasses import dataclass


class VitcliError(Exception):
    """A mistake or an accident that the user is told about in words, never by a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return render("error", self.message, help=self.help)


class UsageError(VitcliError):
    """A command that cannot be carried out as it was typed."""

    exit_code = 2


class WeightsError(VitcliError):
    """A weights file that is not for this model, or holds what may not be loaded."""

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
    """Stopped by a signal after a checkpoint was written; the same command with `--resume auto` goes on."""

    exit_code = 75


class LostContact(Interrupted):
    """Another process of the run died or stopped answering; what it knew of the reason may follow."""


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
    """One mistake of a recipe; `place` is a position in a file, or the words that name another source."""

    message: str
    place: Place | str
    help: str | None = None

    def __str__(self) -> str:
        return render("error", self.message, place=self.place, help=self.help)


class RecipeError(UsageError):
    """All mistakes of a recipe together."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} mistake{'s' if len(problems) > 1 else ''} in the recipe")
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def render(kind: str, message: str, *, place: Place | str | None = None, help: str | None = None) -> str:
    """The block that is printed: the message, the line it is about with a marker under it, and the cure."""
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
    """Print `error` on stderr and return the exit code that belongs to it."""
    text = str(error)
    if sys.stderr.isatty():
        text = text.replace("error:", "\x1b[1;31merror:\x1b[0m").replace("help:", "\x1b[1;36mhelp:\x1b[0m")
    print(text, file=sys.stderr, flush=True)
    return error.exit_code


def show_brief(error: VitcliError) -> int:
    """One line for a rank other than 0: most errors are met by all ranks alike, and rank 0 shows them."""
    print(f"rank {os.environ.get('RANK')}: {error.message.splitlines()[0]}", file=sys.stderr, flush=True)
    return error.exit_code


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` (torch's and safetensors' own kinds included) means that no more can be written."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return full or "No space left on device" in str(error) or "os error 28" in str(error)
