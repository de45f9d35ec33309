"""This process: its cores and memory; its end, at once when asked for, and not later than that of its torchrun."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

#: what is left to save when torchrun is gone; after that, nobody could stop this process, which holds the run's lock
SAVE_SECONDS = 4.0
_POLL_SECONDS = 0.1

_torchrun: int | None = None  #: its process id


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that processes of this machine or container can still get, swap included; None: the system does not say."""
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return None
    left = sum(int(facts[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree") if name in facts)
    with suppress(OSError, ValueError):  # there is no such file, or it says "max"
        left = min(left, int((cgroup / "memory.max").read_text()))
    return left


def end_at_once(code: int) -> NoReturn:
    """End this process and its workers without the regular exit, which waits for threads and other ranks."""
    for child in multiprocessing.active_children():
        child.kill()
    for stream in sys.stdout, sys.stderr:
        with suppress(OSError, ValueError, RuntimeError):  # it is closed, or was being written to
            stream.flush()
    os._exit(code)


def end_with_torchrun() -> None:
    """A rank that torchrun started ends within `SAVE_SECONDS` of torchrun's own end, whatever it is doing.

    torchrun takes its ranks with it unless it dies by SIGKILL or by a signal that it does not handle, such as SIGUSR1.
    The parent's process id tells, on every system. PR_SET_PDEATHSIG of Linux would end the rank before it could save.
    """
    global _torchrun
    if "TORCHELASTIC_RUN_ID" in os.environ and _torchrun is None:
        _torchrun = os.getppid()
        threading.Thread(target=_end_when_it_is_gone, daemon=True).start()


def torchrun_is_gone() -> bool:
    """Whether torchrun started this process and has ended."""
    return _torchrun is not None and os.getppid() != _torchrun


def _end_when_it_is_gone() -> None:
    while not torchrun_is_gone():
        time.sleep(_POLL_SECONDS)
    time.sleep(SAVE_SECONDS)
    end_at_once(128 + signal.SIGTERM)
