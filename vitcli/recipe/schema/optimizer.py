"""How gradients change the weights: optimizer, weight decay, clipping, accumulation, moving average."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from vitcli.recipe.schema.key import Finding, Name, Probability, Section, key, without_effect

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


class Optimizer(Section):
    opt: Name = key("adamw", "Optimizer.", registry="optimizers")
    weight_decay: float = key(0.05, "Weight decay.", ge=0)
    weight_decay_filter: Literal["disable", "auto", "norm_and_bias"] = key(
        "auto",
        "Parameters without weight decay. auto: biases and all one-dimensional parameters; norm_and_bias: biases and "
        "the weights of norms; disable: none.",
    )
    momentum: float = key(0.9, "Momentum of sgd, momentum, nesterov, rmsprop, lars and muon.", ge=0, lt=1)
    use_nesterov: bool = key(False, "Nesterov momentum of sgd, momentum and lars.")
    lars_trust: float = key(0.001, "LARS: change of a tensor at learning rate 1, relative to its norm.", gt=0)
    lars_exclude: Literal["no_decay", "vectors"] = key(
        "no_decay",
        "LARS: parameters that are neither scaled nor decayed. no_decay: those without weight decay; vectors: all of "
        "one dimension.",
    )
    lars_clip_lr: bool = key(False, "LARS: limit the learning rate of a tensor to lr (LARC).")
    betas: tuple[Probability, Probability] = key((0.9, 0.999), "Decay rates of the moments of Adam and its relatives.")
    layer_decay: float | None = key(
        None, "Ratio of the learning rate of a layer to that of the next layer. null: one rate.", gt=0, le=1
    )
    freeze: Literal["backbone", "all_but_attention"] | tuple[Name, ...] | None = key(
        None,
        "Parameters that do not train. backbone: all but the classifier; all_but_attention; or a list of regular "
        "expressions of parameter names.",
    )
    eps: float | None = key(None, "Term added to the denominator. Default: that of the optimizer.", gt=0)
    clip_grad: bool = key(False, "Clip the joint norm of all gradients.")
    clip_value: float = key(15.0, "Norm above which gradients are scaled down.", gt=0)
    on_nonfinite: Literal["stop", "skip"] = key(
        "stop",
        "A step whose loss or gradients are NaN or infinite never changes the weights. stop: it ends the run; skip: "
        "the run goes on without it; ten in a row end it.",
        free=True,
    )
    gradient_accumulation_steps: int = key(1, "Micro-steps per step.", ge=1, free=True)
    global_batch_size: int | None = key(
        None, "Images per step over all processes; the number of micro-steps follows from it.", ge=1, free=True
    )
    ema: bool = key(False, "Keep an exponential moving average of weights and buffers.")
    ema_decay: float = key(0.9999, "Decay of the average per step.", ge=0, lt=1)
    ema_ramp_steps: int = key(
        2000, "The decay is multiplied by 1 - exp(-step / ema_ramp_steps). 0: it is constant from the start.", ge=0
    )

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        for pattern in self.freeze if isinstance(self.freeze, tuple) else ():
            try:
                re.compile(pattern)
            except re.error as error:
                help = r"for example ['^stem\.', 'norm']"
                yield "freeze", f"{pattern!r} is not a regular expression: {error}", help

    def notes(self, recipe: Recipe) -> Iterator[str]:
        if not self.ema:
            yield from without_effect(recipe, "ema_decay", why=" without `ema: true`: no average is kept")
        if not self.clip_grad:
            yield from without_effect(recipe, "clip_value", why=" without `clip_grad: true`: gradients are not clipped")
        if self.opt != "lars":
            names = ("lars_trust", "lars_exclude", "lars_clip_lr")
            yield from without_effect(recipe, *names, why=" without `opt: lars`")
