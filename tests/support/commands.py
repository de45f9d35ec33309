"""Commands as a user runs them, each in a process of its own, and a small recipe for them."""

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

#: the digits at 32 px with everything random switched on; a run of 16 steps
SMALL = {
    "epoch_size": 2, "num_samples": 128, "batch_size": 16, "log_interval": 3, "ema": True, "ema_ramp_steps": 10,
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


def python_m(module: str, *words: object) -> list[str]:
    """`python -m MODULE …`, started by the fork server where there is one: it saves seconds of imports."""
    if not hasattr(os, "pidfd_open"):
        return [sys.executable, "-m", module, *map(str, words)]
    return [sys.executable, "-S", str(ROOT / "tests/support/fork_client.py"), fork_server(), module, *map(str, words)]


def torchrun(num_processes: int, module: str, *words: object) -> list[str]:
    """`torchrun --nproc_per_node N -m MODULE …`"""
    launcher = python_m("torch.distributed.run", "--standalone", "--nproc_per_node", num_processes)
    return [*launcher, "--no_python", *python_m(module, *words)]


def run_here(*words: object) -> int:
    """The exit code of `vitcli …`, in this process."""
    from vitcli.cli import main

    try:
        main([*map(str, words)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def finished(command: list[str], *, cwd: Path, timeout: float, **env: str) -> subprocess.CompletedProcess:
    """What `command` returned and wrote."""
    return subprocess.run(
        command, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=timeout, check=False
    )


@functools.cache
def fork_server() -> str:
    """The socket of this process's fork server."""
    folder = tempfile.TemporaryDirectory(prefix="vitcli-")
    path = f"{folder.name}/socket"
    command = [sys.executable, "-m", "tests.support.fork_server", path]
    server = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server.stdout as line:
        line.readline()  # it listens
    atexit.register(folder.cleanup)
    atexit.register(server.communicate)  # it ends with its standard input
    return path
