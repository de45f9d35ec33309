"""Batches are copied and prepared on a stream of their own: without a race, and without another order."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import pytest
import torch

from tests.support.streams import FakeStream, FakeStreams, Race, storage
from vitcli.data.batch import Batch
from vitcli.engine.side_stream import SideStream
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.errors import DataError

ALL = {"where": "meta", "mixup": 0.8, "cutmix": 1.0, "re_prob": 0.5, "global_batch_size": 32, "norm": True, "ema": True}
BYOL = {"where": "meta", "task": "byol", "evaluate": ["collapse"], "projector_dim": 8}


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStreams]:
    with FakeStreams(monkeypatch) as found:
        yield found


def beside(training: Training) -> Training:
    """The training as it is on a GPU."""
    training.autocast = nullcontext  # there is none for meta tensors  # type: ignore[assignment]
    training.side = SideStream(torch.device("cuda"))
    training.batches = partial(training.side.loaded, training.batches)
    return training


def three_steps(training: Training) -> None:
    batches = iter(training.batches(start_step=0))
    for _ in range(3):
        train_step(training, batches)


@pytest.mark.parametrize("keys", [ALL, BYOL], ids=["classification", "byol"])
def test_no_step_has_a_race(make, streams: FakeStreams, keys: dict[str, object]):
    training, seen = beside(make(**keys)), []
    training.channels_last = True
    handed_over = training.side.handed_over
    training.side.handed_over = lambda batch: seen.append(batch) or handed_over(batch)
    three_steps(training)
    assert len(seen) == 3 * training.plan.accumulation
    writers = {streams.writer[storage(tensor)][0] for batch in seen for tensor in batch.tensors}
    assert writers == {training.side.stream}, "prepared beside the network"


def test_what_would_be_a_race(make, streams: FakeStreams, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeStream, "wait_stream", lambda self, other: None)
    with pytest.raises(Race, match="still be writing"):
        three_steps(beside(make(**ALL)))
    monkeypatch.undo()
    with FakeStreams(monkeypatch):
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
        with pytest.raises(Race, match="allocator"):
            three_steps(beside(make(**ALL)))


def test_batches_come_as_the_loader_makes_them(make, streams: FakeStreams):
    """In its order, to its end; whoever takes them is on the network's stream, and an error comes in its place."""
    places = [(batch.step, batch.micro) for batch in make().batches(start_step=3)]
    training = beside(make())
    batches = training.batches(start_step=3)
    found = [(batch.step, batch.micro, streams.current is streams.network) for batch in batches]
    assert found == [(*place, True) for place in places]

    def broken(start_step: int) -> Iterator[Batch]:
        yield from [*make().batches(start_step=start_step)][:2]
        raise DataError("unreadable")

    batches = training.side.loaded(broken, start_step=0)
    assert [next(batches).step, next(batches).step] == [0, 1]
    with pytest.raises(DataError, match="unreadable"):
        next(batches)
    assert streams.current is streams.network


@pytest.mark.gpu
def test_the_weights_are_the_same_without_it(make):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    found = []
    for has_side in (True, False):
        training = make(where="cuda", epoch_size=4, mixup=0.8, re_prob=0.5, norm=True)
        if not has_side:
            training.side.stream = None
        batches = iter(training.batches(start_step=0))
        for _ in range(training.total_steps):
            train_step(training, batches)
        found.append([p.detach().clone() for p in training.task.parameters()])
    assert all(map(torch.equal, *found))
