"""Speed and memory of several networks, each in a process of its own, measured in turns.

In each round every network runs once, so that whatever disturbs the machine disturbs all of them alike; ratios are
taken within a round.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vitcli.deploy.measure_worker import Candidate


@dataclass
class Row:
    """A network at one batch size and number of threads, as measured."""

    item: str
    batch: int
    threads: int
    format: str = "–"
    precision: str = "–"
    p50_ms: float | None = None
    p95_ms: float | None = None
    images_per_second: float | None = None
    ratio: float | None = None  #: how many times as fast as the first network
    size_mb: float | None = None
    memory_mb: float | None = None
    why_not: str | None = None  #: why it was not measured
    failed: bool = False
    packages: list[str] = field(default_factory=list)


def measure(
    candidates: Sequence[Candidate], *, rounds: int, seconds: float, advance: Callable[[], None] = lambda: None
) -> list[Row]:
    """One row for each candidate; they run in turns, `rounds` times for `seconds`, and are compared with the first.

    advance: called after each turn.
    """
    workers = [Worker(candidate) for candidate in candidates]
    try:
        for worker in workers:
            worker.listen()
        for number in range(rounds):
            for worker in workers if number % 2 == 0 else reversed(workers):  # none always follows the same other
                worker.run(seconds)
                advance()
        return [worker.row(compared_with=workers[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.stop()


class Worker:
    """The process of one network, and what it has answered so far."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.facts: dict[str, Any] = {}
        self.times_ms: list[list[float]] = []  #: of the calls of each round
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vitcli.deploy.measure_worker", json.dumps(asdict(candidate))],
            env=os.environ | {"OMP_NUM_THREADS": str(candidate.threads)},  # read once, when torch is loaded
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
        )

    @property
    def works(self) -> bool:
        return "why_not" not in self.facts

    def listen(self) -> None:
        """Read its next answer, or find out why there is none."""
        assert self.process.stdout
        if line := self.process.stdout.readline():
            self.facts |= json.loads(line)
            return
        code = self.process.wait()
        self.stderr.seek(0)
        last_line = self.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        self.facts |= {"why_not": ": ".join([how + memory, *last_line]), "failed": True}

    def run(self, seconds: float) -> None:
        """Let it compute for `seconds` while the others wait."""
        if not self.works:
            return
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has ended, and will not answer
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
        candidate, facts = self.candidate, self.facts
        row = Row(candidate.item, candidate.batch, candidate.threads)
        if not self.works:
            row.why_not, row.failed = facts["why_not"], facts["failed"]
            return row
        times = np.concatenate(self.times_ms)
        row.format, row.precision, row.packages = facts["format"], facts["precision"], facts["packages"]
        row.p50_ms, row.p95_ms = (float(f"{np.percentile(times, share):.4g}") for share in (50, 95))
        row.images_per_second = round(1000 * candidate.batch / float(times.mean()), 1)
        row.size_mb = round(facts["size_bytes"] / 1e6, 1)
        row.memory_mb = round(facts["memory_bytes"] / 1e6) if facts["memory_bytes"] else None
        if compared_with.works:
            pairs = zip(compared_with.times_ms, self.times_ms, strict=True)
            row.ratio = round(float(np.median([np.median(first) / np.median(own) for first, own in pairs])), 3)
        return row
