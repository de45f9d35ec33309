"""Counts are exact for any batch size, any number of crops, and few classes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.evaluators.conftest import SIDE, MakeSetting, Pixels, Unlabeled, pixels, source
from vitcli.data.batch import Batch
from vitcli.data.crops import Crops
from vitcli.errors import DataError
from vitcli.evaluators.evaluator import Stopped
from vitcli.evaluators.top1 import EvalResult, Top1, average_of_crops


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("size", [1, 4, 23])
def test_against_plain_torch(num_classes: int, size: int, setting: MakeSetting):
    torch.manual_seed(num_classes)
    images, net = source(23, num_classes), Pixels(num_classes).train()
    net.head.eval()
    numbers = Top1(setting(images, val_batch_size=size))(net)
    assert net.training
    assert not net.head.training, "the mode of each module is as it was"
    logits, labels = net.head(pixels(images)), torch.from_numpy(images.targets)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)  # how many classes are more likely
    assert numbers["num_images"] == 23
    assert numbers["correct1"] == (ranks == 0).sum()
    assert numbers["correct5"] == (ranks < 5).sum()
    assert numbers["top1"] == pytest.approx(100 * numbers["correct1"] / 23)
    assert numbers["top5"] == pytest.approx(100 * numbers["correct5"] / 23)
    assert numbers["nll"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("average", ["prob", "logit"])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_many_crops_against_plain_torch(average, size: int, setting: MakeSetting):
    """Five crops at scale 1 of square images are five times the image; at 1.5 they differ."""
    torch.manual_seed(0)
    images, net, sizes = source(23, 9), Pixels(9), []
    net.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    crops = Crops("5", (1.0, 1.5), average)
    evaluator = Top1(setting(images, crops=crops, val_batch_size=size))
    numbers = evaluator(net)
    assert max(sizes) <= size
    assert sum(sizes) == 23 * 11
    alone = Top1(setting(images))(net)
    for name, value in alone.items():
        assert numbers[f"single_crop_{name}"] == pytest.approx(value), name
    seen = torch.stack([torch.from_numpy(np.stack([np.asarray(crop, dtype=np.float32) for crop in crops_of(image)]))
                        for image in map(images.load, range(23))])  # fmt: skip
    with torch.no_grad():
        logits = net.head(((seen / 255 - 0.5) / 0.25).permute(0, 1, 4, 2, 3).flatten(2))
    mean = logits.softmax(-1).mean(1) if average == "prob" else logits.mean(1).softmax(-1)
    labels = torch.from_numpy(images.targets)
    assert numbers["correct1"] == (mean.argmax(1) == labels).sum()
    assert numbers["correct5"] == (mean.topk(5, 1).indices == labels[:, None]).sum()
    assert numbers["nll"] == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-5)
    rows = dict(evaluator.rows(numbers))
    assert rows["images"].startswith("23, each by the mean")
    assert f"{alone['top1']:.2f}" in rows["single crop"]


def crops_of(image):
    """torchvision's five crops of the image and of its enlargement, in our order."""
    from PIL import Image
    from torchvision.transforms import FiveCrop

    order = (0, 1, 2, 3, 4)
    small, large = (FiveCrop(SIDE)(image.resize((side, side), Image.Resampling.BICUBIC)) for side in (SIDE, 12))
    return [made[index] for made in (small, large) for index in order]


def test_average_of_crops_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(3), 0.0], [0.0, 0.0]]])  # probabilities 1/4, 3/4, 1/2
    assert average_of_crops(logits, "prob").exp().tolist()[0] == pytest.approx([0.5, 0.5])
    assert average_of_crops(logits, "logit").tolist()[0] == pytest.approx([math.log(3) / 3] * 2)


def test_each_answer_is_handed_out(setting: MakeSetting):
    images, net, rows = source(23, 4), Pixels(4), {}

    def keep(batch: Batch, logits: torch.Tensor) -> None:
        assert batch.targets is not None
        rows.update(zip(batch.indices.tolist(), zip(batch.targets.tolist(), logits, strict=True), strict=True))

    numbers = Top1(setting(images))(net, answers=keep)
    assert sorted(rows) == list(range(23))
    assert numbers["correct1"] == sum(logits.argmax() == target for target, logits in rows.values())
    torch.testing.assert_close(torch.stack([rows[i][1] for i in range(23)]), net.head(pixels(images)).detach())


def test_an_image_that_is_missing_is_noticed(setting: MakeSetting):
    evaluator = Top1(setting(source(15, 2)))
    evaluator.images.batches.positions = range(2)  # of 3
    with pytest.raises(AssertionError, match="14 of 15"):
        evaluator(Pixels(2))


def test_can_be_stopped(setting: MakeSetting):
    net = Pixels(2).train()
    with pytest.raises(Stopped):
        Top1(setting(source(15, 2)))(net, should_stop=lambda: True)
    assert net.training


def test_labels_are_needed(setting: MakeSetting):
    for val in (Unlabeled(15), None):
        with pytest.raises(DataError, match="top1 needs labeled validation images"):
            Top1(setting(val))


def test_interval():
    """Wilson's interval for 8 of 10, from Brown, Cai and DasGupta 2001."""
    low, high = EvalResult(num_images=10, correct1=8, correct5=10, nll=0.5).interval95()
    assert low == pytest.approx(49.02, abs=0.01)
    assert high == pytest.approx(94.33, abs=0.01)
    assert EvalResult(100, 100, 100, 0.0).interval95()[1] == pytest.approx(100)
    assert not math.isnan(EvalResult(1, 0, 0, 9.0).interval95()[0])
