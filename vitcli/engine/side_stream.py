"""Batches are copied to a GPU and prepared there while it still computes the step before; elsewhere nothing changes.

Nothing in a step waits for the device, so the host is ahead of it: when it asks the loader for the next batch, the
device is in the middle of a step. On the network's stream the copy would begin after that step. On a stream of its own
it runs beside it, so a batch is ready one step ahead, and no batch is held back for that: the order of batches, their
errors, the end of an epoch and a resume are those of the loader.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch

from vitcli.data.batch import Batch


class SideStream:
    """A second queue of work of the GPU `device`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def work(self) -> AbstractContextManager[object]:
        """In this block the device works beside the network, on tensors that nothing in a step writes."""
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def loaded(self, load: Callable[..., Iterable[Batch]], **where: int) -> Iterator[Batch]:
        """The batches of `load(**where)`, copied beside the network: to be used in `work`, or after `handed_over`."""
        batches = iter(load(**where))
        while True:
            with self.work():  # not around `yield`: whoever takes the batch works on a stream of its own
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def handed_over(self, batch: Batch) -> Batch:
        """The same batch, which the network may use: its stream waits for this one, the host does not."""
        if self.stream:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_stream(self.stream)
            for tensor in batch.tensors:
                tensor.record_stream(stream)  # else its memory could be taken for the next batch while it is in use
        return batch
