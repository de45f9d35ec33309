"""The folder of a run: made once, never overwritten, used by one process group at a time.

runs/<recipe>-<time>-<4 hex>/
    recipe.yaml      every value, repeats the run        metrics.jsonl   one line per log interval and evaluation
    env.json         versions and machine                events.…        the same for TensorBoard
    data.json        classes, counts, fingerprint        status.json     running, done, interrupted, diverged, failed
    bad_images.jsonl images that were replaced           checkpoints/    step-00001234/ …, best -> one of them
    split.csv        the images of val_ratio or val_fold nonfinite.jsonl steps whose loss or gradients were not finite
    calibration.json the temperature of a checkpoint     listing.safetensors  the names in folders of very many images
    sinks.json       what W&B, MLflow and Trackio call the run
"""

import json
import os
import platform
import re
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitcli.disk import disk_errors, tried_again, write_whole
from vitcli.engine import run_lock
from vitcli.errors import DiskError, UsageError, VitcliError, is_disk_full
from vitcli.weights import json_file
from vitcli.weights.checkpoint_folders import checkpoints, step_of

if TYPE_CHECKING:  # the folder of a run is read without torch
    import torch

#: what `ensure_writable` and `write_whole` make, with the process that makes it
_TEMPORARY = re.compile(
    r"\.(?:probe-|(?:recipe\.yaml|split\.csv|listing\.safetensors|(?:metrics|bad_images|nonfinite)\.jsonl"
    r"|(?:env|data|status|sinks|calibration)\.json|\.error-rank-[0-9]+\.json)\.)(?P<pid>[0-9]+)"
)
_ERROR_OF_RANK = re.compile(r"\.error-rank-(\d+)\.json")


def new_run_dir(recipe_name: str, wanted: Path | None) -> Path:
    """Where a fresh run will live: `wanted`, or a new name under runs/. Creates the folder.

    Raises:
        UsageError: the folder holds a run already, or cannot be written.
    """
    path = wanted or unused_path(recipe_name)
    check_free(path)
    ensure_writable(path)
    return path


def unused_path(recipe_name: str) -> Path:
    """runs/<recipe>-<time>-<4 hex>; nothing is created."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{recipe_name}-{stamp}-{secrets.token_hex(2)}"


def check_free(path: Path | None) -> None:
    """UsageError if the folder holds a run already, or if there can be no such folder."""
    try:
        taken = path and ((path / "recipe.yaml").exists() or (path / "checkpoints").exists())
    except OSError as error:  # the name is too long, for example
        raise _cannot_write(path, error) from None
    if taken:
        help = "add --resume auto to continue it, or choose another --run_dir"
        raise UsageError(f"{path} holds a run already", help=help)


def _cannot_write(path: Path | None, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {path}: {error.strerror or error}", help="choose another folder with --run_dir")


def ensure_writable(path: Path) -> None:
    """Create the folder and prove that a file can be written there.

    Raises:
        DiskError: there is no room. UsageError: nothing can be written there.
    """
    probe = path / f".probe-{os.getpid()}"

    def attempt() -> None:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()

    try:
        tried_again(attempt)
    except OSError as error:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        if is_disk_full(error):
            with disk_errors("a run", path, then="or choose another folder with --run_dir"):
                raise
        raise _cannot_write(path, error) from None


def begin(run_dir: Path, texts: dict[str, str]) -> None:
    """Make the folder a run: write its files, name -> text, the last of which is recipe.yaml, and make checkpoints/.

    Raises:
        DiskError: the disk refuses; nothing stays that would look like a run.
    """
    assert list(texts)[-1] == "recipe.yaml", "a folder with this file is a run"
    try:
        with disk_errors("the run", run_dir):
            (run_dir / "checkpoints").mkdir(exist_ok=True)
        for name, text in texts.items():
            write_whole(run_dir / name, text)
    except DiskError:
        with suppress(OSError):
            (run_dir / "checkpoints").rmdir()
            for name in texts:
                (run_dir / name).unlink(missing_ok=True)
        raise


def check_there(run_dir: Path) -> None:
    """Raises DiskError if the folder, once locked, is no longer that of the run: deleted, moved, or another run's."""
    if not run_lock.is_locking():
        return
    if not is_there(run_dir):
        message = f"{run_dir} is gone: it was deleted or moved while the run was using it"
        raise DiskError(message, help="start a new run; nothing was written to the folder after that")
    if holder := run_lock.replaced_by(run_dir):
        raise DiskError(f"{run_dir} was replaced: it is used by {holder} now")


def is_there(run_dir: Path) -> bool:
    """Whether the folder holds a run."""
    return (run_dir / "recipe.yaml").exists()


def how_to_continue(run_dir: Path) -> str:
    """What to do after an error that is not the run's own."""
    saved = checkpoints(run_dir)
    if not saved:
        return "no step is saved yet: start it again"
    return f"step {step_of(saved[0])} is saved; continue with: vitcli train --resume {run_dir}"


def leave(run_dir: Path) -> None:
    """Release the run; remove its folder if nothing was started in it."""
    run_lock.unlock()
    if not is_there(run_dir):
        with suppress(OSError):  # it holds something of the user's
            (run_dir / ".lock").unlink(missing_ok=True)
            run_dir.rmdir()


def write_json(path: Path, value: Any) -> None:
    """Write through a temporary file. Raises DiskError as `write_whole` does."""
    write_whole(path, json_text(value))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


def write_result(path: Path, value: Any) -> None:
    """The same for a result that a command also prints; UsageError if it cannot be written."""
    try:
        write_json(path, value)
    except DiskError as error:
        raise UsageError(error.message, help="the result is printed above") from None


def read_json(path: Path) -> Any:
    return json_file.read_json(path) if path.exists() else None


def write_status(run_dir: Path, status: str, **facts: Any) -> None:
    """status: running, done, interrupted, diverged, failed."""
    write_json(run_dir / "status.json", {"status": status, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), **facts})


def leave_word(run_dir: Path, rank: int, error: BaseException) -> None:
    """Tell the other ranks why this one ends; they only notice that it is gone."""
    told = told_to_others(rank, error)
    facts = {"rank": rank, "message": told.message, "help": told.help, "exit_code": told.exit_code}
    with suppress(DiskError):
        write_json(run_dir / f".error-rank-{rank}.json", facts)


def told_to_others(rank: int, error: BaseException) -> VitcliError:
    """The error that ends `rank`, as the other ranks end with it."""
    if not isinstance(error, VitcliError):
        return VitcliError(f"rank {rank}: {type(error).__name__}: {error}")
    told = VitcliError(f"rank {rank}: {error.message}", help=error.help)
    told.exit_code = error.exit_code
    return told


def word_of_another(run_dir: Path, own_rank: int) -> VitcliError | None:
    """The error that ended another rank, if it left word."""
    for path in _words(run_dir):
        facts = read_json(path)
        if facts["rank"] != own_rank:
            error = VitcliError(facts["message"], help=facts["help"])
            error.exit_code = facts["exit_code"]
            return error
    return None


def clean_up(run_dir: Path) -> None:
    """Remove what an earlier attempt left: the words of its ranks, and files that a killed process was writing."""
    for path in _words(run_dir):
        path.unlink(missing_ok=True)
    for path in run_dir.iterdir():
        if (found := _TEMPORARY.fullmatch(path.name)) and not is_at_work(int(found["pid"])):
            path.unlink(missing_ok=True)


def _words(run_dir: Path) -> list[Path]:
    return sorted(path for path in run_dir.iterdir() if _ERROR_OF_RANK.fullmatch(path.name))


def is_at_work(pid: int) -> bool:
    """Whether another process with this number exists on this machine; what it writes is not ours to remove."""
    return pid != os.getpid() and is_running(pid)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def environment(device: "torch.device", world_size: int) -> dict[str, Any]:
    """What the numbers of this run depend on besides the recipe."""
    import torch
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
