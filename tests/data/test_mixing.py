"""Batches: the formulas are timm's when driven by the same lam and box; the draws have the right statistics."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.data import mixup as timms
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import functional as tvf

from vitcli.data.batch import Batch
from vitcli.data.mixing import (
    BatchPreparer,
    Mix,
    Normalizer,
    cut_box,
    draw_erasing,
    draw_mix,
    erase,
    mix_images,
    mix_targets,
)
from vitcli.data.streams import stream
from vitcli.errors import UsageError
from vitcli.recipe.schema import Augmentation

SHAPE = torch.Size([6, 3, 40, 32])


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, shape or tuple(SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def batch(*views: torch.Tensor, targets: torch.Tensor | None = None, **place: int) -> Batch:
    """A batch at step 2 of the run, of one view unless others are given."""
    targets = torch.arange(6) if targets is None else targets
    return Batch(views or (pixels(),), targets, torch.arange(6), **{"step": 2, **place})


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalization_is_torchvisions(memory_format):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = pixels().contiguous(memory_format=memory_format)
    ours = Normalizer(mean, std)(images)
    assert torch.allclose(ours, tvf.normalize(images / 255, list(mean), list(std)), atol=1e-5)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous(memory_format=memory_format)
    assert images.dtype == torch.uint8
    assert torch.equal(images, pixels())


def test_normalization_of_gray_images_and_wrong_counts():
    assert Normalizer((0.5,), (0.25,), in_channels=1)(pixels(2, 1, 4, 4)).abs().max() <= 2
    assert Normalizer((0.5,), (0.25,), in_channels=3)(pixels(2, 3, 4, 4)).shape == (2, 3, 4, 4)
    with pytest.raises(UsageError, match="mean has 3"):
        Normalizer((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), in_channels=1)


@pytest.mark.parametrize("batch_size", [4, 5, 1])
@pytest.mark.parametrize("lam", [0.0, 0.25, 0.7, 1.0])
def test_mixup_is_timms(batch_size, lam, monkeypatch):
    images, labels = torch.randn(batch_size, 3, 8, 8), torch.arange(batch_size) % 3
    mixer = timms.Mixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=3)
    monkeypatch.setattr(mixer, "_params_per_batch", lambda: (lam, False))
    expected = images.clone()
    mixer._mix_batch(expected)
    assert torch.equal(mix_images(images, Mix(lam)), expected)
    assert torch.allclose(mix_targets(labels, 3, lam), timms.mixup_target(labels, 3, lam), atol=1e-7)


@pytest.mark.parametrize("batch_size", [4, 5])
@pytest.mark.parametrize("lam", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_cutmix_is_timms(batch_size, lam, monkeypatch):
    images, mixer = torch.randn(batch_size, 3, 17, 24), timms.Mixup(cutmix_alpha=1.0)
    monkeypatch.setattr(mixer, "_params_per_batch", lambda: (min(lam, 0.999999), True))
    for y, x in [(0, 0), (8, 12), (16, 23), (3, 20)]:
        centers = iter([y, x])
        monkeypatch.setattr(timms.np.random, "randint", lambda *_, centers=centers, **__: next(centers))
        expected = images.clone()
        expected_lam = mixer._mix_batch(expected)
        top, left, bottom, right = box = cut_box(17, 24, min(lam, 0.999999), (y, x))
        kept = 1 - (bottom - top) * (right - left) / (17 * 24)
        assert torch.equal(mix_images(images, Mix(kept, box)), expected)
        assert math.isclose(kept, expected_lam)


def test_input_is_not_changed():
    images = torch.randn(4, 3, 8, 8)
    before = images.clone()
    for mix in (Mix(0.3), Mix(0.75, (0, 0, 4, 4)), Mix(1.0)):
        mix_images(images, mix)
    erase(images, [(0, 0, 4, 4)] * 4, Augmentation(re_mode="pixel"), 0)
    assert torch.equal(images, before)


def draws(count: int = 4000, **keys) -> list[Mix]:
    aug = Augmentation(**keys)
    return [draw_mix(aug, SHAPE, stream("mix", 0, step, 0)) for step in range(count)]


def test_how_often_what_is_mixed():
    both = draws(mixup=0.2, cutmix=1.0, mixup_switch_prob=0.3)
    assert abs(np.mean([mix.box is not None for mix in both]) - 0.3) < 0.03
    seldom = draws(mixup=0.2, cutmix_prob=0.25)
    assert abs(np.mean([mix.lam != 1.0 for mix in seldom]) - 0.25) < 0.03
    assert all(mix.box is not None for mix in draws(100, cutmix=1.0))
    assert all(mix.box is None for mix in draws(100, mixup=1.0))


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_mixup_weight_is_beta_distributed(alpha):
    lams = np.array([mix.lam for mix in draws(mixup=alpha)])
    assert abs(lams.mean() - 0.5) < 0.03
    assert abs(lams.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


def test_cutmix_weight_is_the_kept_area():
    for mix in draws(500, cutmix=1.0):
        top, left, bottom, right = mix.box
        assert 0 <= top <= bottom <= 40
        assert 0 <= left <= right <= 32
        assert math.isclose(mix.lam, 1 - (bottom - top) * (right - left) / (40 * 32))


def test_targets_are_soft_only_while_mixing_is_on():
    aug = Augmentation(mixup=0.8, cutmix=1.0, mixup_off_epoch=3)
    prepare, labels = BatchPreparer(aug, 10), torch.tensor([1, 2, 3, 4, 5, 6])
    prepared = prepare(batch(targets=labels), seed=1)
    targets = prepared.targets
    assert targets.shape == (6, 10)
    assert targets.dtype == torch.float32
    assert prepared.images.shape == SHAPE
    assert torch.allclose(targets.sum(1), torch.ones(6))
    assert torch.equal(targets > 0, (targets > 0).flip(0))
    for epoch, soft in [(2, True), (3, False), (9, False)]:
        assert prepare.mixes(epoch) is soft
        assert (prepare(batch(targets=labels, epoch=epoch), seed=1).targets is labels) is not soft
    unmixed = BatchPreparer(Augmentation(mixup=0.8, cutmix_prob=0.0), 10)(batch(targets=labels), seed=1)
    assert torch.equal(unmixed.targets, torch.nn.functional.one_hot(labels, 10).float())  # one form for a whole epoch
    assert BatchPreparer(Augmentation(), 10)(batch(targets=labels), seed=1).targets is labels


def test_one_place_one_result_and_other_places_differ():
    prepare = BatchPreparer(Augmentation(mixup=0.8, cutmix=1.0, re_prob=0.5, re_mode="pixel"), 10)
    first, again = (prepare(batch(), seed=1) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert torch.equal(first.images, prepare(batch(micro=1), seed=1).images), "the spread over micro-steps is no place"
    for other in (prepare(batch(), seed=2), prepare(batch(step=3), seed=1), prepare(batch(block=1), seed=1)):
        assert not torch.equal(first.images, other.images)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    prepare(batch(), seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_each_view_is_erased_by_its_own_numbers_and_the_first_as_if_it_were_alone():
    prepare = BatchPreparer(Augmentation(re_prob=1.0), 10)
    first, second = prepare(batch(pixels(), pixels()), seed=1).views
    assert torch.equal(first, prepare(batch(), seed=1).images)
    assert ((first == 0).all(1) != (second == 0).all(1)).any()
    unlabeled = prepare(Batch((pixels(),), None, torch.arange(6)), seed=1)
    assert unlabeled.targets is None


def test_erased_boxes_have_the_asked_share_area_and_aspect():
    aug, shape = Augmentation(re_prob=0.25), torch.Size([4000, 3, 256, 256])
    boxes = np.array(draw_erasing(aug, shape, stream("erase", 0)), dtype=float)
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    erased = height > 0
    area, aspect = (height * width)[erased] / 256**2, (height / np.maximum(width, 1))[erased]
    assert abs(erased.mean() - 0.25) < 0.025
    assert area.min() > 0.0195
    assert area.max() < 0.335
    assert abs(area.mean() - 0.175) < 0.015
    assert aspect.min() > 0.28
    assert aspect.max() < 3.5
    assert abs(np.log(aspect).mean()) < 0.1
    assert boxes.min() >= 0
    assert boxes.max() <= 256


@pytest.mark.parametrize("seed", range(20))
def test_erased_box_is_timms_with_the_same_draws(seed, monkeypatch):
    """Their image of ones becomes 0 where it is erased."""
    from timm.data import random_erasing

    rng = stream("erase", seed)
    monkeypatch.setattr(random_erasing, "random", rng)
    theirs = RandomErasing(probability=1.0, max_area=0.33, max_aspect=3.3, device="cpu")(torch.ones(5, 3, 40, 32))
    aug = Augmentation(re_prob=1.0)
    ours = erase(torch.ones(5, 3, 40, 32), draw_erasing(aug, torch.Size([5, 3, 40, 32]), stream("erase", seed)), aug, 0)
    assert torch.equal(ours, theirs)
    assert (ours == 0).any()


def test_fill_of_erased_boxes():
    boxes, images = [(2, 3, 12, 13), (0, 0, 0, 0), (0, 0, 40, 32)], torch.full((3, 3, 40, 32), 9.0)
    const = erase(images, boxes, Augmentation(re_mode="const", re_value=-1.5), 0)
    assert (const[0] == -1.5).sum() == 300
    assert (const[1] == 9).all()
    assert (const[2] == -1.5).all()
    color = erase(images, boxes, Augmentation(re_mode="rand"), 0)
    assert all(len(color[0, channel, 2:12, 3:13].unique()) == 1 for channel in range(3))
    assert len(color[0].unique()) == 4
    noise = erase(images, boxes, Augmentation(re_mode="pixel"), 0)
    assert (noise[1] == 9).all()
    assert abs(noise[2].mean()) < 0.1
    assert abs(noise[2].std() - 1) < 0.1
    assert not torch.equal(noise, erase(images, boxes, Augmentation(re_mode="pixel"), 1))


def test_box_that_never_fits_erases_nothing():
    aug = Augmentation(re_prob=1.0, re_scale=(1.0, 1.0), re_ratio=(1.0, 1.0), re_max_attempts=3)
    assert draw_erasing(aug, torch.Size([2, 3, 8, 8]), stream("erase", 0)) == [(0, 0, 0, 0)] * 2


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")
def test_nothing_waits_for_the_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    prepare = BatchPreparer(Augmentation(mixup=0.8, cutmix=1.0, re_prob=0.5, re_mode="pixel"), 10)
    on_gpu = batch().to(torch.device("cuda"))
    prepare(on_gpu, seed=1)  # mean and std go to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(20):
            prepare(replace(on_gpu, step=step), seed=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
