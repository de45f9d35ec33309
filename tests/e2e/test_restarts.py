"""torchrun starts a run again in which a rank was killed: within seconds, from where it was, to the same result."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.test_distributed import NORM_FREE
from tests.support.commands import environment, options, python_m

RUN = {
    "model": "norm_free", "epoch_size": 20, "num_samples": 192, "batch_size": 16, "log_interval": 1, "mixup": 0.8,
    "re_prob": 0.25, "ema": True, "val_while_train": False, "ckpt_save_interval": 2,
}  # fmt: skip
STEPS = 20 * 6


@pytest.mark.parametrize("restarts", [2, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
@pytest.mark.slow
def test_rank_killed_and_restarted(tmp_path: Path, torchrun, restarts: int):
    words = ["train", "-c", "quickstart", "--plugin", NORM_FREE, *options(RUN), "--run_dir"]
    whole = torchrun(2, "vitcli", *words, "whole")
    assert whole.returncode == 0, whole.stderr
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--max-restarts", str(restarts)]
    ranks = python_m("vitcli", *words, "killed", "--resume", "auto")
    env = environment()
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" not in env
    with subprocess.Popen(
        [sys.executable, "-m", *launcher, "--no_python", *ranks],
        cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        seconds = [*_kill_rank_1(process, restarts)]
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(seconds) == restarts
    print(f"seconds from a kill to the next step: {', '.join(f'{value:.1f}' for value in seconds)}")
    assert max(seconds) <= 10, seconds
    for name in ("model", "ema", "optimizer"):
        folders = [tmp_path / run / f"checkpoints/step-{STEPS:08d}" for run in ("whole", "killed")]
        expected, found = (load_file(folder / f"{name}.safetensors") for folder in folders)
        assert expected.keys() == found.keys()
        assert all(value.equal(found[key]) for key, value in expected.items()), name


def _kill_rank_1(process: subprocess.Popen, times: int) -> Iterator[float]:
    """Kill -9 as often, each time in a later step; the seconds from each kill to the first step of the next attempt."""
    killed_at, attempt, done = 0.0, 0, 0
    assert process.stdout is not None
    for line in process.stdout:
        attempt += line.startswith("run ")
        if not line.startswith("step ") or attempt == done:  # a line from before the kill
            continue
        if killed_at:
            yield time.monotonic() - killed_at
            killed_at = 0.0
        if done < times and int(line.split()[1]) >= (done + 1) * STEPS // (times + 2):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            killed_at, done = time.monotonic(), done + 1
