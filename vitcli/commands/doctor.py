"""`vitcli doctor`: whether this installation and this machine are fit for training and deployment."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from vitcli.disk import check_writable, write_whole
from vitcli.doctor.devices import find_devices
from vitcli.doctor.finding import Finding, Level
from vitcli.doctor.machine import find_machine
from vitcli.doctor.packages import find_extras, find_packages
from vitcli.doctor.traps import find_traps
from vitcli.errors import UsageError, printable
from vitcli.log import SafeConsole

_COLORS: dict[Level, str] = {"ok": "green", "note": "yellow", "problem": "bold red", "absent": "dim"}


def doctor(folder: Path, *, json_file: Path | None = None) -> None:
    """Print what was found, group by group as it is found.

    Args:
        folder: where runs are, or will be, written.
        json_file: also write the findings to this path.

    Raises:
        UsageError: at the end, if there are problems.
    """
    check_writable(json_file)
    console = SafeConsole(highlight=False, emoji=False, soft_wrap=True)
    groups = {
        "packages": find_packages(),
        "devices": find_devices(),
        "machine": find_machine(folder),
        "known traps": find_traps(folder),
        "extras": find_extras(),
    }
    found = {title: list(_printed(console, title, findings)) for title, findings in groups.items()}
    if json_file:
        facts = {title: [asdict(finding) for finding in findings] for title, findings in found.items()}
        write_whole(json_file, json.dumps(facts, indent=2) + "\n")
    problems = sum(finding.level == "problem" for findings in found.values() for finding in findings)
    notes = sum(finding.level == "note" for findings in found.values() for finding in findings)
    if problems:
        what = "a problem was" if problems == 1 else f"{problems} problems were"
        raise UsageError(f"{what} found", help="see the lines that begin with `problem`")
    console.print(f"no problem was found{f'; {notes} notes' if notes > 1 else '; one note' * notes}")


def _printed(console: SafeConsole, title: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, each printed when it is found; the title comes first, because some take seconds."""
    console.print(f"[bold]{title}[/bold]")
    num = 0
    for finding in findings:
        num += 1
        color = _COLORS[finding.level]
        console.print(f"  [{color}]{finding.level:<8}[/{color}] {escape(printable(finding.text))}")
        if finding.help:
            console.print(f"           [dim]{escape(printable(finding.help))}[/dim]")
        yield finding
    if not num:
        console.print("  [green]ok      [/green] none")
