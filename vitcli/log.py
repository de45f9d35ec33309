"""The output of a run: progress on the console (rank 0), metrics.jsonl and TensorBoard in the run's folder."""

import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

#: numbers that depend on the machine, not on the recipe; kept apart so that two runs can be compared line by line
TIMINGS = ("images_per_second", "data_wait_ratio", "seconds", "time")


def relative(path: Path) -> str:
    """A path as the user would type it here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class SteadyConsole(Console):
    """Stops printing, instead of ending the process, when its output is no longer read (`vitcli train | head`)."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Reporter:
    """Prints on rank 0; on other ranks every call does nothing."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.console = SteadyConsole(highlight=False, emoji=False, soft_wrap=True, quiet=not enabled)
        self.metrics_file: Path | None = None
        self.num_lines = 0  #: in metrics.jsonl
        self.writer: Any = None
        self.progress: Progress | None = None
        self.task_id: Any = None

    def record_in(self, run_dir: Path, step: int, *, keep_lines: int | None = 0) -> None:
        """Also write metrics into the folder of the run, which is at `step`.

        keep_lines: lines of metrics.jsonl that were written up to here; a resumed run writes the later ones again.
            None: those up to `step` (checkpoints of the first format do not count lines).
        """
        if not self.enabled:
            return
        self.metrics_file = run_dir / "metrics.jsonl"
        self.num_lines = _keep(self.metrics_file, keep_lines, step)
        with suppress(ImportError):  # a minimal installation has no TensorBoard: metrics.jsonl has the same numbers
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run_dir), purge_step=step + 1, flush_secs=30)

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    def note(self, text: str) -> None:
        self.console.print(f"[yellow]note:[/yellow] {escape(text)}")

    def notes(self, *groups: Iterable[str]) -> None:
        for group in groups:
            for text in group:
                self.note(text)

    def start(self, total_steps: int, done_steps: int) -> None:
        """Begin the progress display; a terminal gets a live bar, anything else gets lines."""
        if self.enabled and sys.stdout.isatty():
            columns = (
                TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[text]}"),
            )  # fmt: skip
            self.progress = Progress(*columns, console=self.console, refresh_per_second=2)
            self.task_id = self.progress.add_task("training", total=total_steps, completed=done_steps, text="")
            self.progress.start()

    def advance(self, step: int, epoch: int, num_epochs: int) -> None:
        if self.progress:
            self.progress.update(self.task_id, completed=step, description=f"epoch {epoch + 1}/{num_epochs}")

    def step(self, values: dict[str, Any], *, text: str) -> None:
        self._record("train", values)
        if self.progress:
            self.progress.update(self.task_id, text=text)
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
            table.add_row(escape(name), escape(value))
        self.console.print(table)

    def close(self) -> None:
        if self.progress:
            self.progress.stop()
            self.progress = None
        if self.writer:
            self.writer.close()
            self.writer = None

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        if not self.metrics_file:
            return
        line = {"kind": kind, **values, "time": round(time.time(), 3)}
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.num_lines += 1
        if self.writer:
            for name, value in values.items():
                if name not in ("step", "epoch") and isinstance(value, int | float):
                    self.writer.add_scalar(f"{kind}/{name}", value, values["step"])


def _keep(metrics_file: Path, keep_lines: int | None, step: int) -> int:
    """Drop the lines that a resumed run writes again; the number of those that stay."""
    if not metrics_file.exists():
        return 0
    lines = metrics_file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step] if keep_lines is None else lines[:keep_lines]
    if len(kept) < len(lines):
        metrics_file.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return len(kept)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # the last line of a killed process may be cut short
        return float("inf")
