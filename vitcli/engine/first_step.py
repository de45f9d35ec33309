"""The first step of a session. It takes longest: workers start, and kernels are chosen or compiled."""

import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch

from vitcli.data.batch import Batch
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.terminal import LONG_SECONDS, phase


def first_step(training: Training, batches: Iterator[Batch]) -> float:
    """Do it, and say how long that took since the run was built, if it was long; returns the learning rate used."""
    compiler = training.parallel.compiler
    with phase("compiling") if compiler else nullcontext():
        lr = train_step(training, batches)
        if training.world.device.type != "cpu":
            torch.accelerator.synchronize()
    seconds = time.perf_counter() - training.meter.start
    if compiler or seconds > LONG_SECONDS:
        training.reporter.say(f"first step after {seconds:.1f} s{f', {compiler.describe()}' if compiler else ''}")
    return lr
