"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math
from collections.abc import Callable

from vitcli.errors import Problem, RecipeError
from vitcli.recipe.schema import Scheduler as Section


def scaled_lr(section: Section, global_batch: int) -> tuple[float, str]:
    """The factor of all learning rates for this global batch, and the sentence that shows where it comes from.

    The rates of a recipe belong to `lr_base_batch` images per step. The linear rule is Goyal et al. 2017
    (arXiv 1706.02677), the square root is usual for Adam (Krizhevsky 2014, arXiv 1404.5997).
    """
    if section.lr_base_batch is None or section.lr_scale == "none":
        return 1.0, f"lr {section.lr:g} (as given; global batch {global_batch})"
    ratio = global_batch / section.lr_base_batch
    factor = ratio if section.lr_scale == "linear" else math.sqrt(ratio)
    shown = f"{global_batch}/{section.lr_base_batch}"
    shown = shown if section.lr_scale == "linear" else f"sqrt({shown})"
    return factor, f"lr {section.lr * factor:g} = {section.lr:g} x {shown} (global batch / lr_base_batch)"


def learning_rate(step: int, steps_per_epoch: int, section: Section, factor: float = 1.0) -> float:
    """The rate of optimizer step `step` (from 0). `factor`, from `scaled_lr`, applies to floor and warm-up too."""
    epoch = step // steps_per_epoch if section.lr_epoch_stair else step / steps_per_epoch
    if section.scheduler == "one_cycle":
        return factor * _one_cycle(step, section.epoch_size * steps_per_epoch, section)
    if epoch < section.warmup_epochs:
        start = section.warmup_lr if section.warmup_lr is not None else section.lr * section.warmup_factor
        return factor * (start + (section.lr - start) * epoch / section.warmup_epochs)
    since = epoch - section.warmup_epochs if section.warmup_prefix else epoch
    return factor * max(section.min_lr, SCHEDULES[section.scheduler](since, section))


def decay_epochs(section: Section) -> float:
    """Epochs of the decay: as given, or what warm-up and cool-down leave (shared by the cosine cycles)."""
    if section.decay_epochs is not None:
        return section.decay_epochs
    warmup = section.warmup_epochs if section.warmup_prefix else 0
    return max(1, section.epoch_size - warmup - section.cooldown_epochs) / section.num_cycles


def _between(section: Section, share: float) -> float:
    """From lr (share 1) to min_lr (share 0)."""
    return section.min_lr + (section.lr - section.min_lr) * share


def _cosine_decay(epoch: float, s: Section) -> float:
    """Half a cosine from lr to min_lr, `num_cycles` times (SGDR, arXiv 1608.03983)."""
    cycle, length = divmod(epoch, decay_epochs(s))
    if cycle >= s.num_cycles:
        return s.min_lr
    peak = s.lr * s.cycle_decay**cycle
    return s.min_lr + (peak - s.min_lr) * 0.5 * (1 + math.cos(math.pi * length / decay_epochs(s)))


def _linear_decay(epoch: float, s: Section) -> float:
    return _between(s, max(0.0, 1 - epoch / decay_epochs(s)))


def _polynomial_decay(epoch: float, s: Section) -> float:
    """The power is `decay_rate`, as in MindCV."""
    return _between(s, max(0.0, 1 - epoch / decay_epochs(s)) ** s.decay_rate)


def _exponential_decay(epoch: float, s: Section) -> float:
    """x decay_rate each epoch, smoothly."""
    return s.lr * s.decay_rate**epoch


def _step_decay(epoch: float, s: Section) -> float:
    """x decay_rate at every multiple of decay_epochs."""
    return s.lr * s.decay_rate ** (epoch // decay_epochs(s))


def _multi_step_decay(epoch: float, s: Section) -> float:
    """x decay_rate at each milestone; milestones count from the start of training when the warm-up is inside."""
    return s.lr * s.decay_rate ** sum(epoch >= milestone for milestone in s.multi_step_decay_milestones)


def _constant(epoch: float, s: Section) -> float:
    return s.lr


def _one_cycle(step: float, total_steps: int, s: Section) -> float:
    """Cosine up to lr over 30 % of all steps, cosine down to lr / 250,000 (arXiv 1708.07120, torch's OneCycleLR)."""
    up, start, end = 0.3 * total_steps - 1, s.lr / 25, s.lr / 25e4
    if step <= up:
        return s.lr + (start - s.lr) * 0.5 * (1 + math.cos(math.pi * step / up))
    down = (step - up) / (total_steps - 1 - up)
    return end + (s.lr - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, down)))


SCHEDULES: dict[str, Callable[[float, Section], float]] = {
    "cosine_decay": _cosine_decay,
    "linear_decay": _linear_decay,
    "polynomial_decay": _polynomial_decay,
    "exponential_decay": _exponential_decay,
    "step_decay": _step_decay,
    "multi_step_decay": _multi_step_decay,
    "constant": _constant,
    "one_cycle": _constant,  # its shape covers the warm-up too: `learning_rate` asks `_one_cycle`
}


def accumulation_steps(batch_size: int, world_size: int, accumulation: int, global_batch: int | None) -> int:
    """Micro-steps per step; follows from `global_batch_size` where that is given.

    Raises:
        RecipeError: global_batch_size is no multiple of batch_size x processes.
    """
    if global_batch is None:
        return accumulation
    at_once = batch_size * world_size
    if global_batch % at_once:
        fitting = [size for size in range(batch_size, 0, -1) if global_batch % (size * world_size) == 0]
        help = f"batch_size {fitting[0]} fits" if fitting else "choose a multiple of the number of processes"
        message = (
            f"global_batch_size {global_batch} is not a multiple of batch_size {batch_size} x {world_size} processes"
        )
        raise RecipeError([Problem(message, "`global_batch_size`", help)])
    return global_batch // at_once
