"""What can go wrong, the exit code of each error, and how it is shown: what is wrong, where, and what to do.

Text that is shown may contain names that others chose: `printable` is how it gets to a terminal.
"""

import errno
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType


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


class LostWorker(Interrupted):
    """A process that decodes images was killed."""


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


_MOST_PROBLEMS = 100


class RecipeError(UsageError):
    """All mistakes in a recipe."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} mistake{'s' if len(problems) > 1 else ''} in the recipe")
        self.problems = problems

    def __str__(self) -> str:
        shown = [str(problem) for problem in self.problems[:_MOST_PROBLEMS]]
        hidden = len(self.problems) - len(shown)
        return "\n".join(shown + [f"… and {hidden:,} more mistakes"] * (hidden > 0))


#: characters of a line that are shown around the place that a message is about
_NUM_SHOWN = 120


def render(kind: str, message: str, *, place: Place | str | None = None, help: str | None = None) -> str:
    """The text that is printed: the message, the line it is about with a marker below it, and the help."""
    lines = [paragraph(f"{kind}: {message}")]
    if isinstance(place, str):
        lines.append(f"  --> {printable(place)}")
    elif place is not None:
        lines.append(f"  --> {printable(place.file)}:{place.line}:{place.column}")
        lines += _marked(place) if place.text else []
    if help:
        lines.append(paragraph(f"help: {help}"))
    return "\n".join(lines)


def _marked(place: Place) -> list[str]:
    """The line, or of a long one the part around the place, and a marker below it."""
    number, at = str(place.line), place.column - 1
    start = 0 if len(place.text) <= _NUM_SHOWN else max(0, at - _NUM_SHOWN // 2)
    before, marked, after = (
        printable(text[:_NUM_SHOWN])
        for text in (place.text[start:at], place.text[at : at + place.width], place.text[at + place.width :])
    )
    shown = f"  {number} | {'…' * (start > 0)}{before}{marked}{after}"
    return [shown, f"  {' ' * len(number)} | {' ' * len('…' * (start > 0) + before)}{'^' * max(1, len(marked))}"]


def printable(text: str) -> str:
    """`text` as one line that a terminal shows and does not obey.

    Escape sequences, line ends, marks that reorder text, invisible characters and bytes that are no text are shown as
    `\\x1b`, `\\n`, `\\u202e`, `\\u200b`, `\\udcff`. Files keep the text as it is.
    """
    return "".join(char if _is_shown(char) else char.encode("unicode_escape").decode() for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"  # the spaces of all scripts


def shortened(text: str) -> str:
    """`text`, or its beginning if it is longer than anyone reads in a message."""
    return text if len(text) <= _NUM_SHOWN else f"{text[:_NUM_SHOWN]}… ({len(text):,} characters)"


def printable_lines(text: str) -> str:
    """The same for text of several lines."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def paragraph(message: str) -> str:
    """The same for a message. Later lines are indented, so that a line end in a name does not start another message."""
    first, *others = map(printable, message.split("\n"))
    return "\n".join([first, *(line if line.startswith(" ") else f"  {line}" for line in others)])


_COLORS = {"error": 31, "help": 36}


def show(error: VitcliError) -> int:
    """Print `error` on stderr and return its exit code."""
    text = str(error)
    if sys.stderr.isatty():
        text = re.sub("^(error|help):", lambda word: f"\x1b[1;{_COLORS[word[1]]}m{word[0]}\x1b[0m", text, flags=re.M)
    print(text, file=sys.stderr, flush=True)
    return error.exit_code


def show_brief(error: VitcliError) -> int:
    """Print one line on a rank other than 0: most errors occur on all ranks, and rank 0 shows them in full."""
    print(f"rank {os.environ.get('RANK')}: {printable(error.message.splitlines()[0])}", file=sys.stderr, flush=True)
    return error.exit_code


def errno_of(error: BaseException) -> int | None:
    """The number of the system's error that `error` reports; safetensors has it in its text. None: another kind."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A mistake of ours, which may quote anything; for `sys.excepthook`."""
    lines = traceback.format_exception(kind, error, trace)
    print(printable_lines("".join(lines)), end="", file=sys.stderr, flush=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` means that the disk is full; torch and safetensors have error types of their own for it."""
    return errno_of(error) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left on device" in str(error)


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
