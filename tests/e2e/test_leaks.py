"""A long run needs no more memory, files, threads or processes at its end than at its beginning."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.test_signals import children, start, wait_for
from tests.support.commands import options

#: an epoch takes a second: many evaluations, checkpoints and log lines
OPTIONS = {
    "model": "vit_ti_patch16", "depth": 1, "patch_size": 8, "num_samples": 128, "batch_size": 16, "log_interval": 2,
    "epoch_size": 1_000_000, "ema": True, "mixup": 0.8, "auto_augment": "rand-m9-mstd0.5-inc1", "device": "cpu",
    "num_parallel_workers": 2, "keep_checkpoint_max": 2, "run_dir": "run",
}  # fmt: skip
EVERY_SECONDS = 2


def used(pid: int) -> dict[str, int]:
    """What the process `pid` and its children hold; of memory (KiB) each page is counted once.

    Batches on their way from a worker are files in shared memory: their number varies, and is not counted.
    """
    found = {"memory": 0, "files": 0, "threads": 0, "processes": 0}
    for one in (pid, *children(pid)):
        process = Path(f"/proc/{one}")
        with suppress(ProcessLookupError, FileNotFoundError):  # a child may end meanwhile
            memory = (process / "smaps_rollup").read_text().split("\nPss:")[1].split()[0]
            files = [file for file in (process / "fd").iterdir() if not os.readlink(file).startswith("/dev/shm/torch_")]
            threads = [*(process / "task").iterdir()]
            for name, value in zip(found, (int(memory), len(files), len(threads), 1), strict=True):
                found[name] += value
    return found


@pytest.mark.soak
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("seconds", [300, 3600])
def test_nothing_grows(tmp_path: Path, seconds: int):
    """The last quarter of a run needs what the second one did: at most 1 % and 4 MiB more memory."""
    # not by the fork server, with which it would share pages
    command = [sys.executable, "-m", "vitcli", "train", "-c", "quickstart", *options(OPTIONS)]
    with start(command, tmp_path) as process:
        wait_for(process, "epoch 3/")
        samples: list[dict[str, int]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            next_sample = time.monotonic() + EVERY_SECONDS
            samples.append(used(process.pid))
            while time.monotonic() < next_sample:
                assert process.stdout
                process.stdout.readline()  # a full pipe would stop the run
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    quarter = len(samples) // 4
    for name in samples[0]:
        before, after = (
            min(sample[name] for sample in part)  # of moments without a save or the workers of an evaluation
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        print(f"{name}: {before:,.0f}, then {after:,.0f}")
        limit = 1.01 * before + 4096 if name == "memory" else before
        assert after <= limit, f"{name}: {before:,} in the second quarter, {after:,} in the last"
    assert len([*(tmp_path / "run" / "checkpoints").glob("step-*")]) <= OPTIONS["keep_checkpoint_max"] + 1
