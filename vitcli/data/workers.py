"""Worker processes that leave it to the training process to stop the run, and that never outlive it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

import torch

from vitcli.layers.cpu.memory import keep_freed_memory

#: sent to the whole process group when a run is stopped: by a terminal, a batch system, torchrun
_STOP_SIGNALS = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM}


@contextmanager
def starting_workers() -> Iterator[None]:
    """Processes that are started meanwhile (workers, the server of forkserver) begin with the stop signals blocked.

    Otherwise one could end a worker before it reaches `start_worker`: a new interpreter needs seconds to get there.
    """
    method = multiprocessing.get_start_method()
    if method == "forkserver":
        # so that torch is imported once, not in each worker
        multiprocessing.set_forkserver_preload(["__main__", "vitcli.data.loader"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        if method != "fork":
            resource_tracker.ensure_running()  # unblocks two of the signals when it starts that process
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(worker_id: int) -> None:
    """Use one thread, keep the memory of each image for the next, and leave it to the training process to stop the run.

    Stop signals go to the whole process group. A worker that obeyed them would take away the data that the last step
    before the checkpoint needs.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    for number in _STOP_SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS - {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()
    else:  # macOS does not say who sent a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _end_with_parent() -> None:
    """Exit on a SIGTERM that the training process itself sends, or within five seconds of its end.

    A worker of forkserver would not notice that end by its parent's number, which is that of the server.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.is_alive():
        received = signal.sigtimedwait({signal.SIGTERM}, 5)
        if received is not None and received.si_pid == parent.pid:
            break
    os._exit(0)
