"""Counts are exact, whatever the batches; few classes and interruptions are part of it."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitcli.evaluators.top1 import EvalResult, Stopped, evaluate, evaluate_crops

CPU = torch.device("cpu")
AUTOCAST = partial(torch.autocast, "cpu", enabled=False)


def batches(images: torch.Tensor, labels: torch.Tensor, size: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(images=i, targets=k) for i, k in zip(images.split(size), labels.split(size), strict=True)]


class Net(nn.Module):
    """Different in training mode, so that a forgotten eval() shows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(12, num_classes)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(x.flatten(1)))


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("size", [1, 4, 23])
def test_against_plain_torch(num_classes: int, size: int):
    torch.manual_seed(num_classes)
    images = torch.randint(0, 256, (23, 3, 2, 2), dtype=torch.uint8)
    labels = torch.randint(num_classes, (23,))
    net = Net(num_classes).train()
    result = evaluate(
        net, batches(images, labels, size), lambda x: x.float() / 255, num_images=23, device=CPU, autocast=AUTOCAST
    )
    logits = net.fc((images.float() / 255).flatten(1))
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)  # how many classes are more likely
    assert result.num_images == 23
    assert result.correct1 == (ranks == 0).sum()
    assert result.correct5 == (ranks < 5).sum()
    assert result.nll == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert net.training, "the mode is as it was"


@pytest.mark.parametrize("average", ["prob", "logit"])
@pytest.mark.parametrize("chunk_size", [1, 5, 100])
def test_many_crops_against_plain_torch(average: str, chunk_size: int):
    """Seven crops of 23 images: the first alone, and the average of the other six, in chunks of any size."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (23, 7, 3, 2, 2), dtype=torch.uint8)
    labels = torch.randint(9, (23,))
    net, sizes = Net(9).eval(), []

    def prepare(crops: torch.Tensor) -> torch.Tensor:
        sizes.append(len(crops))
        return crops.float() / 255

    single, many = evaluate_crops(
        net, batches(images, labels, 4), prepare, average=average, chunk_size=chunk_size, num_images=23, device=CPU,
        autocast=AUTOCAST,
    )  # fmt: skip
    assert max(sizes) <= chunk_size
    assert sum(sizes) == 23 * 7
    logits = net((images.float() / 255).flatten(0, 1)).unflatten(0, (23, 7))
    alone = evaluate(net, batches(images[:, 0], labels, 23), prepare, num_images=23, device=CPU, autocast=AUTOCAST)
    assert (single.correct1, single.correct5) == (alone.correct1, alone.correct5)
    assert single.nll == pytest.approx(alone.nll)
    mean = logits[:, 1:].softmax(-1).mean(1) if average == "prob" else logits[:, 1:].mean(1).softmax(-1)
    assert many.correct1 == (mean.argmax(1) == labels).sum()
    assert many.correct5 == (mean.topk(5, 1).indices == labels[:, None]).sum()
    assert many.nll == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-5)


def test_an_image_that_is_missing_is_noticed():
    images, labels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(AssertionError, match="4 of 5"):
        evaluate(Net(2), batches(images, labels, 2), torch.Tensor.float, num_images=5, device=CPU, autocast=AUTOCAST)


def test_can_be_stopped():
    images, labels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(Stopped):
        evaluate(
            Net(2), batches(images, labels, 2), torch.Tensor.float,
            num_images=4, device=CPU, autocast=AUTOCAST, should_stop=lambda: True,
        )  # fmt: skip


def test_interval():
    """Wilson's interval for 8 of 10, from Brown, Cai and DasGupta 2001."""
    low, high = EvalResult(num_images=10, correct1=8, correct5=10, nll=0.5).interval95()
    assert low == pytest.approx(49.02, abs=0.01)
    assert high == pytest.approx(94.33, abs=0.01)
    assert EvalResult(100, 100, 100, 0.0).interval95()[1] == pytest.approx(100)
    assert not math.isnan(EvalResult(1, 0, 0, 9.0).interval95()[0])
