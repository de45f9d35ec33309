"""The loader: any start, any number of workers, any spread over ranks gives the same batches, bit for bit."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise

import numpy as np
import pytest
import torch

from vitcli.data.batch import BadSample, Batch
from vitcli.data.crops import Crops, build_crop_transform
from vitcli.data.datasets import build_splits
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader, build_train_loader, default_num_workers
from vitcli.data.sampler import BatchPlan
from vitcli.data.views import build_views
from vitcli.errors import DataError
from vitcli.recipe.schema import Augmentation, Dataset

AUG = Augmentation(image_resize=8, auto_augment="rand-m9-mstd0.5-inc1", interpolation="random")


@pytest.fixture(scope="module")
def digits():
    return build_splits(Dataset(dataset="digits", num_samples=40)).train


def load(
    images, *, plan=None, rank=0, start=0, total=9, workers=0, seed=3, on_bad_image="fail", num_views=1
) -> list[Batch]:
    plan = plan or BatchPlan(len(images), 4, accumulation=2, seed=3)
    options = {"seed": seed, "rank": rank, "start_step": start, "total_steps": total, "num_workers": workers}
    return list(build_train_loader(images, build_views(AUG, num_views), plan, **options, on_bad_image=on_bad_image))


def same(batches: list[Batch], others: list[Batch]) -> bool:
    def facts(batch):
        return (
            batch.indices.tolist(),
            batch.targets.tolist(),
            batch.bad,
            batch.epoch,
            batch.step,
            batch.micro,
            batch.block,
        )

    return len(batches) == len(others) and all(
        facts(batch) == facts(other) and all(map(torch.equal, batch.views, other.views))
        for batch, other in zip(batches, others, strict=True)
    )


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


@pytest.fixture(params=["spawn", "forkserver"])
def start_method(request):
    """Workers are started by another method than fork: macOS's, Python 3.14's."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_other_start_methods_change_nothing(start_method, folder_with_bad_images):
    """Two views and replaced images in training, many crops in evaluation, as with no worker at all."""
    images, plan = folder_with_bad_images, BatchPlan(20, 4, seed=3)
    train = [load(images, plan=plan, workers=n, total=5, on_bad_image="skip", num_views=2) for n in (0, 2)]
    assert same(*train)
    readable = images.subset(2)
    crops = build_crop_transform(Crops("5"), AUG)
    loaders = [build_eval_loader(readable, crops, batch_size=2, num_workers=n) for n in (0, 1)]
    assert same(*map(list, loaders))


@pytest.mark.slow
def test_workers_of_other_start_methods_survive_the_signals_that_stop_a_run(digits, start_method):
    assert same(load(Slow(digits, at=20, action=stop_self), workers=1), load(digits))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_signals_that_come_while_workers_start_do_not_stop_them(method):
    """A new interpreter needs seconds until it can ignore them. They go to the whole process group."""
    program = f"""
        import multiprocessing, os, signal, subprocess, threading, time
        from vitcli.data.datasets import build_split
        from vitcli.data.loader import build_eval_loader
        from vitcli.data.eval_transform import build_eval_transform
        from vitcli.recipe.schema import Augmentation, Dataset
        def send():
            while not multiprocessing.active_children():
                time.sleep(0.001)
            commands = "; ".join(f"kill -{{name}} -{{os.getpgrp()}}" for name in ("INT", "TERM", "HUP", "USR1"))
            subprocess.run(commands, shell=True, start_new_session=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        multiprocessing.set_start_method({method!r})
        transform = build_eval_transform(Augmentation(image_resize=8))
        images = build_split(Dataset(dataset="digits"), "val")
        threading.Thread(target=send).start()
        print(sum(map(len, build_eval_loader(images, transform, batch_size=50, num_workers=1))))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, timeout=100, capture_output=True, text=True, start_new_session=True)
    assert done.stdout == "355\n", done.stderr


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


@pytest.fixture
def folder_with_bad_images(make_image_folder):
    """20 images, two of them broken."""
    data_dir = make_image_folder({"train/a": 10, "train/b": 10, "val/a": 1, "val/b": 1})
    for broken in ("a/3.png", "b/7.png"):
        (data_dir / "train" / broken).write_bytes(b"not an image")
    return build_splits(Dataset(data_dir=data_dir)).train


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_fails_with_its_name_and_without_a_traceback(folder_with_bad_images, workers):
    with pytest.raises(DataError) as caught:
        load(folder_with_bad_images, plan=BatchPlan(20, 4), total=5, workers=workers)
    assert "3.png" in str(caught.value) or "7.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match=r"3\.png"):
        list(build_eval_loader(folder_with_bad_images, build_eval_transform(AUG), batch_size=4, num_workers=workers))


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


class Slow:
    """An image set whose every image takes a while, and that does something to its process at one of them."""

    def __init__(self, images, seconds=0.0, at=None, action=None):
        self.images, self.seconds, self.at, self.action = images, seconds, at, action

    def __getattr__(self, name):
        if name == "images":
            raise AttributeError
        return getattr(self.images, name)

    def __len__(self):
        return len(self.images)

    def load(self, index):
        time.sleep(self.seconds)
        if index == self.at:
            self.action()
        return self.images.load(index)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop_self() -> None:
    """What a terminal, a batch system or torchrun sends to every process of the group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    time.sleep(0.1)


def test_killed_worker_is_a_clear_error(digits):
    with pytest.raises(DataError, match="decoding process was killed") as caught:
        load(Slow(digits, at=20, action=kill_self), workers=1)
    assert "memory" in caught.value.help


def test_workers_survive_the_signals_that_stop_a_run(digits):
    assert same(load(Slow(digits, at=20, action=stop_self), workers=2), load(digits))


def test_a_mistake_in_the_code_is_not_called_bad_data(digits):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load(Slow(digits, at=20, action=fail), workers=1)


KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("end", "method"),
    [("sys.exit(0)", "fork"), ("raise KeyboardInterrupt", "fork"), (KILLED, "fork"), (KILLED, "spawn"),
     (KILLED, "forkserver"), ("sys.exit(0)", "forkserver")],
)  # fmt: skip
def test_no_worker_outlives_the_run(end, method, tmp_path):
    """The program ends in the middle of an epoch, with the iterator alive; its workers must end with it."""
    program = f"""
        import multiprocessing, os, signal, sys
        from vitcli.data.datasets import build_splits
        from vitcli.data.loader import build_eval_loader
        from vitcli.data.eval_transform import build_eval_transform
        from vitcli.recipe.schema import Augmentation, Dataset
        multiprocessing.set_start_method({method!r})
        images = build_splits(Dataset(dataset="digits")).train
        transform = build_eval_transform(Augmentation(image_resize=8))
        batches = iter(build_eval_loader(images, transform, batch_size=2, num_workers=2))
        next(batches)
        children = " ".join(str(worker.pid) for worker in multiprocessing.active_children())
        open({str(tmp_path / "children")!r}, "w").write(children)
        {end}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=100, stderr=subprocess.DEVNULL)
    workers = (tmp_path / "children").read_text().split()
    assert len(workers) == 2
    deadline = time.monotonic() + 15  # an orphan looks for its parent every 5 seconds
    while any(os.path.exists(f"/proc/{pid}") and "Z" not in state(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def state(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


def test_default_number_of_workers(monkeypatch):
    for cores, ranks, expected in [
        (1, 1, 0),
        (2, 1, 1),
        (2, 2, 0),
        (4, 1, 3),
        (16, 1, 15),
        (64, 1, 16),
        (64, 8, 7),
        (2, 4, 0),
    ]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert default_num_workers(ranks) == expected
