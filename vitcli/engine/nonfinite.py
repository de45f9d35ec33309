"""What becomes of a step whose loss or gradients are not finite (`on_nonfinite`): the run ends, or leaves it out.

The step itself is dropped on the device, bit by bit: weights and optimizer by `drop_step_if`, and buffers (BatchNorm's
statistics, which the forward pass has changed by then) by `half_step.py`. The host learns of it at the next log line
or checkpoint. So a run that went on is bitwise a run without the update of that step, and going back to a checkpoint
could not do better: a repetition is the same to the last bit.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitcli.data.sampler import BatchPlan
from vitcli.data.source import Source
from vitcli.disk import AppendedFile, Faults, write_whole
from vitcli.engine.half_step import HalfStep
from vitcli.errors import DivergedError

#: the file in the folder of a run
NONFINITE = "nonfinite.jsonl"
#: then the weights are the reason, not the images of a step, and no later step will be finite
MAX_SKIPPED_IN_A_ROW = 10
#: images that a message names; the file has all
_NUM_SHOWN = 3

DIVERGED_HELP = (
    "lower lr, lengthen warmup_epochs, or set clip_grad: true; with amp fp16 try bf16. Checkpoints written before are "
    "intact; a run with another lr is a new one and can start from them by --ckpt_path"
)
_SKIP_HELP = "a single such step can be left out: continue from the last checkpoint with --on_nonfinite skip"


class NonfiniteSteps:
    """The steps of a run that were dropped because their loss or a gradient was infinite or NaN; the same on each rank.

    Args:
        policy: what `look` does with such a step.
        half_step: gives the buffers of the task the values that they had before it.
        file: nonfinite.jsonl of the run, with a line per step.
        images, plan: which images a step had.
        faults: where it is noted if the disk refuses the file.
    """

    def __init__(
        self,
        policy: Literal["stop", "skip"],
        half_step: HalfStep,
        file: Path,
        images: Source,
        plan: BatchPlan,
        faults: Faults | None = None,
    ) -> None:
        self.lines = AppendedFile(file, faults or Faults())
        self.policy, self.half_step, self.file, self.images, self.plan = policy, half_step, file, images, plan
        self.skipped = self.skipped_in_a_row = 0
        self.flags: list[Tensor] = []  #: () bool of each step since the last look

    def end_step(self, nonfinite: Tensor) -> None:
        """Note a step, and give the buffers their values before it where `nonfinite` () is true."""
        self.flags.append(nonfinite)
        if self.policy == "skip":
            self.half_step.put_back_where(nonfinite)

    def look(self, step: int, *, is_main: bool) -> list[int]:
        """The steps that were skipped since the last look, of which `step` is the last one; asks the device.

        Raises:
            DivergedError: `policy` is to stop, or too many steps in a row were not finite.
        """
        flags = torch.stack(self.flags).tolist() if self.flags else []
        self.flags = []
        first = step - len(flags) + 1
        found = [first + place for place, nonfinite in enumerate(flags) if nonfinite]
        if found and self.policy == "stop":  # the buffers are spoiled from there on
            del found[1:]
        if is_main:
            self._write(found)
        if found and self.policy == "stop":
            raise DivergedError(self.sentence(found[0]), help=f"{_SKIP_HELP}; otherwise {DIVERGED_HELP}")
        for number, nonfinite in enumerate(flags, start=first):
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if nonfinite else 0
            if self.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                steps = f"each of the steps {number - MAX_SKIPPED_IN_A_ROW + 1} to {number}"
                raise DivergedError(f"the loss or its gradients were NaN or infinite in {steps}", help=DIVERGED_HELP)
        self.skipped += len(found)
        return found

    def sentence(self, step: int) -> str:
        """What happened in `step`, and to which images."""
        shown = [repr(name) for name in islice(self._names(step), _NUM_SHOWN)]
        count = self.plan.num_samples_of((step - 1) % self.plan.steps_per_epoch)
        more = ", …" * (count > len(shown))
        where = f"; all {count} images of the step are listed in {self.file}" * bool(more)
        return f"the loss or its gradients became NaN or infinite in step {step} ({', '.join(shown)}{more}){where}"

    def state(self) -> dict[str, int]:
        """For a checkpoint."""
        return {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def restore(self, state: dict[str, Any], step: int, *, is_main: bool) -> None:
        """Take back `state`, of `step`; the lines of later steps go, for these are done again."""
        self.skipped, self.skipped_in_a_row = state.get("skipped", 0), state.get("skipped_in_a_row", 0)
        if not is_main or not self.file.exists():
            return
        lines = self.file.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_whole(self.file, "".join(f"{line}\n" for line in kept))

    def _write(self, steps: list[int]) -> None:
        for step in steps:
            line = {"step": step, "action": self.policy, "images": [*self._names(step)]}
            self.lines.append((json.dumps(line) + "\n").encode())

    def _names(self, step: int) -> Iterator[str]:
        """The images of `step` (from 1), on all ranks; replacements of unreadable ones are in bad_images.jsonl."""
        place = self.plan.epoch_and_step(step - 1)
        for micro in range(self.plan.accumulation):
            for rank in range(self.plan.world_size):
                for index in self.plan.indices(*place, micro, rank).tolist():
                    yield self.images.name(index)
