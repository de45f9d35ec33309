"""All that a training run consists of, and how it becomes a checkpoint and comes back."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitcli.data.sampler import BatchPlan
from vitcli.distributed import World, all_sum, average_buffers, from_main
from vitcli.engine import checkpoint
from vitcli.engine.bad_images import BadImages
from vitcli.errors import DiskError, DivergedError
from vitcli.evaluators.top1 import EvalResult
from vitcli.log import Reporter
from vitcli.optim.ema import ExponentialMovingAverage
from vitcli.recipe.load import Recipe
from vitcli.weights.checkpoint_folders import folder_of

FORMAT_VERSION = 1


class Preparer(Protocol):
    """uint8 images and labels on the device -> normalized, erased and mixed images with their targets."""

    def __call__(
        self, images: Tensor, labels: Tensor, *, seed: int, epoch: int, step: int, micro: int
    ) -> tuple[Tensor, Tensor]: ...


class Meter:
    """Sums since the last log line, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.diverged = torch.zeros((), device=device)  #: > 0 once a loss or gradient was not finite
        self.reset()

    def reset(self) -> None:
        self.loss.zero_()
        self.steps = self.images = 0
        self.wait_seconds = 0.0
        self.start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.start


@dataclass
class Progress:
    """What a run has come to; everything else is tensors, or a function of `step`."""

    step: int = 0  #: optimizer steps done
    closed_step: int = 0  #: the step whose epoch was evaluated and saved last
    best_step: int | None = None
    best_top1: float = -1.0
    top1: dict[int, float] = field(default_factory=dict)  #: step -> top1 of every evaluation
    loss_sum: float = 0.0  #: of the steps since the last log line
    loss_steps: int = 0


@dataclass
class Training:
    """One run on one rank."""

    recipe: Recipe
    world: World
    run_dir: Path
    model: nn.Module  #: bare, with its canonical parameter names
    task: nn.Module  #: the model with its loss, under DDP and torch.compile where asked for
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    ema: ExponentialMovingAverage | None
    plan: BatchPlan
    peak_lr: float
    prepare: Preparer
    batches: Callable[[int], Iterable]  #: first step -> micro-batches of this rank from there to the end
    evaluate: Callable[[nn.Module, Callable[[], bool]], EvalResult]
    autocast: Callable[[], torch.autocast]
    facts: dict[str, Any]  #: class names and preprocessing, written into each checkpoint
    reporter: Reporter
    after_step: Callable[[int], None]  #: the task's, called with the number of steps done
    meter: Meter
    bad_images: BadImages
    channels_last: bool = False
    progress: Progress = field(default_factory=Progress)

    @property
    def total_steps(self) -> int:
        return self.recipe.scheduler.epoch_size * self.plan.steps_per_epoch

    @property
    def evaluated_model(self) -> nn.Module:
        """The one whose accuracy counts: the average where one is kept."""
        return self.ema.model if self.ema else self.model

    def average_buffers(self) -> None:
        """Give all ranks the same BatchNorm statistics, before they are used or saved."""
        average_buffers(self.model)
        if self.ema:
            average_buffers(self.ema.model)

    def save(self) -> None:
        """Write a checkpoint of this moment, prune old ones, mark the best. Every rank must call it.

        Raises:
            DiskError: on all ranks, when rank 0 could not write.
            DivergedError: a weight or statistic is not finite; nothing was written.
        """
        self.average_buffers()
        self.progress.loss_sum = all_sum(self.meter.loss.clone()).item()
        self.progress.loss_steps = self.meter.steps
        failure = None
        if self.world.is_main:
            try:
                self._write()
            except (DiskError, DivergedError) as error:
                failure = error
        if failure := from_main(failure):
            raise failure

    def _write(self) -> None:
        tensors = {"model": self.model.state_dict()}
        if self.ema:
            tensors["ema"] = self.ema.model.state_dict()
        tensors["optimizer"] = checkpoint.optimizer_tensors(self.optimizer, self.model)
        for stem in ("model", "ema"):
            for name, value in tensors.get(stem, {}).items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise DivergedError(f"{name} is not finite after step {self.progress.step}", help=DIVERGED_HELP)
        folder = checkpoint.save_checkpoint(self.run_dir, self.progress.step, tensors, self._state())
        section, top1 = self.recipe.checkpoint, self.progress.top1
        try:
            if self.progress.best_step == self.progress.step:
                checkpoint.mark_best(folder)
            checkpoint.prune(self.run_dir, policy=section.ckpt_save_policy, keep=section.keep_checkpoint_max, top1=top1)
        except OSError as error:
            message = f"checkpoint {self.progress.step} is written, but older ones or the link `best` cannot be changed"
            raise DiskError(f"{message}: {error.strerror or error}") from None

    def _state(self) -> dict[str, Any]:
        return {
            "format": FORMAT_VERSION,
            "progress": asdict(self.progress),
            "epoch": self.progress.step / self.plan.steps_per_epoch,
            "global_batch": self.plan.global_batch,
            "scaler": self.scaler.state_dict(),
            "recipe": self.recipe.flat(),
            **self.facts,
        }

    def restore(self, folder: Path) -> None:
        """Go back to the moment of the checkpoint in `folder`."""
        state = checkpoint.load_state(folder)
        self.model.load_state_dict(checkpoint.load_tensors(folder, "model"))
        if self.ema:
            self.ema.model.load_state_dict(checkpoint.load_tensors(folder, "ema"))
        checkpoint.restore_optimizer(self.optimizer, self.model, checkpoint.load_tensors(folder, "optimizer"))
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self.progress.top1 = {int(step): top1 for step, top1 in self.progress.top1.items()}
        self.meter.loss.fill_(self.progress.loss_sum if self.world.is_main else 0.0)
        self.meter.steps = self.progress.loss_steps
        if self.world.is_main and self.progress.best_step is not None:  # it was killed before the link was set, perhaps
            checkpoint.mark_best(folder_of(self.run_dir, self.progress.best_step))


DIVERGED_HELP = (
    "lower lr, lengthen warmup_epochs, or set clip_grad: true; with amp fp16 try bf16. "
    "Checkpoints written before are intact; a run with another lr is a new one and can start from them by --ckpt_path"
)
