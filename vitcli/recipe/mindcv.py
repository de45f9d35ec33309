"""MindCV's recipe keys: what they become if they have another name here, or a meaning in MindSpore only.

Every such key is accepted, and one line says what became of it. A file with such a key counts as a MindCV recipe: keys
that it does not set then have MindCV's defaults instead of ours, so that it means the same here as there.
"""

from collections.abc import Callable
from typing import Any

#: what a foreign key becomes: our keys with their values, and the sentence that reports it
Translation = tuple[dict[str, Any], str]


def _amp(level: Any) -> Translation:
    if str(level) == "O0":
        return {"amp": "off"}, "became amp: off"
    return {"amp": "auto"}, "became amp: auto (bf16, or fp16 on a GPU without it; norms and loss in fp32)"


def _filter(value: Any) -> Translation:
    chosen = "norm_and_bias" if value else "disable"
    return {"weight_decay_filter": chosen}, f"became weight_decay_filter: {chosen}"


def _device(target: Any) -> Translation:
    device = {"ascend": "auto", "gpu": "cuda", "cpu": "cpu"}.get(str(target).lower(), "auto")
    return {"device": device}, f"became device: {device}"


def _nothing(reason: str) -> Callable[[Any], Translation]:
    return lambda value: ({}, f"has no meaning here: {reason}")


def _only(harmless: Any, otherwise: str) -> Callable[[Any], Translation]:
    """A feature that vitcli does not have: off is accepted as it is, any other value is reported as ignored."""
    return lambda value: ({}, "is off, as it is here" if value in (harmless, None) else f"is ignored: {otherwise}")


_PREFETCH = _nothing("batches are prefetched and copied asynchronously")
_SCALER = _nothing("fp16 always uses PyTorch's dynamic loss scaler, bf16 and fp32 need none")
_CLOUD = _nothing("it belongs to a cloud service")

TRANSLATIONS: dict[str, Callable[[Any], Translation]] = {
    "mode": _nothing("PyTorch runs eagerly; `--compile True` comes closest to MindSpore's graph mode"),
    "dataset_sink_mode": _PREFETCH,
    "dataset_sink_size": _PREFETCH,
    "max_call_depth": _nothing("it bounds MindSpore's graph compiler"),
    "device_target": _device,
    "amp_level": _amp,
    "val_amp_level": _nothing("evaluation uses the same amp as training"),
    "amp_cast_list": _only("", "autocast chooses the operations"),
    "loss_scale_type": _SCALER,
    "loss_scale": _SCALER,
    "dynamic_loss_scale": _SCALER,
    "drop_overflow_update": _nothing("a step with infinite gradients is always dropped"),
    "filter_bias_and_bn": _filter,
    "ckpt_save_dir": _nothing("checkpoints are in the folder of the run; `--run_dir` sets it"),
    "resume_opt": _only(False, "`--resume auto` or `--resume RUN` continues a run exactly"),
    "aux_factor": _only(0.0, "no model here has an auxiliary classifier"),
    "aug_splits": _only(0, "augmentation splits are not implemented"),
    "eval_shuffle": _only(False, "evaluation is never shuffled"),
    "enable_modelarts": _CLOUD,
    "multi_data_url": _CLOUD,
    "data_url": _CLOUD,
    "ckpt_url": _CLOUD,
    "train_url": _CLOUD,
}

#: MindCV's defaults where they differ from ours (mindcv config.py)
DEFAULTS: dict[str, Any] = {
    "amp": "off",
    "dataset": "imagefolder",
    "val_while_train": False,
    "interpolation": "bilinear",
    "ratio": (0.75, 1.333),
    "color_jitter": 0.4,
    "ema_decay": 0.9999,
    "opt": "adam",
    "weight_decay": 1e-6,
    "weight_decay_filter": "disable",
    "min_lr": 1e-6,
    "warmup_epochs": 3,
    "decay_epochs": 100,
}

#: values that MindCV writes differently: (key, MindCV's value) -> ours
VALUES: dict[tuple[str, Any], Any] = {
    ("dataset", "imagenet"): "imagefolder",
    ("dataset", ""): "imagefolder",
    ("scheduler", "warmup_cosine_decay"): "cosine_decay",
    ("scheduler", "cosine_annealing_lr"): "cosine_decay",
    ("auto_augment", ""): None,
    ("ckpt_save_policy", "None"): None,
    ("ckpt_save_policy", ""): None,
    ("ckpt_path", ""): None,
    ("data_dir", ""): None,
}
