"""The first steps of a run, timed and then forgotten: how fast images are loaded, and how fast the network learns."""

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import torch

from vitcli.data.batch import Batch
from vitcli.distributed import from_main
from vitcli.engine.failures import memory_in_words
from vitcli.engine.state import optimizer_tensors
from vitcli.engine.step import train_step
from vitcli.engine.training import Training

LOADER_SECONDS, STEP_SECONDS = 4.0, 5.0
#: images of a micro-batch where a whole one takes too long
NUM_FEW = 4


@dataclass(frozen=True)
class Trial:
    """Measured on this machine, over all processes."""

    loaded_per_second: float
    trained_per_second: float
    micro_batch: int  #: images that the network saw at a time: fewer than batch_size if that would take too long
    peak_memory: int  #: in bytes: of the GPU, else of this process
    checkpoint: int  #: size in bytes


def try_out(training: Training) -> Trial:
    """Load and train for some seconds; `training` is of no use afterwards. Every rank must call it."""
    loaded, batch = _loading(training)
    if training.world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with memory_in_words("lower --batch_size; --grad_checkpointing True saves more"):
        few = _part(batch, min(len(batch), NUM_FEW))
        speed = _training(training, few, seconds=0)
        if from_main(training.plan.global_batch / speed < STEP_SECONDS):
            few = batch
            speed = _training(training, batch, seconds=STEP_SECONDS)
    return Trial(loaded * training.world.size, speed, len(few), _peak_memory(training), _checkpoint_size(training))


def _loading(training: Training) -> tuple[float, Batch]:
    """Images per second that the loader of this process makes, and the first batch; starting it is not counted."""
    batches = iter(training.batches(start_step=0))
    first = next(batches)
    start, images, seconds = time.perf_counter(), 0, 0.0
    for batch in batches:
        images, seconds = images + len(batch), time.perf_counter() - start
        if seconds > LOADER_SECONDS:
            break
    if not images:  # the run has a single batch
        start = time.perf_counter()
        images, seconds = len(next(iter(training.batches(start_step=0)))), time.perf_counter() - start
    return images / seconds, first


def _training(training: Training, batch: Batch, seconds: float) -> float:
    """Images per second of all processes in optimizer steps on `batch`, after one that warms up."""
    batches = _again(training, batch)
    train_step(training, batches)
    _wait(training)
    start, steps = time.perf_counter(), 0
    while not steps or from_main(time.perf_counter() - start < seconds):
        train_step(training, batches)
        _wait(training)
        steps += 1
    return steps * len(batch) * training.plan.num_blocks / (time.perf_counter() - start)


def _again(training: Training, batch: Batch) -> Iterator[Batch]:
    """`batch` in each micro-step from here on."""
    for step in count(training.progress.step):
        for micro in range(training.plan.accumulation):
            yield replace(batch, step=step, micro=micro, bad=())


def _part(batch: Batch, num_images: int) -> Batch:
    targets = None if batch.targets is None else batch.targets[:num_images]
    views = tuple(view[:num_images] for view in batch.views)
    return replace(batch, views=views, targets=targets, indices=batch.indices[:num_images])


def _wait(training: Training) -> None:
    """Until the device has finished."""
    training.nonfinite.flags[-1].item()


def _peak_memory(training: Training) -> int:
    if training.world.device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _checkpoint_size(training: Training) -> int:
    """Of all tensors in a checkpoint."""
    parts = [training.task.state_dict(), optimizer_tensors(training.optimizer, training.task)]
    parts += [training.ema.model.state_dict()] if training.ema else []
    return sum(tensor.nbytes for part in parts for tensor in part.values())
