"""Sums since the last log line. Tensors stay on the device; the host reads them at log lines and checkpoints only."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vitcli.distributed import all_sum, gathered

#: fp16 starts with a loss scale of 2^16, which is halved by each dropped step: a scale of 2^-14 saves nothing
MAX_DROPPED_IN_A_ROW = 30


class Meter:
    """What one rank has done since the last log line."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}  #: over steps, of this rank's share of the mean over the global batch
        self.dropped_in_a_row = torch.zeros((), device=device)  #: fp16: steps with infinite gradients, up to now
        self.reset()

    def reset(self) -> None:
        for value in self.sums.values():
            value.zero_()
        self.dropped = torch.zeros((), device=self.device)
        self.steps = self.images = 0
        self.wait_seconds = 0.0
        self.start = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for data."""
        before = time.perf_counter()
        yield
        self.wait_seconds += time.perf_counter() - before

    def add(self, shares: dict[str, Tensor], num_samples: int) -> None:
        """A step of `num_samples` over all ranks; `shares`: this rank's shares of the means, () each."""
        for name, value in shares.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros((), device=self.device)
            self.sums[name] += value
        self.steps += 1
        self.images += num_samples

    def drop(self, bad: Tensor) -> None:
        """Count a step that fp16 dropped if `bad` ()."""
        self.dropped += bad
        self.dropped_in_a_row = (self.dropped_in_a_row + 1) * bad

    @property
    def is_stuck(self) -> bool:
        """Whether fp16 has dropped so many steps in a row that no loss scale will help; asks the device."""
        return self.dropped_in_a_row.item() >= MAX_DROPPED_IN_A_ROW

    def totals(self) -> dict[str, float]:
        """`sums` over all ranks; every rank must call it."""
        if not self.sums:
            return {}
        return dict(zip(self.sums, all_sum(torch.stack(list(self.sums.values()))).tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """The means over the steps since the last log line; every rank must call it."""
        return {name: total / self.steps for name, total in self.totals().items()}

    def timings(self) -> tuple[float, float]:
        """Images per second, and the share of the time that the slowest rank waited for data; for every rank."""
        seconds = time.perf_counter() - self.start
        return self.images / seconds, max(gathered(self.wait_seconds)) / seconds

    def state(self) -> dict[str, Any]:
        """For a checkpoint, independent of the number of ranks; every rank must call it."""
        return {"sums": self.totals(), "steps": self.steps, "dropped_in_a_row": self.dropped_in_a_row.item()}

    def state_without_sums(self) -> dict[str, Any]:
        """For a checkpoint of one rank that cannot ask the others: the next log line begins after it."""
        return {"sums": {}, "steps": 0, "dropped_in_a_row": self.dropped_in_a_row.item()}

    def restore(self, state: dict[str, Any], *, is_main: bool) -> None:
        """Take back `state`; rank 0 holds the sums of all."""
        self.sums = {name: torch.tensor(total * is_main, device=self.device) for name, total in state["sums"].items()}
        self.steps = state["steps"]
        self.dropped_in_a_row.fill_(state["dropped_in_a_row"])
