"""A command from the fork server behaves as one that was started in the usual way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.commands import ROOT, environment, python_m

MODULE = "tests.support.sleeper"
WAYS = {"forked": python_m, "usual": lambda module, *words: [sys.executable, "-m", module, *words]}


def start(way: str, cwd: Path) -> subprocess.Popen:
    env = environment(MOOD="good", PYTHONPATH=str(ROOT))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(WAYS[way](MODULE, "a word", "-x"), cwd=cwd, env=env, text=True, **pipes)


@pytest.mark.parametrize("way", WAYS)
def test_arguments_streams_and_exit_code(way: str, tmp_path: Path):
    with start(way, tmp_path) as process:
        output, errors = process.communicate("7", timeout=60)
    assert process.returncode == 7, errors
    first, last = output.splitlines()
    facts = json.loads(first)
    assert facts.pop("pid") != os.getpid()
    assert facts == {"words": ["a word", "-x"], "directory": str(tmp_path), "mood": "good"}
    assert last == "goodbye"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_end_the_command(way: str, number: int, tmp_path: Path):
    with start(way, tmp_path) as process:
        pid = json.loads(process.stdout.readline())["pid"]
        process.send_signal(number)
        assert process.wait(timeout=60) == -number
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, "the command outlives what started it"
            time.sleep(0.01)
