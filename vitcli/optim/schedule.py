"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math

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
    if section.lr_scale == "sqrt":
        shown = f"sqrt({shown})"
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
    return factor * max(section.min_lr, _decayed(since, section))


def _decayed(epoch: float, s: Section) -> float:
    """The rate `epoch` epochs after the start of the decay."""
    warmup = s.warmup_epochs if s.warmup_prefix else 0
    length = s.decay_epochs or max(1, s.epoch_size - warmup - s.cooldown_epochs) / s.num_cycles
    left = max(0.0, 1 - epoch / length)
    match s.scheduler:
        case "cosine_decay":  # half a cosine from lr to min_lr, `num_cycles` times (SGDR, arXiv 1608.03983)
            cycle, since = divmod(epoch, length)
            if cycle >= s.num_cycles:
                return s.min_lr
            peak = s.lr * s.cycle_decay**cycle
            return s.min_lr + (peak - s.min_lr) * 0.5 * (1 + math.cos(math.pi * since / length))
        case "linear_decay":
            return s.min_lr + (s.lr - s.min_lr) * left
        case "polynomial_decay":  # the power is `decay_rate`, as in MindCV
            return s.min_lr + (s.lr - s.min_lr) * left**s.decay_rate
        case "exponential_decay":  # x decay_rate each epoch, smoothly
            return s.lr * s.decay_rate**epoch
        case "step_decay":  # x decay_rate at every multiple of decay_epochs
            return s.lr * s.decay_rate ** (epoch // length)
        case "multi_step_decay":  # milestones count from the start of training when the warm-up is inside
            return s.lr * s.decay_rate ** sum(epoch >= milestone for milestone in s.multi_step_decay_milestones)
        case "constant":
            return s.lr
    raise ValueError(f"there is no schedule {s.scheduler}")


def _one_cycle(step: float, total_steps: int, s: Section) -> float:
    """Cosine up to lr over 30 % of all steps, cosine down to lr / 250,000 (arXiv 1708.07120, torch's OneCycleLR)."""
    up, start, end = 0.3 * total_steps - 1, s.lr / 25, s.lr / 25e4
    if step <= up:
        return s.lr + (start - s.lr) * 0.5 * (1 + math.cos(math.pi * step / up))
    down = (step - up) / (total_steps - 1 - up)
    return end + (s.lr - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, down)))


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
