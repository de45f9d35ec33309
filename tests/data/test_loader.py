"""The loader: any start, any number of workers, any spread over ranks gives the same batches, bit for bit."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.support.loading import AUG, load, same
from vitcli.data.batch import BadSample
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader
from vitcli.data.sampler import BatchPlan
from vitcli.errors import DataError


def test_batches_come_in_order_and_say_where_they_belong(digits):
    batches = load(digits)  # 40 images, global batch 8: 5 steps an epoch
    assert [(batch.epoch, batch.step, batch.micro) for batch in batches] == [
        (s // 5, s, m) for s in range(9) for m in range(2)
    ]
    first = batches[0]
    assert first.images.shape == (4, 3, 8, 8)
    assert first.images.dtype == torch.uint8
    assert first.images.is_contiguous()
    assert first.targets.dtype == torch.int64
    assert first.targets.tolist() == digits.targets[first.indices.numpy()].tolist()
    assert sorted(torch.cat([batch.indices for batch in batches[:10]]).tolist()) == list(range(40))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_nothing(digits, workers):
    assert same(load(digits, workers=workers), load(digits))


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_make_a_batch_together(folder_with_bad_images, workers):
    """A batch of 20 is made in two pieces, one of 17 too; unreadable images are in both; the last ones are ragged."""
    images = folder_with_bad_images.select(np.arange(37) % len(folder_with_bad_images))
    plan = BatchPlan(37, 20, seed=3, drop_remainder=False)
    options = {"plan": plan, "total": 4, "on_bad_image": "skip", "num_views": 2}
    alone, together = load(images, **options), load(images, **options, workers=workers)
    assert [len(batch) for batch in together] == [20, 17, 20, 17]
    assert len(together[0].bad) > 1
    assert same(together, alone)
    transform = build_eval_transform(AUG)
    options = {"batch_size": 36, "on_bad_image": "list"}
    alone, together = (list(build_eval_loader(images, transform, **options, num_workers=n)) for n in (0, workers))
    assert [len(batch) + len(batch.bad) for batch in together] == [36, 1]
    assert same(together, alone)


def test_a_worker_makes_only_its_piece(digits):
    loader = build_eval_loader(digits, build_eval_transform(AUG), batch_size=40, num_workers=4)
    assert next(iter(loader)).indices.tolist() == list(range(40))
    assert loader.num_pieces == 4
    made = [loader.pieces[number].indices.tolist() for number in range(4)]
    assert made == [list(range(start, start + 10)) for start in (0, 10, 20, 30)]


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_at_any_step_gives_the_tail(digits, workers):
    whole = load(digits)
    for start in range(10) if workers == 0 else (4, 5, 8):
        assert same(load(digits, start=start, workers=workers), whole[2 * start :])


def test_iterating_twice_gives_the_same(digits):
    loader = build_eval_loader(digits, build_eval_transform(AUG), batch_size=16)
    assert same(list(loader), list(loader))
    assert len(loader) == 3


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (4, 1), (2, 2), (1, 4)])
def test_ranks_together_train_on_the_same_images_with_the_same_augmentation(digits, world_size, accumulation):
    whole = load(digits, plan=BatchPlan(40, 8, seed=3), total=5)
    plan = BatchPlan(40, 8 // (world_size * accumulation), world_size, accumulation, seed=3)
    ranks = [load(digits, plan=plan, rank=rank, total=5) for rank in range(world_size)]
    for step, expected in enumerate(whole):
        parts = [
            ranks[rank][step * accumulation + micro] for micro in range(accumulation) for rank in range(world_size)
        ]
        assert [part.block for part in parts] == list(range(world_size * accumulation))
        assert torch.equal(torch.cat([part.images for part in parts]), expected.images)


def test_an_image_is_augmented_differently_in_each_epoch_and_for_each_seed(digits):
    plan = BatchPlan(40, 40, shuffle=False)
    for one, other in pairwise(load(digits, plan=plan, total=3) + load(digits, plan=plan, total=1, seed=4)):
        assert np.mean([torch.equal(*pair) for pair in zip(one.images, other.images, strict=True)]) < 0.3


def test_repeats_are_augmented_differently_and_the_first_as_ever(digits):
    """With three draws of each image: the first is the one that training without repeats makes of it."""
    plain = load(digits, plan=BatchPlan(40, 40, shuffle=False), total=1)[0]
    plan = BatchPlan(40, 12, shuffle=False, repeats=3)
    batch = load(digits, plan=plan, total=1, workers=1)[0]
    assert batch.indices.tolist() == [0, 1, 2, 3] * 3
    first, second, third = batch.images.split(4)
    assert torch.equal(first, plain.images[:4])
    for one, other in ((first, second), (first, third), (second, third)):
        assert np.mean([torch.equal(*pair) for pair in zip(one, other, strict=True)]) < 0.3
    assert same(load(digits, plan=plan, start=2, total=5), load(digits, plan=plan, total=5)[2:])


def test_the_loader_draws_from_no_global_generator(digits):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    load(digits, total=2, workers=1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_sees_each_image_once(digits, world_size, workers):
    seen = []
    for rank in range(world_size):
        loader = build_eval_loader(
            digits, build_eval_transform(AUG), batch_size=7, rank=rank, world_size=world_size, num_workers=workers
        )
        seen += [index for batch in loader for index in batch.indices.tolist()]
    assert sorted(seen) == list(range(40))


def test_a_rank_without_images_evaluates_nothing(digits):
    assert (
        list(build_eval_loader(digits, build_eval_transform(AUG), batch_size=7, rank=40, world_size=41, num_workers=2))
        == []
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_fails_with_its_name_and_without_a_traceback(folder_with_bad_images, workers):
    with pytest.raises(DataError) as caught:
        load(folder_with_bad_images, plan=BatchPlan(20, 4), total=5, workers=workers)
    assert "3.png" in str(caught.value) or "7.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match=r"3\.png"):
        list(build_eval_loader(folder_with_bad_images, build_eval_transform(AUG), batch_size=4, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_may_list_bad_images(folder_with_bad_images, workers):
    transform = build_eval_transform(AUG)
    options = {"batch_size": 4, "num_workers": workers, "on_bad_image": "list"}
    batches = list(build_eval_loader(folder_with_bad_images, transform, **options))
    assert [sample.index for batch in batches for sample in batch.bad] == [3, 17]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [i for i in range(20) if i not in (3, 17)]
    assert [len(batch.images) for batch in batches] == [3, 4, 4, 4, 3]
    alone = list(build_eval_loader(folder_with_bad_images.select(np.array([3])), transform, **options))
    assert (len(alone[0]), alone[0].views, len(alone[0].bad)) == (0, (), 1)


def test_bad_image_is_replaced_the_same_way_everywhere(folder_with_bad_images):
    images, plan = folder_with_bad_images, BatchPlan(20, 4, seed=3)
    batches = load(images, plan=plan, total=5, on_bad_image="skip")
    bad = [sample for batch in batches for sample in batch.bad]
    assert {sample.name for sample in bad} >= {"a/3.png", "b/7.png"}
    assert all("known format" in sample.reason for sample in bad)
    assert all(isinstance(sample, BadSample) and sample.replaced_by is not None for sample in bad)
    indices = torch.cat([batch.indices for batch in batches])
    assert len(indices) == 20
    assert not {3, 17} & set(indices.tolist())
    assert torch.equal(torch.cat([batch.targets for batch in batches]), torch.from_numpy(images.targets)[indices])
    assert same(load(images, plan=plan, total=5, workers=2, on_bad_image="skip"), batches)
    assert same(load(images, plan=plan, start=3, total=5, on_bad_image="skip"), batches[3:])
    halves = [
        load(images, plan=BatchPlan(20, 2, world_size=2, seed=3), rank=rank, total=5, on_bad_image="skip")
        for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([half[0].indices for half in halves]), batches[0].indices)


def test_when_every_image_is_bad_skipping_ends(folder_with_bad_images):
    images = folder_with_bad_images
    for index in range(20):
        (images.root / images.name(index)).write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        load(images, plan=BatchPlan(20, 4), total=5, on_bad_image="skip")
