"""`vitcli bench infer`: speed and memory of networks beside each other, in a table that can be quoted.

Each network has a process of its own. They run by turns, in each round all of them, so that whatever disturbs the
machine disturbs all alike; ratios are taken within a round.
"""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import vitcli
from vitcli.commands.bench_worker import Order
from vitcli.commands.prediction_files import check_writable
from vitcli.engine.run_dir import write_result
from vitcli.errors import UsageError
from vitcli.networks.provenance import machine, versions
from vitcli.recipe.plugins import plugin_files


@dataclass
class Row:
    """A network at one batch size and number of threads, as it was measured."""

    item: str
    batch: int
    threads: int
    format: str = "–"
    precision: str = "–"
    p50_ms: float | None = None
    p95_ms: float | None = None
    images_per_second: float | None = None
    ratio: float | None = None  #: times as fast as the first network
    size_mb: float | None = None
    memory_mb: float | None = None
    why_not: str | None = None  #: it was not measured
    failed: bool = False
    packages: list[str] = field(default_factory=list)


def bench_infer(
    items: Sequence[str],
    *,
    batches: Sequence[int] = (1, 16),
    threads: Sequence[int] | None = None,
    rounds: int = 10,
    seconds: float = 1.0,
    img_size: int | None = None,
    json_file: Path | None = None,
) -> list[Row]:
    """Measure the forward passes of `items` on the CPU, print the table, and return its rows.

    Args:
        items: artifacts, runs or other weights, models of the registry, or "timm:NAME".
        batches: images at a time.
        threads: None: one, and as many as there are cores.
        rounds, seconds: each network runs so often for so long.
        img_size: of models by name; None: the published one.
        json_file: also write the result there.

    Raises:
        UsageError: a network could not be measured; the table has the others.
    """
    check_writable(json_file)
    settings = [(batch, number) for batch in batches for number in threads or sorted({1, num_cores()})]
    plugins = tuple(map(str, plugin_files()))
    rows: list[Row] = []
    with _progress(len(settings) * rounds * len(items)) as advance:
        for batch, number in settings:
            orders = [Order(item, batch, number, img_size, plugins) for item in items]
            rows += measure(orders, rounds=rounds, seconds=seconds, advance=advance)
    facts = _facts(rows) | {"rounds": rounds, "seconds": seconds}
    _show(rows, facts)
    if json_file:
        write_result(json_file, facts | {"rows": [asdict(row) for row in rows]})
    if failed := sum(row.failed for row in rows):
        raise UsageError(f"{failed} of {len(rows)} rows could not be measured", help="the reasons stand above")
    return rows


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(
    orders: Sequence[Order], *, rounds: int, seconds: float, advance: Callable[[], None] = lambda: None
) -> list[Row]:
    """One row for each order, measured by turns; the first is what the others are compared with."""
    workers = [Worker(order) for order in orders]
    try:
        for worker in workers:
            worker.listen()
        for number in range(rounds):
            for worker in workers if number % 2 == 0 else reversed(workers):  # nobody always follows the same
                worker.run(seconds)
                advance()
        return [worker.row(compared_with=workers[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.stop()


class Worker:
    """The process of one network, and what it has said so far."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.facts: dict[str, Any] = {}
        self.times_ms: list[list[float]] = []  #: of the calls of each round
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vitcli.commands.bench_worker", json.dumps(asdict(order))],
            env=os.environ | {"OMP_NUM_THREADS": str(order.threads)},  # which is read once, when torch is loaded
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
        )

    @property
    def works(self) -> bool:
        return "why_not" not in self.facts

    def listen(self) -> None:
        """Take in its next answer, or why there will be none."""
        assert self.process.stdout
        if line := self.process.stdout.readline():
            self.facts |= json.loads(line)
            return
        code = self.process.wait()
        self.stderr.seek(0)
        last_words = self.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        self.facts |= {"why_not": ": ".join([how + memory, *last_words]), "failed": True}

    def run(self, seconds: float) -> None:
        """Let it compute for so long; the others wait."""
        if not self.works:
            return
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it is gone, and does not answer
            print(seconds, file=self.process.stdin, flush=True)
        self.listen()
        if self.works:
            self.times_ms.append(self.facts["times_ms"])

    def stop(self) -> None:
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.communicate()
        self.stderr.close()

    def row(self, *, compared_with: "Worker") -> Row:
        order, facts = self.order, self.facts
        row = Row(order.item, order.batch, order.threads)
        if not self.works:
            row.why_not, row.failed = facts["why_not"], facts["failed"]
            return row
        times = np.concatenate(self.times_ms)
        row.format, row.precision, row.packages = facts["format"], facts["precision"], facts["packages"]
        row.p50_ms, row.p95_ms = (float(f"{np.percentile(times, share):.4g}") for share in (50, 95))
        row.images_per_second = round(1000 * order.batch / float(times.mean()), 1)
        row.size_mb = round(facts["size_bytes"] / 1e6, 1)
        row.memory_mb = round(facts["memory_bytes"] / 1e6) if facts["memory_bytes"] else None
        if compared_with.works:
            pairs = zip(compared_with.times_ms, self.times_ms, strict=True)
            row.ratio = round(float(np.median([np.median(first) / np.median(own) for first, own in pairs])), 3)
        return row


def _facts(rows: Sequence[Row]) -> dict[str, Any]:
    """What the numbers depend on."""
    packages = dict.fromkeys(name for row in rows for name in row.packages)
    return {
        "machine": f"{machine()}, {platform.system()} {platform.release()}",
        "versions": {"vitcli": vitcli.__version__, "Python": platform.python_version()} | versions(*packages),
        "command": shlex.join(["vitcli", *sys.argv[1:]]),
    }


def _show(rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """The table, as Markdown has it, why rows are empty, and where the numbers come from."""
    width = 120 + max(len(row.item) for row in rows)  # a table that is broken to fit a terminal cannot be quoted
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True, width=width)
    table = Table(box=box.MARKDOWN)
    for name in ("item", "format", "precision"):
        table.add_column(name)
    for name in ("batch", "threads", "p50 ms", "p95 ms", "img/s", "ratio", "size MB", "memory MB"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for reason in dict.fromkeys(f"{row.item}: {row.why_not}" for row in rows if row.why_not):
        console.print(reason)
    installed = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    console.print(
        f"{facts['machine']}. {installed}.\n"
        f"{facts['rounds']} rounds of {facts['seconds']:g} s, by turns. ratio: times as fast as the first item, median "
        "of the rounds.\nmemory: the most that was resident while it ran, libraries included, above a bare process.\n"
        f"{facts['command']}"
    )


def _cells(row: Row) -> list[str]:
    def shown(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:,.{digits}f}"

    return [
        row.item,
        row.format,
        row.precision,
        str(row.batch),
        str(row.threads),
        "failed" if row.failed else shown(row.p50_ms, 2),
        shown(row.p95_ms, 2),
        shown(row.images_per_second, 1),
        shown(row.ratio, 2),
        shown(row.size_mb, 1),
        shown(row.memory_mb, 0),
    ]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Call the function after each turn."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=total)
        yield lambda: progress.advance(task)
