"""How a batch travels from a worker to the training process."""

import io
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from vitcli.data.batch import BadSample, Batch

LABELS = {
    "classes": torch.tensor([3, 1]),
    "multi-label": torch.tensor([[True, False, True], [False, False, True]]),
    "none": None,
}


@pytest.mark.parametrize("targets", LABELS.values(), ids=LABELS)
def test_only_images_are_sent_as_tensors(targets: torch.Tensor | None):
    """Each tensor would cost a connection between the processes."""
    bad = (BadSample(7, "a.jpg", "truncated", 8),)
    batch = Batch((torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)), targets, torch.tensor([5, 8]), bad, 1, 2, 3, 4)
    sent = []
    pickler = ForkingPickler(buffer := io.BytesIO())
    pickler.dispatch_table[torch.Tensor] = lambda tensor: (sent.append(tensor), tensor.__reduce_ex__(2))[1]
    pickler.dump(batch)
    assert [id(tensor) for tensor in sent] == [id(view) for view in batch.views]
    received = pickle.loads(buffer.getvalue())
    torch.testing.assert_close(received.__dict__, batch.__dict__, atol=0, rtol=0)
    received.indices[0] = 6  # its memory is its own, and may be written
