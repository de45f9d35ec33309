"""A terminal is a file like any other: its reader leaves, its disk is full, it knows no Chinese. No command crashes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.commands import environment, finished, options, python_m, run_here

TRAIN = ["train", "-c", "quickstart", "--run_dir", "run", "--model", "fvit", "--depth", 1, "--image_resize", 32]
TRAIN += options({"epoch_size": 2, "num_samples": 64, "batch_size": 16, "log_interval": 1})
COMMANDS = [
    ["models", "ls", "fastvit_t*"],
    ["recipes", "ls"],
    ["recipes", "show", "quickstart"],
    ["train", "--help_all"],
]


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def piped_to_head(words: list[object], folder: Path) -> tuple[int, str]:
    """Exit code and standard error of `vitcli … | head -1`."""
    with subprocess.Popen(
        python_m("vitcli", *words), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
    return process.returncode, errors


def into_full_disk(words: list[object], folder: Path) -> subprocess.CompletedProcess:
    """`vitcli … > log`, where the disk has no room for the log."""
    with Path("/dev/full").open("w") as full:
        streams = {"stdout": full, "stderr": subprocess.PIPE, "text": True}
        return subprocess.run(python_m("vitcli", *words), cwd=folder, env=environment(), check=False, **streams)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_reader_leaves(tmp_path: Path, words: list[str]):
    assert piped_to_head(words, tmp_path) == (0, "")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_full_disk_is_an_error(tmp_path: Path, words: list[str]):
    done = into_full_disk(words, tmp_path)
    assert done.returncode == 74
    assert done.stderr.startswith("error: standard output cannot be written: No space left on device\n")


@pytest.mark.slow
def test_training_goes_on_without_its_reader(tmp_path: Path):
    assert piped_to_head(TRAIN, tmp_path) == (0, "")
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert [*(tmp_path / "run").glob("events.*")]


@pytest.mark.slow
def test_training_goes_on_when_the_log_is_full(tmp_path: Path):
    done = into_full_disk(TRAIN, tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("note: output cannot be written (No space left on device)")
    assert len(lines_of(tmp_path / "run")) == 10


def test_poor_terminal(tmp_path: Path):
    """40 columns, no color, ASCII, another time zone: plain lines, and nothing is lost."""
    name = "中文"
    (tmp_path / f"{name}.yaml").write_text("model: fastvit_t8\n", encoding="utf-8")
    poor = {"COLUMNS": "40", "NO_COLOR": "1", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "vitcli"]  # not forked from a process that has its encoding already
    said = finished([*command, "recipes", "show", f"{name}.yaml"], cwd=tmp_path, timeout=60, **poor, PYTHONUTF8="1")
    assert said.returncode == 0, said.stderr
    assert "\\u4e2d\\u6587.yaml" in said.stdout
    assert "\x1b" not in said.stdout
    listed = finished([*command, "recipes", "ls"], cwd=tmp_path, timeout=60, **poor)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.isascii()
    assert "fastvit_t8" in listed.stdout


@pytest.mark.slow
def test_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """The time of day goes back an hour each time that it is asked for."""
    monkeypatch.chdir(tmp_path)
    hours = iter(range(10**6))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600 * next(hours))
    assert run_here(*TRAIN) == 0
    lines = lines_of(tmp_path / "run")
    assert all(line["images_per_second"] > 0 for line in lines if line["kind"] == "train")
    assert re.search(r"time +│ 0\.\d min", capsys.readouterr().out)
