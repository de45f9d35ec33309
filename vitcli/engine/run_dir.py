"""The folder of a run: made once, never overwritten, used by one process group at a time.

runs/<recipe>-<time>-<4 hex>/
    recipe.yaml      every value, repeats the run        metrics.jsonl   one line per log interval and evaluation
    env.json         versions and machine                events.…        the same for TensorBoard
    data.json        classes, counts, fingerprint        status.json     running, done, interrupted, diverged, failed
    bad_images.jsonl images that were replaced           checkpoints/    step-00001234/ …, best -> one of them
"""

import fcntl
import json
import os
import platform
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from vitcli.errors import DiskError, UsageError, VitcliError, is_disk_full
from vitcli.weights import json_file

_HELD: list[Any] = []  #: open lock files; closed by the end of the process


def new_run_dir(recipe_name: str, wanted: Path | None) -> Path:
    """Where a fresh run will live: `wanted`, or a new name under runs/. Creates the folder.

    Raises:
        UsageError: the folder holds a run already, or cannot be written.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = wanted or Path("runs") / f"{recipe_name}-{stamp}-{secrets.token_hex(2)}"
    if (path / "recipe.yaml").exists() or (path / "checkpoints").exists():
        help = "add --resume auto to continue it, or choose another --run_dir"
        raise UsageError(f"{path} holds a run already", help=help)
    ensure_writable(path)
    return path


def ensure_writable(path: Path) -> None:
    """Create the folder and prove that a file can be written there."""
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        if is_disk_full(error):
            raise DiskError(f"the disk that holds {path} is full") from None
        reason = error.strerror or str(error)
        raise UsageError(f"cannot write to {path}: {reason}", help="choose another folder with --run_dir") from None


def lock(run_dir: Path) -> None:
    """Keep other processes out of the run until this one ends, for whatever reason.

    A POSIX lock, because loader processes do not inherit it: they may outlive a killed training process by seconds.

    Raises:
        UsageError: another process trains in this folder.
    """
    file = (run_dir / ".lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UsageError(f"{run_dir} is in use by {holder}", help="wait for it, or choose another --run_dir") from None
    except OSError:  # a file system without locks: nothing keeps others out, but nothing is wrong either
        file.close()
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    _HELD.append(file)


def leave(run_dir: Path) -> None:
    """Release the run; remove its folder if nothing was started in it."""
    while _HELD:
        _HELD.pop().close()
    if not (run_dir / "recipe.yaml").exists():
        (run_dir / ".lock").unlink(missing_ok=True)
        with suppress(OSError):  # it holds something of the user's
            run_dir.rmdir()


def write_json(path: Path, value: Any) -> None:
    """Write through a temporary file, so that the old content stays until the new one is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def write_result(path: Path, value: Any) -> None:
    """The same for a result that a command also prints; UsageError if it cannot be written."""
    try:
        write_json(path, value)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", help="the result is printed above") from None


def read_json(path: Path) -> Any:
    return json_file.read_json(path) if path.exists() else None


def write_status(run_dir: Path, status: str, **facts: Any) -> None:
    """status: running, done, interrupted, diverged, failed."""
    write_json(run_dir / "status.json", {"status": status, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), **facts})


def leave_word(run_dir: Path, rank: int, error: BaseException) -> None:
    """Tell the other ranks why this one ends; they only notice that it is gone."""
    facts: dict[str, Any] = {"rank": rank, "message": f"{type(error).__name__}: {error}", "help": None, "exit_code": 1}
    if isinstance(error, VitcliError):
        facts |= {"message": error.message, "help": error.help, "exit_code": error.exit_code}
    with suppress(OSError):
        write_json(run_dir / f".error-rank-{rank}.json", facts)


def word_of_another(run_dir: Path, own_rank: int) -> VitcliError | None:
    """The error that ended another rank, if it left word."""
    for path in sorted(run_dir.glob(".error-rank-*.json")):
        facts = read_json(path)
        if facts["rank"] != own_rank:
            error = VitcliError(f"rank {facts['rank']}: {facts['message']}", help=facts["help"])
            error.exit_code = facts["exit_code"]
            return error
    return None


def forget_words(run_dir: Path) -> None:
    """Remove what was left by ranks of an earlier attempt."""
    for path in run_dir.glob(".error-rank-*.json"):
        path.unlink(missing_ok=True)


def environment(device: torch.device, world_size: int) -> dict[str, Any]:
    """What the numbers of this run depend on besides the recipe."""
    import torchvision

    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "world_size": world_size,
    }
