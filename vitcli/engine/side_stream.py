"""Batches are copied to a GPU and prepared there while the previous step is still running; elsewhere nothing changes.

Nothing in a step waits for the device, so the host runs ahead: when it asks the loader for the next batch, the device
is in the middle of a step. On the network's stream, the copy would start only after that step. On a stream of its own,
the two overlap. No batch is held back for this: the order of batches, errors, the end of an epoch, and a resume are
those of the loader.
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
        """Work that overlaps with the network's: it must not read or write tensors that a step writes."""
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def loaded(self, load: Callable[..., Iterable[Batch]], **where: int) -> Iterator[Batch]:
        """The batches of `load(**where)`, copied on this stream: for use in `work`, or after `handed_over`."""
        batches = iter(load(**where))
        while True:
            with self.work():  # not around `yield`: the caller has a stream of its own
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def handed_over(self, batch: Batch) -> Batch:
        """The same batch, now safe for the network: its stream waits for this one, the host does not."""
        if self.stream:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_stream(self.stream)
            for tensor in batch.tensors:
                tensor.record_stream(stream)  # otherwise its memory could be reused while the network still reads it
        return batch
