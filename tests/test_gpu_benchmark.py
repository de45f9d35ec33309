"""benchmarks/gpu.py on a CPU: phases by name, results at once, limits of time that lose nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT


def benchmark(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)


@pytest.mark.slow
def test_results_are_written_one_by_one(tmp_path: Path):
    """A later call appends; a phase that is ended at its limit keeps what it has written and fails the call."""
    out = tmp_path / "gpu.jsonl"
    done = benchmark("--only", "attention,device", "--limit-factor", 10, "--out", out)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["device"] * 3 + ["attention"] * 4
    assert lines[0]["device"] == "cpu"
    assert lines[1]["copy_gb_per_second"] > 0
    assert [line["end"] for line in lines if "end" in line] == ["done", "done"]
    ended = benchmark("--only", "step", "--limit-factor", 1e-4, "--out", out)
    assert ended.returncode == 1
    assert "not complete: step" in ended.stdout
    assert json.loads(out.read_text().splitlines()[-1])["end"].startswith("ended at its limit")
    assert len(out.read_text().splitlines()) == len(lines) + 1


def test_phases_are_listed_and_refused_by_name():
    """All of them together stay under 8 minutes."""
    seconds = [int(line.split()[1]) for line in benchmark("--list").stdout.splitlines()]
    assert len(seconds) == 12
    assert sum(seconds) <= 480
    refused = benchmark("--only", "step,lop")
    assert refused.returncode == 2
    assert "no phase lop" in refused.stderr
