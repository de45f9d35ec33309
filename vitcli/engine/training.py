"""All that a training run consists of, on one rank."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from vitcli.data.batch import Batch
from vitcli.data.sampler import BatchPlan
from vitcli.distributed import World, average_buffers
from vitcli.engine.bad_images import BadImages
from vitcli.engine.half_step import HalfStep
from vitcli.engine.host_memory import HostMemory, NoCopies, NoMemory
from vitcli.engine.meter import Meter
from vitcli.engine.nonfinite import NonfiniteSteps
from vitcli.engine.side_stream import SideStream
from vitcli.engine.writer import CheckpointWriter
from vitcli.errors import VitcliError
from vitcli.evaluators.evaluator import Evaluator
from vitcli.log import Reporter
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.parallel.replicas import Replicas
from vitcli.parallel.sharded import Shards
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Task


@dataclass
class Progress:
    """How far a run has come; everything else is tensors, or a function of `step`."""

    step: int = 0  #: optimizer steps done
    closed_step: int = 0  #: the step whose epoch was evaluated last
    best_step: int | None = None
    best: float | None = None  #: the task's primary number at `best_step`
    primary: dict[int, float] = field(default_factory=dict)  #: step -> primary number, of every evaluation


@dataclass
class Training:
    """One run on one rank."""

    recipe: Recipe
    world: World
    run_dir: Path
    task: Task  #: bare, with its canonical parameter names
    parallel: Replicas | Shards  #: how the task lies on the ranks
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    ema: ExponentialMovingAverage | None
    plan: BatchPlan
    lr_factor: float  #: the recipe's learning rates times this are used: the global batch / lr_base_batch
    #: start_step=… -> micro-batches of this rank from there to the end, on the side stream
    batches: Callable[..., Iterable[Batch]]
    side: SideStream
    evaluators: dict[str, Evaluator]
    autocast: Callable[[], torch.autocast]
    facts: dict[str, Any]  #: class names and preprocessing, written into each checkpoint
    reporter: Reporter
    bad_images: BadImages
    meter: Meter
    writer: CheckpointWriter
    memory: HostMemory | NoCopies | NoMemory  #: for the tensors of a checkpoint
    half_step: HalfStep
    nonfinite: NonfiniteSteps
    #: what the last evaluation found for the use of the network, written into the checkpoint of its step
    findings: dict[str, Any] = field(default_factory=dict)
    channels_last: bool = False
    progress: Progress = field(default_factory=Progress)
    averaged_step: int | None = None  #: the step whose buffers are the same on all ranks
    saved_step: int | None = None  #: the step of the last checkpoint, which is written or being written
    is_saving: bool = False  #: a checkpoint was begun, and nobody has waited for it
    unsaved: VitcliError | None = None  #: why the last checkpoint could not be written

    @property
    def total_steps(self) -> int:
        return self.recipe.scheduler.epoch_size * self.plan.steps_per_epoch

    def average_buffers(self) -> None:
        """Give all ranks the same BatchNorm statistics, once a step: the mean of a mean may differ in its last bit."""
        if self.averaged_step == self.progress.step:
            return
        average_buffers(self.task)
        if self.ema:
            average_buffers(self.ema.model)
        self.averaged_step = self.progress.step
