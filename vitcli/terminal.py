"""What a person sees while a command works: a console that names cannot give orders to, and the progress of phases."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.progress import Progress, Task, TaskID
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from vitcli.errors import printable, printable_lines

#: where output is piped, a phase that takes longer is announced, and its duration follows
LONG_SECONDS = 5.0
_FRAMES = ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/")  # of spinners, and where the encoding has no such characters


class SafeConsole(Console):
    """The console of all commands: no name in a text gives orders to the terminal (`errors.printable`)."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Above the bars of another console, if there are any."""
        bars = Bars.shown if self.is_terminal and not self.quiet else None
        if bars is None or bars.console is self:
            super().print(*objects, **options)
            return
        with bars.away():
            super().print(*objects, **options)

    def say(self, text: str) -> None:
        """Sentences; a terminal that is narrower gets them broken between words."""
        self.print(Text(text), soft_wrap=not self.is_terminal)

    def note(self, text: str) -> None:
        """What the user should know of something that goes on nevertheless."""
        self.print(Text.assemble(("note:", "yellow"), f" {text}"), soft_wrap=not self.is_terminal)

    def next(self, *commands: str) -> None:
        """What can be typed next; never broken here, so that it can be copied from a terminal."""
        self.print(Text("next: " + "\n      ".join(commands)), soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """Before rich removes some of the characters without a trace."""
        return super().render_str(printable_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Of text that was not given as a string."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))


class Bars(Progress):
    """One line on the terminal for each phase: a spinner, or a bar if it is known how much there is to do."""

    shown: "Bars | None" = None  #: those on the terminal, which later phases join

    def begin(self, title: str, total: int | None, *, completed: int = 0, text: str = "") -> TaskID:
        return self.add_task(printable(title), total=total, completed=completed, text=text)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Without a trace of them while the block runs."""
        stay, self.live.transient = self.live.transient, True
        self.stop()
        try:
            yield
        finally:
            self.live.transient = stay
            self.start()

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield _bar(task, self.console) if task.total else _spinner(task, self.console)


def show_bars(console: Console, *, stay: bool = False) -> Bars:
    """Bars on `console` until `hide_bars`; their last state disappears then, unless it is to stay."""
    Bars.shown = Bars(console=console, transient=not stay, refresh_per_second=4)
    Bars.shown.start()
    return Bars.shown


def hide_bars() -> None:
    if Bars.shown:
        Bars.shown.stop()
        Bars.shown = None


@contextmanager
def phase(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show that `title` ("listing images") goes on while the block runs; call what it gives with each number done.

    A terminal shows a spinner, or a bar if there is a `total`, and nothing stays. Where output is piped, a phase longer
    than `LONG_SECONDS` gets two lines on standard error, which leaves standard output to programs that read it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield _nothing
    elif Bars.shown or _terminal() is not None:
        with _as_bar(title, total) as advance:
            yield advance
    else:
        with _as_lines(title):
            yield _nothing


@contextmanager
def _as_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    is_first = Bars.shown is None
    bars = Bars.shown or show_bars(SafeConsole(file=_terminal(), highlight=False, emoji=False))
    task = bars.begin(title, total)
    try:
        yield lambda count: bars.advance(task, count)
    finally:
        bars.remove_task(task)
        if is_first:
            hide_bars()


@contextmanager
def _as_lines(title: str) -> Iterator[None]:
    console = SafeConsole(file=sys.stderr, highlight=False, emoji=False, markup=False, soft_wrap=True)
    start = time.monotonic()
    announcement = threading.Timer(LONG_SECONDS, console.print, [f"{printable(title)} …"])
    announcement.daemon = True
    announcement.start()
    try:
        yield
    finally:
        announcement.cancel()
    if (seconds := time.monotonic() - start) > LONG_SECONDS:
        console.print(f"{printable(title)}: {seconds:.0f} s")


def _terminal() -> Any:
    """The stream that is a terminal; None: neither is. Its proxy of now, which a redirection leaves as it is."""
    return next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)


def _nothing(count: int) -> None:
    pass


def _spinner(task: Task, console: Console) -> RenderableType:
    seconds = task.elapsed or 0.0
    frames = _FRAMES[console.options.ascii_only]
    shown = f"{frames[int(8 * seconds) % len(frames)]} {task.description}  {_clock(seconds)}"
    return Text(shown, no_wrap=True, overflow="ellipsis")


def _bar(task: Task, console: Console) -> RenderableType:
    """The text of a task is shown after its bar or, where it does not fit, on a line of its own."""
    text = Text(task.fields["text"], no_wrap=True, overflow="ellipsis")
    done = f"{task.percentage:.0f} %" if text else f"{int(task.completed):,}/{int(task.total or 0):,}"
    left = "" if task.time_remaining is None else f"left {_clock(task.time_remaining)}"
    pieces = [task.description, ProgressBar(task.total, task.completed, width=24), done, _clock(task.elapsed), left]
    length = sum(len(piece) for piece in pieces if isinstance(piece, str)) + 24 + len(pieces)
    line = Table.grid(padding=(0, 1))
    if length + len(text) <= console.width:
        line.add_row(*pieces, text)
        return line
    line.add_row(*pieces)
    return Group(line, text) if text else line


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=int(seconds or 0)))
