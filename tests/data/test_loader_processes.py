"""The processes that make batches: how they are started, what they survive, and that they end with the run."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.loading import AUG, load, same
from vitcli.data.crops import Crops, build_crop_transform
from vitcli.data.loader import build_eval_loader, default_num_workers
from vitcli.data.sampler import BatchPlan
from vitcli.errors import LostWorker


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

    def open(self, index):
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


def test_workers_survive_the_signals_that_stop_a_run(digits):
    assert same(load(Slow(digits, at=20, action=stop_self), workers=2), load(digits))


@pytest.mark.slow
def test_workers_of_other_start_methods_survive_the_signals_that_stop_a_run(digits, start_method):
    assert same(load(Slow(digits, at=20, action=stop_self), workers=1), load(digits))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.soak), "forkserver"])
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


def test_killed_worker_is_a_clear_error(digits):
    with pytest.raises(LostWorker, match="decoding process was killed") as caught:
        load(Slow(digits, at=20, action=kill_self), workers=1)
    assert "memory" in caught.value.help


def test_a_mistake_in_the_code_is_not_called_bad_data(digits):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load(Slow(digits, at=20, action=fail), workers=1)


KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.slow
def test_no_worker_outlives_the_run(tmp_path):
    """The program ends in the middle of an epoch, with the iterator alive; its workers must end with it."""
    ways = [("sys.exit(0)", "fork"), ("raise KeyboardInterrupt", "fork"), (KILLED, "fork"), (KILLED, "spawn"),
            (KILLED, "forkserver"), ("sys.exit(0)", "forkserver")]  # fmt: skip
    for number, (end, method) in enumerate(ways):
        end_in_an_epoch(end, method, tmp_path / str(number))
    deadline = time.monotonic() + 15  # an orphan looks for its parent every 5 seconds
    for number, way in enumerate(ways):
        workers = (tmp_path / str(number)).read_text().split()
        assert len(workers) == 2
        while any(os.path.exists(f"/proc/{pid}") and "Z" not in state(pid) for pid in workers):
            assert time.monotonic() < deadline, way
            time.sleep(0.1)


def end_in_an_epoch(end: str, method: str, file: Path) -> None:
    """Run a program that ends by `end`; the process ids of its workers are in `file`."""
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
        open({str(file)!r}, "w").write(children)
        {end}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=100, stderr=subprocess.DEVNULL)


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
