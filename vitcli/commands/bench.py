"""`vitcli bench infer`: speed and memory of several networks on this machine, in a table that can be quoted."""

import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

import vitcli
from vitcli.deploy.measure import Row, measure
from vitcli.deploy.measure_worker import Candidate
from vitcli.disk import check_writable
from vitcli.engine.run_dir import write_result
from vitcli.errors import UsageError
from vitcli.log import SafeConsole, phase
from vitcli.networks.provenance import machine, versions
from vitcli.process import num_cores
from vitcli.recipe.plugins import plugin_files


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

    `cli/deployment.py` describes the options; `threads` None: one thread, and as many as there are cores.

    Raises:
        UsageError: a network could not be measured; the table has the others.
    """
    check_writable(json_file)
    settings = [(batch, number) for batch in batches for number in threads or sorted({1, num_cores()})]
    plugins = tuple(map(str, plugin_files()))
    rows: list[Row] = []
    with phase("measuring", len(settings) * rounds * len(items)) as advance:
        for batch, number in settings:
            candidates = [Candidate(item, batch, number, img_size, plugins) for item in items]
            rows += measure(candidates, rounds=rounds, seconds=seconds, advance=lambda: advance(1))
    packages = dict.fromkeys(name for row in rows for name in row.packages)
    facts = {
        "machine": f"{machine()}, {platform.system()} {platform.release()}",
        "versions": {"vitcli": vitcli.__version__, "Python": platform.python_version()} | versions(*packages),
        "command": shlex.join(["vitcli", *sys.argv[1:]]),
        "rounds": rounds,
        "seconds": seconds,
    }
    _show(rows, facts)
    if json_file:
        write_result(json_file, facts | {"rows": [asdict(row) for row in rows]})
    if failed := sum(row.failed for row in rows):
        raise UsageError(f"{failed} of {len(rows)} rows could not be measured", help="the reasons are printed above")
    return rows


def _show(rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """The table in Markdown, the reasons for empty rows, and what the numbers depend on."""
    width = 120 + max(len(row.item) for row in rows)  # a table that is broken to fit a terminal cannot be quoted
    console = SafeConsole(highlight=False, emoji=False, markup=False, soft_wrap=True, width=width)
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
        f"{facts['rounds']} rounds of {facts['seconds']:g} s, in turns. ratio: times as fast as the first item, median "
        "over the rounds.\nmemory: peak of resident memory while running, libraries included, above a bare "
        f"Python process.\n{facts['command']}"
    )


def _cells(row: Row) -> list[str]:
    def shown(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:,.{digits}f}"

    p50 = "failed" if row.failed else shown(row.p50_ms, 2)
    speed = [p50, shown(row.p95_ms, 2), shown(row.images_per_second, 1), shown(row.ratio, 2)]
    memory = [shown(row.size_mb, 1), shown(row.memory_mb, 0)]
    return [row.item, row.format, row.precision, str(row.batch), str(row.threads), *speed, *memory]
