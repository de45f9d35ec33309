"""Runs beside each other: the same folder, the same port, a machine that does not know its own name."""

import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.test_signals import PAUSES
from tests.support.commands import environment, options, torchrun

SHORT = {"model": "pausing", "epoch_size": 1, "num_samples": 64, "batch_size": 16}
WORDS = ["train", "-c", "quickstart", "--plugin", PAUSES, *options(SHORT)]


@pytest.mark.slow
def test_two_runs_at_once_with_a_port_taken(tmp_path: Path):
    """29500 is the port that torchrun was known for; both runs find free ones."""
    with socket.socket() as taken, suppress(OSError):
        taken.bind(("", 29500))  # or somebody else has it, which is as good
        taken.listen()
        command = [word for word in torchrun(2, "vitcli", *WORDS) if word != "--standalone"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        runs = [subprocess.Popen(command, cwd=tmp_path, env=environment(), **streams) for _ in range(2)]
        for run in runs:
            _, errors = run.communicate(timeout=200)
            assert run.returncode == 0, errors
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.slow
def test_a_machine_that_does_not_find_itself(tmp_path: Path):
    """Its name has no address; the store of the run is that of rank 0, which torchrun announces by the name."""
    try_it = ["unshare", "-ru", "hostname", "no-such-host"]
    if not shutil.which("unshare") or subprocess.run(try_it, check=False, capture_output=True).returncode:
        pytest.skip("this system gives out no namespace with a name of its own")
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 2 -m vitcli"
    script = f'hostname no-such-host && exec {sys.executable} {launcher} "$@"'
    done = subprocess.run(
        ["unshare", "-ru", "sh", "-c", script, "sh", *map(str, WORDS)], cwd=tmp_path, timeout=200, check=False,
        env=environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
