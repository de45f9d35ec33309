"""Turns SIGTERM, SIGINT, SIGHUP and SIGUSR1, and the end of torchrun, into a flag that the loop reads between steps."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vitcli.process import end_at_once, torchrun_is_gone

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
#: a terminal, a batch system and torchrun send copies of one signal; a person presses Ctrl-C again later than that
COPY_SECONDS = 1.0
#: torchrun and SLURM wait 30 s after SIGTERM, then they send SIGKILL; until then, there is time to save
GRACE_SECONDS = 30.0


class StopFlag:
    """Set by the first signal. A second one ends the process at once, with the last checkpoint intact.

    It does so only if it is no copy of the first: a Ctrl-C (SIGINT) after `COPY_SECONDS`, any other signal after
    `GRACE_SECONDS`. If the first was a Ctrl-C, a later one reaches the ranks of torchrun as another signal.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.received_at = 0.0

    def __bool__(self) -> bool:
        return self.signal is not None or torchrun_is_gone()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.received_at = number, time.monotonic()
        elif time.monotonic() - self.received_at > self._patience(number):
            end_at_once(128 + number)

    def _patience(self, number: int) -> float:
        return COPY_SECONDS if signal.SIGINT in (self.signal, number) else GRACE_SECONDS


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Watch the signals for the duration of the block (in the main thread; Python lets no other do it).

    One that is ignored already stays ignored: SIGHUP under `nohup`, SIGINT in the background of a script.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in WATCHED}
    watched = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in watched:
        signal.signal(number, flag)
    try:
        yield flag
    finally:
        for number in watched:
            signal.signal(number, before[number])
