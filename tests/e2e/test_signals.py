"""Whoever sends which signal to whom, and whenever: the run is saved, or was, and every process is gone in time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.commands import environment, options, python_m
from vitcli.weights.checkpoint_folders import checkpoints, newest_valid

PAUSES = Path(__file__).with_name("pauses.py")
TINY = {"model": "pausing", "epoch_size": 60, "num_samples": 64, "batch_size": 16, "log_interval": 1}
TRAIN = ["train", "-c", "quickstart", "--plugin", PAUSES, "--run_dir", "run", *options(TINY)]
EVERY_EPOCH, NEVER = ["--ckpt_save_interval", 1], ["--ckpt_save_interval", 60, "--val_while_train", False]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def start(command: list[object], folder: Path, **env: str) -> subprocess.Popen:
    words = [*map(str, command)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=folder, env=environment(**env), **streams)


def wait_for(process: subprocess.Popen, beginning: str) -> None:
    assert process.stdout
    assert process.stderr
    for line in process.stdout:
        if line.startswith(beginning):
            return
    pytest.fail(f"{beginning!r} was never printed; {process.stderr.read()}")


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def seconds_until_gone(pids: list[int]) -> float:
    before = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids):
        assert time.monotonic() - before < 60
        time.sleep(0.02)
    return time.monotonic() - before


def check_saved(run: Path, errors: str) -> None:
    """One checkpoint, of the step that the run says it stopped at, and no traceback of a rank."""
    (saved,) = checkpoints(run)
    assert newest_valid(run) == (saved, [])
    status = json.loads((run / "status.json").read_text())
    assert (status["status"], status["exit_code"]) == ("interrupted", 75)
    assert f"stopped at step {int(saved.name[5:])} of " in status["message"]
    assert "vitcli/" not in errors, "a traceback through our files"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
def test_signal_to_the_launcher(tmp_path: Path, number: int):
    """Twice within 50 ms, as batch systems do; the second is a copy."""
    with start([*LAUNCHER, "--no_python", *python_m("vitcli", *TRAIN, *NEVER)], tmp_path) as launcher:
        wait_for(launcher, "step 3 ")
        ranks = children(launcher.pid)
        launcher.send_signal(number)
        time.sleep(0.05)
        launcher.send_signal(number)
        assert seconds_until_gone(ranks) < 30
        _, errors = launcher.communicate(timeout=60)
    check_saved(tmp_path / "run", errors)


@pytest.mark.slow
def test_ctrl_c_reaches_launcher_and_ranks(tmp_path: Path):
    """The launcher passes on the SIGINT that the ranks have got already."""
    with start([*LAUNCHER, "-m", "vitcli", *TRAIN, *NEVER], tmp_path) as launcher:
        wait_for(launcher, "step 3 ")
        ranks = children(launcher.pid)
        for pid in (launcher.pid, *ranks):
            os.kill(pid, signal.SIGINT)
        assert seconds_until_gone(ranks) < 30
        _, errors = launcher.communicate(timeout=60)
    check_saved(tmp_path / "run", errors)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
@pytest.mark.slow
def test_ranks_end_with_their_launcher(tmp_path: Path, number: int):
    """torchrun dies of both at once; its ranks save the same step and are gone within 5 s, and with them the lock."""
    with start([*LAUNCHER, "-m", "vitcli", *TRAIN, *NEVER], tmp_path) as launcher:
        wait_for(launcher, "step 3 ")
        ranks = children(launcher.pid)
        assert len(ranks) == 2
        launcher.send_signal(number)
        assert seconds_until_gone(ranks) < 5
        _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == -number
    check_saved(tmp_path / "run", errors)


@pytest.mark.slow
def test_a_rank_that_cannot_stop_in_time_ends_with_its_launcher(tmp_path: Path):
    """In a step of 30 s nothing is saved; the processes are gone all the same."""
    with start([*LAUNCHER, "-m", "vitcli", *TRAIN, *NEVER], tmp_path, PAUSE="step", PAUSE_SECONDS="30") as launcher:
        wait_for(launcher, "paused")
        ranks = children(launcher.pid)
        launcher.kill()
        assert seconds_until_gone(ranks) < 5
        launcher.communicate(timeout=60)
    assert checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("place", "number"),
    [("step", signal.SIGTERM), ("evaluation", signal.SIGTERM), ("save", signal.SIGTERM), ("save", signal.SIGUSR1)],
)
@pytest.mark.slow
def test_signal_at_a_moment(tmp_path: Path, place: str, number: int):
    """In the first step, where torch.compile compiles; in an evaluation; while a checkpoint is written."""
    command = python_m("vitcli", *TRAIN, *EVERY_EPOCH)
    with start(command, tmp_path, PAUSE=place, PAUSE_STEP="1", PAUSE_SECONDS="1") as process:
        wait_for(process, "paused")
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    check_saved(tmp_path / "run", errors)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_signal_before_the_training(tmp_path: Path, vitcli, number: int):
    """A run that is continued is told to stop while its data is looked for: there is nothing to save."""
    assert vitcli(*TRAIN, "--epoch_size", 1).returncode == 0
    before = [path.name for path in checkpoints(tmp_path / "run")]
    with start(
        python_m("vitcli", "train", "--plugin", PAUSES, "--resume", "run"), tmp_path, PAUSE="import", PAUSE_SECONDS="9"
    ) as process:
        wait_for(process, "paused")
        process.send_signal(number)
        assert seconds_until_gone([process.pid]) < 5
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (-number, 128 + number)
    assert "Traceback" not in errors
    assert [path.name for path in checkpoints(tmp_path / "run")] == before


@pytest.mark.slow
def test_second_ctrl_c_ends_at_once(tmp_path: Path):
    """A person does not want to wait for the end of a long step."""
    command = python_m("vitcli", *TRAIN, "--ckpt_save_steps", 2)
    with start(command, tmp_path, PAUSE="step", PAUSE_SECONDS="60") as process:
        wait_for(process, "paused")
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)  # a copy
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert seconds_until_gone([process.pid]) < 2
        process.communicate(timeout=60)
    assert process.returncode == 130
    newest, damaged = newest_valid(tmp_path / "run")
    assert newest is not None
    assert (newest.name, damaged) == ("step-00000004", [])


@pytest.mark.slow
def test_nohup(tmp_path: Path):
    """A SIGHUP that was ignored at the start stays ignored; another signal stops the run."""
    command = ["nohup", sys.executable, "-m", "vitcli", *TRAIN, *NEVER]
    with start(command, tmp_path) as process:
        wait_for(process, "step 3 ")
        process.send_signal(signal.SIGHUP)
        wait_for(process, "step 8 ")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    check_saved(tmp_path / "run", errors)
