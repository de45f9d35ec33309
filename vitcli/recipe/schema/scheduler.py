"""How long training lasts, and the learning rate at each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from vitcli.recipe.schema.key import Finding, Name, Section, key, without_effect

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


class Scheduler(Section):
    epoch_size: int = key(90, "Number of epochs.", ge=1, le=1_000_000)
    early_stopping_epochs: int | None = key(
        None,
        "End the run when the number that chooses the best checkpoint has not improved for this many epochs. "
        "Default: train epoch_size epochs.",
        ge=1,
        free=True,
    )
    scheduler: Name = key("cosine_decay", "Shape of the learning rate.", registry="schedules")
    lr: float = key(1e-3, "Peak learning rate; with lr_base_batch, the rate for that global batch.", gt=0)
    lr_base_batch: int | None = key(
        None, "Global batch that lr is meant for; lr is scaled to the real one. Default: lr is not scaled.", ge=1
    )
    lr_scale: Literal["linear", "sqrt", "none"] = key("linear", "Rule that scales lr from lr_base_batch.")
    min_lr: float = key(0.0, "Lower bound of the learning rate.", ge=0)
    warmup_epochs: float = key(0, "Epochs of linear warm-up. May be a fraction, such as 0.5.", ge=0)
    warmup_factor: float = key(0.0, "The warm-up starts at lr x warmup_factor.", ge=0)
    warmup_lr: float | None = key(None, "The warm-up starts at this rate. Default: see warmup_factor.", ge=0)
    warmup_prefix: bool = key(
        True, "True: the decay starts after the warm-up. False: the warm-up replaces the start of the decay (timm)."
    )
    decay_epochs: int | None = key(
        None, "Epochs of the decay; the rate then stays at min_lr. Default: all epochs that are left.", ge=1
    )
    cooldown_epochs: int = key(0, "Number of last epochs at min_lr; they count in epoch_size.", ge=0)
    decay_rate: float = key(
        0.9, "Factor of step, multi-step and exponential decay; exponent of polynomial decay.", gt=0
    )
    multi_step_decay_milestones: tuple[int, ...] = key((30, 60, 90), "Epochs of the steps of multi_step_decay.")
    num_cycles: int = key(1, "Number of cosine cycles, each decay_epochs long.", ge=1)
    cycle_decay: float = key(1.0, "Factor of the peak rate from one cosine cycle to the next.", gt=0, le=1)
    lr_epoch_stair: bool = key(False, "Change the rate once per epoch instead of at every step.")

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        around = self.warmup_epochs + self.cooldown_epochs
        if around >= self.epoch_size > 1 and self.warmup_epochs:
            message = f"{around:g} epochs of warm-up and cool-down leave nothing of epoch_size {self.epoch_size}"
            yield "warmup_epochs", message, "lower warmup_epochs or cooldown_epochs, or raise epoch_size"
        if self.min_lr > self.lr:
            yield "min_lr", f"min_lr {self.min_lr:g} is above lr {self.lr:g}", "lower min_lr, or raise lr"
        if self.early_stopping_epochs and not recipe.system.val_while_train:
            message = "`early_stopping_epochs` waits for an improvement, but nothing is evaluated"
            yield "early_stopping_epochs", message, "set `val_while_train: true`, or remove early_stopping_epochs"
        milestones = list(self.multi_step_decay_milestones)
        if milestones != sorted(milestones):
            help = f"write {sorted(milestones)}"
            yield "multi_step_decay_milestones", "the milestones must be in increasing order", help

    def notes(self, recipe: Recipe) -> Iterator[str]:
        if self.early_stopping_epochs and self.early_stopping_epochs >= self.epoch_size:
            yield from without_effect(recipe, "early_stopping_epochs", why=f" in {self.epoch_size} epochs")
        before = self.warmup_epochs if self.warmup_prefix else 0
        if self.decay_epochs and self.num_cycles == 1 and before + self.decay_epochs > self.epoch_size:
            length = f"({before:g} + {self.decay_epochs})"
            yield f"warm-up and decay_epochs {length} exceed epoch_size {self.epoch_size}: min_lr is not reached"
        if self.scheduler == "one_cycle":
            names = ("warmup_epochs", "min_lr", "decay_epochs", "cooldown_epochs")
            yield from without_effect(recipe, *names, why=": one_cycle has its own warm-up and lower bound")
        if self.epoch_size == 1 and self.warmup_epochs >= 1:
            yield "the warm-up lasts the whole run: `lr` is never reached"
        starts_at_zero = not (self.warmup_factor if self.warmup_lr is None else self.warmup_lr)
        if self.lr_epoch_stair and self.warmup_epochs and starts_at_zero and self.scheduler != "one_cycle":
            yield "`lr_epoch_stair`: the whole first epoch has the rate 0, where the warm-up starts; set warmup_lr"
        if self.lr_base_batch is None:
            yield from without_effect(recipe, "lr_scale", why=" without `lr_base_batch`: lr is used as given")
