"""What all tests share: commands run as a user runs them, small recipes, small folders of images."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.images import image_folder, make_image_folder

__all__ = ["image_folder", "make_image_folder"]

ROOT = Path(__file__).parent.parent

#: the digits at 32 px with everything random switched on; a run of 16 steps
SMALL = {
    "epoch_size": 2, "num_samples": 256, "batch_size": 32, "log_interval": 3, "ema": True, "ema_ramp_steps": 10,
    "mixup": 0.8, "cutmix": 1.0, "re_prob": 0.25, "re_mode": "pixel", "drop_path_rate": 0.1,
    "auto_augment": "rand-m9-mstd0.5-inc1", "keep_checkpoint_max": 3,
}  # fmt: skip


def options(values: dict[str, object]) -> list[str]:
    """{"lr": 1} -> ["--lr", "1"]"""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without torchrun's variables, one thread per process."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | changes


@pytest.fixture
def vitcli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `vitcli …` in an empty directory."""

    def run(*words: object, timeout: float = 120, **env: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "vitcli", *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(**env), capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture
def torchrun(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `torchrun --nproc_per_node N -m vitcli …` (or a script) in an empty directory."""

    def run(num_processes: int, *words: object, timeout: float = 180) -> subprocess.CompletedProcess:
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(num_processes),
        ]
        return subprocess.run(
            [*launcher, *map(str, words)],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run
