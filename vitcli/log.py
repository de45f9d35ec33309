"""The output of a run: progress on the console (rank 0), metrics.jsonl in the run's folder, and a sink for others."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.markup import escape
from rich.table import Table

from vitcli.disk import AppendedFile, Faults, write_whole
from vitcli.errors import paragraph, printable
from vitcli.output import OptionalOutput
from vitcli.terminal import Bars, SafeConsole, hide_bars, phase, show_bars

__all__ = ["Reporter", "SafeConsole", "phase", "relative"]

if TYPE_CHECKING:
    from PIL.Image import Image

#: numbers that depend on the machine, not on the recipe; kept apart so that two runs can be compared line by line
TIMINGS = ("images_per_second", "data_wait_ratio", "seconds", "time")


def relative(path: Path) -> str:
    """A path as the user would type it here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class Sink(Protocol):
    """Where numbers go besides the folder of the run; see `sinks/sink.py`."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def picture(self, step: int, name: str, page: "Image") -> None: ...
    def close(self, exit_code: int) -> None: ...


class Reporter:
    """Prints on rank 0; on other ranks every call does nothing."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        # the folder of the run has the numbers too
        file: Any = OptionalOutput(sys.stdout)
        self.console = SafeConsole(file=file, highlight=False, emoji=False, quiet=not enabled)
        self.console.soft_wrap = not self.console.is_terminal
        self.faults = Faults()  #: what the disk refused of the files below
        self.metrics: AppendedFile | None = None
        self.num_lines = 0  #: in metrics.jsonl
        self.sink: Sink | None = None
        self.bars: Bars | None = None
        self.task_id: Any = None

    def record_in(self, run_dir: Path, step: int, *, keep_lines: int | None = 0) -> None:
        """Also write metrics into the folder of the run, which is at `step`.

        keep_lines: lines of metrics.jsonl that were written up to here; a resumed run writes the later ones again.
            None: those up to `step` (checkpoints of the first format do not count lines).
        """
        if not self.enabled:
            return
        self.metrics = AppendedFile(run_dir / "metrics.jsonl", self.faults)
        self.num_lines = _keep(self.metrics.path, keep_lines, step)

    def say(self, text: str) -> None:
        self.console.say(paragraph(text))

    def note(self, text: str) -> None:
        self.console.note(paragraph(text))

    def notes(self, *groups: Iterable[str]) -> None:
        for group in groups:
            for text in group:
                self.note(text)

    def next(self, command: str) -> None:
        self.console.next(printable(command))

    def start(self, total_steps: int, done_steps: int, *, text: str = "") -> None:
        """Begin the progress display; a terminal gets a live bar followed by `text`, anything else gets lines."""
        if self.enabled and self.console.is_terminal:
            self.bars = show_bars(self.console, stay=True)
            self.task_id = self.bars.begin("training", total_steps, completed=done_steps, text=text)

    def advance(self, step: int, epoch: int, num_epochs: int) -> None:
        if self.bars:
            self.bars.update(self.task_id, completed=step, description=f"epoch {epoch + 1}/{num_epochs}")

    def step(self, values: dict[str, Any], *, text: str) -> None:
        self._record("train", values)
        if self.bars:
            self.bars.update(self.task_id, text=text)
        else:
            self.say(f"step {values['step']}  {text}")

    def epoch(self, values: dict[str, Any], *, text: str) -> None:
        self._record("val", values)
        self.say(text)

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(escape(printable(name)), escape(printable(value)))
        self.console.print(table)

    def close(self) -> None:
        if self.bars:
            hide_bars()
            self.bars = None

    def picture(self, step: int, name: str, page: "Image | None") -> None:
        """For the sink; None: there is nothing to show."""
        if self.sink and page is not None:
            self.sink.picture(step, name, page)

    def leave_sink(self, exit_code: int) -> None:
        """The run has ended."""
        if self.sink:
            self.sink.close(exit_code)
            self.sink = None

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        if not self.metrics:
            return
        line = {"kind": kind, **values, "time": round(time.time(), 3)}
        self.metrics.append((json.dumps(line) + "\n").encode())
        self.num_lines += 1
        if self.sink:
            shown = [name for name in values if name not in ("step", "epoch") and isinstance(values[name], int | float)]
            self.sink.scalars(values["step"], {f"{kind}/{name}": values[name] for name in shown})


def _keep(metrics_file: Path, keep_lines: int | None, step: int) -> int:
    """Drop the lines that a resumed run writes again; the number of those that stay."""
    if not metrics_file.exists():
        return 0
    lines = metrics_file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step] if keep_lines is None else lines[:keep_lines]
    if len(kept) < len(lines):
        write_whole(metrics_file, "".join(line + "\n" for line in kept))
    return len(kept)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # the last line of a killed process may be cut short
        return float("inf")
