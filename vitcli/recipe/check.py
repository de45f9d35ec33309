"""What single values cannot show: keys that contradict each other (problems) or have no effect (notes)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vitcli.errors import Problem
from vitcli.recipe import schema
from vitcli.recipe.augment_policy import check_policy
from vitcli.recipe.names import model_options

#: where a value can come from beside a place in a file
COMMAND_LINE = "command line"
MINDCV_DEFAULT = "MindCV's default"

#: keys that describe the blocks of a plain ViT, so not those of its `transformer`
OF_THE_BLOCKS = (
    "drop_path_rate", "drop_path_mode", "layer_scale_init", "qkv_bias", "attn_scale", "head_dim", "proj_drop_rate",
    "attn_drop_rate", "grad_checkpointing", "layer_decay",
)  # fmt: skip

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


def problems(recipe: Recipe, *, besides: set[str]) -> list[Problem]:
    """Contradictions that stop the run; the keys `besides` have been found wrong already and hold their defaults."""
    if "model" in besides:  # nobody knows which keys an unknown model has
        besides = besides | set(schema.OWN_KEYS)
    found = [finding for rule in PROBLEMS for finding in rule(recipe)]
    return [
        Problem(message, recipe.origins.get(name, f"`{name}`"), help)
        for name, message, help in found
        if name not in besides
    ]


def notes(recipe: Recipe) -> list[str]:
    """What is legal but does nothing, one sentence each."""
    return [sentence for rule in NOTES for sentence in rule(recipe)]


#: key to point at, message, cure
Finding = tuple[str, str, str | None]


def _ranges(recipe: Recipe) -> Iterator[Finding]:
    for name in ("scale", "ratio", "re_scale", "re_ratio", "blur_sigma"):
        low, high = recipe.get(name)
        if low > high:
            yield (
                name,
                f"`{name}` is a range from small to large, not [{low:g}, {high:g}]",
                f"write [{high:g}, {low:g}]",
            )
        elif name in ("scale", "re_scale") and high > 1:
            yield name, f"`{name}` is a share of the image's area, so not above 1", None


def _channels(recipe: Recipe) -> Iterator[Finding]:
    for name in ("mean", "std"):
        given, channels = len(recipe.get(name)), recipe.model.in_channels
        if given not in (1, channels):
            yield name, f"`{name}` has {given} values, but in_channels is {channels}", f"give 1 or {channels} values"


def _policy(recipe: Recipe) -> Iterator[Finding]:
    if recipe.augmentation.auto_augment and (wrong := check_policy(recipe.augmentation.auto_augment)):
        yield "auto_augment", wrong, "for example rand-m9-mstd0.5-inc1, autoaug, trivialaugwide"


def _jitter(recipe: Recipe) -> Iterator[Finding]:
    strengths = recipe.augmentation.color_jitter
    values = strengths if isinstance(strengths, tuple) else (strengths or 0.0,) * 3
    if len(values) not in (3, 4) or min(values) < 0 or max(values[3:], default=0) > 0.5:
        help = "give one number, three (brightness, contrast, saturation), or four with the hue's, at most 0.5"
        yield "color_jitter", f"color_jitter {list(values)} is not understood", help


def _subset(recipe: Recipe) -> Iterator[Finding]:
    names = ("num_samples", "num_samples_per_class", "num_samples_ratio")
    given = [name for name in names if recipe.get(name) is not None]
    for name in given[1:]:
        yield name, f"`{name}` and `{given[0]}` both choose a part of the training split", "give one of them"


def _pretrained(recipe: Recipe) -> Iterator[Finding]:
    if recipe.model.pretrained:
        yield "pretrained", "nothing is downloaded unasked", "set pretrained: false and give the file by ckpt_path"


def _own_keys(recipe: Recipe) -> Iterator[Finding]:
    model, options = recipe.model.model, model_options(recipe.model.model)
    taken = ", ".join(name for name in schema.OWN_KEYS if name in options)
    for name in schema.OWN_KEYS:
        if recipe.get(name) is not None and name not in options:
            yield name, f"{model} has no `{name}`", f"it has {taken}" if taken else "leave it out"


def _schedule(recipe: Recipe) -> Iterator[Finding]:
    s = recipe.scheduler
    around = s.warmup_epochs + s.cooldown_epochs
    if around >= s.epoch_size > 1 and s.warmup_epochs:
        help = "lower warmup_epochs or cooldown_epochs, or raise epoch_size"
        yield (
            "warmup_epochs",
            f"{around:g} epochs of warm-up and cool-down leave nothing of epoch_size {s.epoch_size}",
            help,
        )
    if s.min_lr > s.lr:
        yield "min_lr", f"min_lr {s.min_lr:g} is above lr {s.lr:g}", None
    milestones = s.multi_step_decay_milestones
    if list(milestones) != sorted(milestones):
        yield "multi_step_decay_milestones", "the milestones must grow", None


def _freeze(recipe: Recipe) -> Iterator[Finding]:
    patterns = recipe.optimizer.freeze
    for pattern in patterns if isinstance(patterns, tuple) else ():
        try:
            re.compile(pattern)
        except re.error as error:
            yield "freeze", f"{pattern!r} is no regular expression: {error}", r"for example ['^stem\.', 'norm']"


def _quantize(recipe: Recipe) -> Iterator[Finding]:
    if recipe.model.quantize != "none" and recipe.system.amp in ("bf16", "fp16"):
        message = f"int8 is simulated with float32 numbers, which amp {recipe.system.amp} would round once more"
        yield "amp", message, "set amp: off for this run; the run it starts from may have had any"


def _keep(recipe: Recipe) -> Iterator[Finding]:
    if recipe.checkpoint.ckpt_save_policy == "top_k" and not recipe.system.val_while_train:
        yield "ckpt_save_policy", "top_k needs a metric to rank by", "set val_while_train: true, or latest_k"
    if recipe.checkpoint.resume == "auto" and recipe.checkpoint.run_dir is None:
        yield "resume", "`resume: auto` looks into run_dir, which is not given", "add --run_dir DIR, or --resume RUN"


PROBLEMS: tuple[Callable[[Recipe], Iterator[Finding]], ...] = (
    _ranges,
    _channels,
    _policy,
    _jitter,
    _subset,
    _pretrained,
    _own_keys,
    _schedule,
    _freeze,
    _quantize,
    _keep,
)


def _set(recipe: Recipe, name: str) -> bool:
    """Whether the user (or their file) set the key to something of their own."""
    return recipe.origins.get(name, MINDCV_DEFAULT) != MINDCV_DEFAULT and recipe.get(name) != schema.default(name)


def _no_ema(recipe: Recipe) -> Iterator[str]:
    if _set(recipe, "ema_decay") and not recipe.optimizer.ema:
        yield "`ema_decay` is given but `ema` is off: no average is kept (`--ema True` turns it on)"


def _no_jitter(recipe: Recipe) -> Iterator[str]:
    a = recipe.augmentation
    if _set(recipe, "color_jitter") and a.color_jitter and a.auto_augment and "3a" not in a.auto_augment:
        yield "`color_jitter` has no effect beside `auto_augment`"


def _no_view(recipe: Recipe) -> Iterator[str]:
    """An operation's settings without the operation."""
    needed = {"color_jitter_prob": "color_jitter", "blur_sigma": "blur_prob", "solarize_threshold": "solarize_prob"}
    for name, switch in needed.items():
        if _set(recipe, name) and not recipe.get(switch):
            yield f"`{name}` has no effect without `{switch}`"


def _no_clip(recipe: Recipe) -> Iterator[str]:
    if _set(recipe, "clip_value") and not recipe.optimizer.clip_grad:
        yield "`clip_value` is given but `clip_grad` is off: gradients are not clipped"


def _no_mixing(recipe: Recipe) -> Iterator[str]:
    a = recipe.augmentation
    if not (a.mixup or a.cutmix) and any(
        _set(recipe, name) for name in ("cutmix_prob", "mixup_switch_prob", "mixup_off_epoch")
    ):
        yield "mixup and cutmix are both 0: images are not mixed"


def _no_crop(recipe: Recipe) -> Iterator[str]:
    ignored = [name for name in ("scale", "ratio") if _set(recipe, name)]
    if recipe.augmentation.train_crop == "padded" and ignored:
        yield f"{', '.join(f'`{name}`' for name in ignored)} has no effect with `train_crop: padded`"


def _no_bce(recipe: Recipe) -> Iterator[str]:
    ignored = [name for name in ("bce_target_thresh", "bce_sum") if _set(recipe, name)]
    if recipe.loss.loss != "BCE" and ignored:
        yield f"{', '.join(f'`{name}`' for name in ignored)} has no effect without `loss: BCE`"


def _long_decay(recipe: Recipe) -> Iterator[str]:
    s = recipe.scheduler
    before = s.warmup_epochs if s.warmup_prefix else 0
    if s.decay_epochs and s.num_cycles == 1 and before + s.decay_epochs > s.epoch_size:
        length = f"({before} + {s.decay_epochs})"
        yield f"warm-up and decay_epochs {length} are longer than epoch_size {s.epoch_size}: min_lr is not reached"


def _own_shape(recipe: Recipe) -> Iterator[str]:
    ignored = [name for name in ("warmup_epochs", "min_lr", "decay_epochs", "cooldown_epochs") if _set(recipe, name)]
    if recipe.scheduler.scheduler == "one_cycle" and ignored:
        yield f"one_cycle has its own warm-up and floor: {', '.join(f'`{name}`' for name in ignored)} has no effect"


def _no_scaling(recipe: Recipe) -> Iterator[str]:
    if _set(recipe, "lr_scale") and recipe.scheduler.lr_base_batch is None:
        yield "`lr_scale` has no effect without `lr_base_batch`: lr is used as it stands"


def _other_blocks(recipe: Recipe) -> Iterator[str]:
    ignored = [name for name in OF_THE_BLOCKS if _set(recipe, name)]
    if recipe.model.transformer and ignored:
        yield f"`transformer` brings its own blocks: {', '.join(f'`{name}`' for name in ignored)} has no effect"


NOTES: tuple[Callable[[Recipe], Iterator[str]], ...] = (
    _no_ema,
    _no_jitter,
    _no_view,
    _no_clip,
    _no_mixing,
    _no_crop,
    _no_bce,
    _long_decay,
    _own_shape,
    _no_scaling,
    _other_blocks,
)


def launch(recipe: Recipe, num_processes: int) -> tuple[list[Problem], list[str]]:
    """What `distribute` says against the number of processes torchrun started: problems and notes.

    MindCV's files say False while its README starts eight processes, so there it is a note; elsewhere a mistake.
    """
    said = recipe.system.distribute
    if said == "auto" or said == (num_processes > 1):
        return [], []
    started = f"torchrun started {num_processes} processes" if num_processes > 1 else "only one process was started"
    message = f"`distribute` is {said}, but {started}"
    place = recipe.origins.get("distribute", "`distribute`")
    if recipe.from_mindcv and place != COMMAND_LINE:
        return [], [f"{message}: training with {num_processes} process{'es' if num_processes > 1 else ''}"]
    cure = "start with torchrun --nproc_per_node N" if said else "start without torchrun"
    return [Problem(message, place, f"{cure}, or say --distribute auto")], []
