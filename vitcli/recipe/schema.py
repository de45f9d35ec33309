"""Every key a recipe may hold: its type, range, unit, default and one sentence of help. The names are MindCV's.

In a file the keys are flat; in code they are grouped: `recipe.dataset.batch_size`, `recipe.optimizer.weight_decay`.
This module does not import torch, so that a recipe is checked in a few milliseconds.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Positive, Positive]
Name = Annotated[str, StringConstraints(min_length=1)]
#: a path or an address
PathOrAddress = Annotated[Name, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]


def key(
    default: Any, help: str, *, free: bool = False, registry: str | None = None, own: bool = False, **limits: Any
) -> Any:
    """A recipe key. `free`: may change when a run is resumed. `registry`: the value must be a name declared there.

    `own`: an argument of some models only, under the name it has in their `create`; None: the model's own default.
    """
    noted = {"free": free, "registry": registry, "own": own}
    return Field(default, description=help, json_schema_extra=noted, **limits)


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, allow_inf_nan=False, protected_namespaces=(), validate_default=False
    )


class System(Section):
    distribute: bool | Literal["auto"] = key(
        "auto", "Train with all processes torchrun started; auto: when there are several.", free=True
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = key(
        "auto", "Where to compute; auto: a GPU when there is one.", free=True
    )
    seed: int = key(42, "Everything random follows from this number.", ge=0, lt=2**31)
    amp: Literal["off", "auto", "bf16", "fp16"] = key(
        "off", "Data type of mixed precision; auto: bf16 on a GPU that has it, fp16 on another, off on a CPU."
    )
    channels_last: bool = key(False, "Memory layout NHWC; on GPUs only (PyTorch crashes with it on CPUs).")
    compile: bool = key(False, "Compile model and loss by torch.compile: slower start, faster steps.", free=True)
    deterministic: bool = key(False, "Only deterministic kernels on GPUs (CPU training always is).", free=True)
    val_while_train: bool = key(True, "Evaluate on the validation split while training.", free=True)
    val_interval: int = key(1, "Epochs between two evaluations; the last epoch is always evaluated.", ge=1, free=True)
    log_interval: int = key(100, "Steps between two log lines.", ge=1, free=True)


class Dataset(Section):
    dataset: Name = key("imagefolder", "Kind of data set.", registry="datasets")
    data_dir: Path | None = key(
        None, "Folder of the data: train/CLASS/… and val/CLASS/… for an image folder.", free=True
    )
    train_split: Name = key("train", "Folder or name of the training split.")
    val_split: Name = key("val", "Folder or name of the validation split (`validation` is found too).")
    dataset_download: bool = key(False, "Download the data set into data_dir (torchvision's sets only).", free=True)
    num_samples: int | None = key(None, "Use only so many images of the training split.", ge=1)
    batch_size: int = key(128, "Images per process and micro-step.", ge=1, free=True)
    val_batch_size: int | None = key(
        None, "Images per process in evaluation; the default is batch_size.", ge=1, free=True
    )
    shuffle: bool = key(True, "Shuffle the training split in each epoch.")
    drop_remainder: bool = key(True, "Leave out the last, incomplete global batch of an epoch.")
    num_parallel_workers: int | None = key(
        None, "Decoding processes per training process; default: by the cores.", ge=0, free=True
    )
    on_bad_image: Literal["fail", "skip"] = key(
        "fail", "An unreadable training image stops the run, or is replaced and counted."
    )
    max_bad_ratio: Probability = key(
        0.001, "With on_bad_image skip: the share of bad images that stops the run.", free=True
    )
    max_image_pixels: int = key(
        178_956_970,
        "An image of more pixels counts as unreadable (decompression bombs).",
        ge=1,
        le=178_956_970,
        free=True,
    )


class Augmentation(Section):
    image_resize: int = key(224, "Side of the network's input in pixels.", ge=8, le=8192)
    train_crop: Literal["random_resized", "padded"] = key(
        "random_resized",
        "Any part of the image (see scale, ratio), or a square of it with 4 reflected pixels around (CIFAR, DeiT III).",
    )
    scale: Range = key((0.08, 1.0), "Area of the random crop as a share of the image.")
    ratio: Range = key((3 / 4, 4 / 3), "Aspect ratio of the random crop.")
    hflip: Probability = key(0.5, "Probability of a horizontal flip.")
    vflip: Probability = key(0.0, "Probability of a vertical flip.")
    color_jitter: float | tuple[float, ...] | None = key(
        None, "Strength of brightness, contrast and saturation jitter; not with auto_augment."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "random"] = key(
        "bicubic", "Interpolation of crop, resize and augmentation."
    )
    auto_augment: str | None = key(None, "Policy, such as rand-m9-mstd0.5-inc1, autoaug, trivialaugwide.")
    aug_repeats: int = key(
        0,
        "Each image comes so often in a batch, differently augmented; an epoch is no longer by it. 0: once.",
        ge=0,
    )
    re_prob: Probability = key(0.0, "Probability of random erasing.")
    re_mode: Literal["const", "rand", "pixel"] = key(
        "const", "Fill of the erased box: re_value, one random color, or noise per pixel."
    )
    re_value: float = key(0.0, "Fill of const erasing, after normalization (0: the mean color).")
    re_scale: Range = key((0.02, 0.33), "Area of the erased box as a share of the image.")
    re_ratio: Range = key((0.3, 3.3), "Aspect ratio of the erased box.")
    re_max_attempts: int = key(10, "Attempts to find a box that fits.", ge=1)
    mixup: float = key(0.0, "Alpha of mixup's beta distribution; 0: off.", ge=0)
    cutmix: float = key(0.0, "Alpha of cutmix's beta distribution; 0: off.", ge=0)
    cutmix_prob: Probability = key(1.0, "Probability that a batch is mixed at all.")
    mixup_switch_prob: Probability = key(0.5, "Probability of cutmix when both are on.")
    mixup_off_epoch: int = key(0, "Stop mixing from this epoch on; 0: never.", ge=0)
    crop_pct: float = key(0.875, "Evaluation: share of the resized image that the center crop keeps.", ge=0.1, le=1)
    mean: tuple[float, ...] = key((0.485, 0.456, 0.406), "Mean of each channel, in units of the full range.")
    std: tuple[Positive, ...] = key((0.229, 0.224, 0.225), "Standard deviation of each channel.")


class Model(Section):
    model: Name = key("fastvit_t8", "Architecture.", registry="models")
    num_classes: int | None = key(None, "Number of classes; the default follows from the data.", ge=1)
    in_channels: Literal[1, 3] = key(3, "Channels of the input image: 3 (color) or 1 (gray).")
    drop_rate: Probability = key(0.0, "Dropout.")
    drop_path_rate: Probability = key(0.0, "Stochastic depth: rate of the last block, growing linearly from 0.")
    layer_scale_init: float | None = key(None, "Initial layer scale; the default is the variant's.", gt=0)
    grad_checkpointing: bool = key(
        False, "Recompute activations in the backward pass: less memory, more time.", free=True
    )
    quantize: Literal["none", "int8_qat"] = key(
        "none",
        "int8_qat: fine-tune ckpt_path for an int8 deployment, whose arithmetic training and evaluation simulate; "
        "`vitcli validate --quantize none` measures the float network of such a run.",
    )
    pretrained: bool = key(False, "Not supported: nothing is downloaded unasked; give ckpt_path.")
    ckpt_path: PathOrAddress | None = key(
        None,
        "Start from these weights: a run, a checkpoint, a file (.safetensors, .pth, .npz, .ckpt), https://…, "
        "hf-hub:org/name[/file][@revision], or timm:name.",
        free=True,
    )
    reset_head: bool = key(False, "Start with a new classifier even where the one in ckpt_path would fit.")
    pos_resample: Literal["timm", "torchvision", "jax"] = key(
        "timm", "Whose rule resizes the position embeddings in ckpt_path where the image or patch size differs."
    )

    # of some models only
    embed_dim: int | None = key(None, "Width of the tokens.", own=True, ge=1)
    depth: int | None = key(None, "Number of blocks.", own=True, ge=1)
    num_heads: int | None = key(None, "Attention heads of a block.", own=True, ge=1)
    mlp_ratio: float | None = key(None, "Hidden width of a block's MLP / embed_dim.", own=True, gt=0)
    patch_size: int | None = key(None, "Side of a patch in pixels.", own=True, ge=1)
    grid_size: int | None = key(None, "Patches along a side of the image.", own=True, ge=1)
    patch_embed: Literal["linear", "conv", "spt", "hmlp"] | None = key(
        None, "From patches to tokens: one layer, a stem of convolutions, shifted patches, or hMLP.", own=True
    )
    patch_norm: bool | None = key(None, "LayerNorm before and after a linear patch embedding.", own=True)
    pos_embed: Literal["learned", "sincos2d", "none"] | None = key(None, "Position embeddings.", own=True)
    global_pool: Literal["token", "avg"] | None = key(
        None, "What the head sees: the class token, or the mean of the patches.", own=True
    )
    class_token: bool | None = key(None, "A class token; by default with global_pool token only.", own=True)
    distilled: bool | None = key(None, "A distillation token with a head of its own (DeiT).", own=True)
    reg_tokens: int | None = key(None, "Number of register tokens.", own=True, ge=0)
    qkv_bias: bool | None = key(None, "Bias of queries, keys and values.", own=True)
    attn_scale: Literal["head", "full", "learned"] | None = key(
        None, "Scale of the scores: by the head's width, the full width, or learned without self-attention (LSA).",
        own=True,
    )  # fmt: skip
    head_dim: int | None = key(None, "Width of a head, where it is not embed_dim / num_heads.", own=True, ge=1)
    norm_eps: float | None = key(None, "Epsilon of the LayerNorms.", own=True, gt=0)
    final_norm: bool | None = key(None, "LayerNorm behind the last block.", own=True)
    pre_logits: int | None = key(None, "Width of a tanh layer before the head; 0: none.", own=True, ge=0)
    head_hidden: int | None = key(None, "Hidden width of a head of two layers; 0: one layer.", own=True, ge=0)
    head_bias_init: float | None = key(
        None, "First value of the head's bias (BCE: about -log of the classes).", own=True
    )
    fine_tune_from: int | None = key(
        None, "Keep a classifier of so many classes, with a linear layer from its logits to the data's.", own=True, ge=1
    )  # fmt: skip
    pos_drop_rate: Probability | None = key(None, "Dropout behind the position embeddings.", own=True)
    proj_drop_rate: Probability | None = key(None, "Dropout behind each linear layer of a block but qkv.", own=True)
    attn_drop_rate: Probability | None = key(None, "Dropout of the attention weights.", own=True)
    drop_path_mode: Literal["zero", "skip"] | None = key(
        None, "A dropped branch is computed and zeroed, or not computed at all.", own=True
    )
    patch_drop_rate: float | None = key(None, "Share of the patches that training leaves out.", own=True, ge=0, lt=1)
    patch_drop_mode: Literal["drop", "zero"] | None = key(
        None, "Lost patches are removed, which is faster, or zeroed.", own=True
    )
    transformer: Name | None = key(
        None, "Blocks of another kind, such as linformer, or a plugin's.", own=True, registry="transformers"
    )


class Loss(Section):
    loss: Literal["CE", "BCE"] = key("CE", "Cross entropy, or binary cross entropy per class.")
    label_smoothing: float = key(0.0, "Share of the target that is spread over all classes.", ge=0, lt=1)
    bce_target_thresh: Probability | None = key(
        None, "BCE: targets above it become 1, all others 0, after mixing and smoothing; null: as they are."
    )
    bce_sum: bool = key(False, "BCE: the sum over the classes instead of their mean.")
    reduction: Literal["mean"] = key("mean", "The loss is the mean over the batch.")


class Scheduler(Section):
    epoch_size: int = key(90, "Number of epochs to train.", ge=1, le=1_000_000)
    scheduler: Name = key("cosine_decay", "Shape of the learning rate.", registry="schedules")
    lr: float = key(1e-3, "Peak learning rate (for lr_base_batch images where that is given).", gt=0)
    lr_base_batch: int | None = key(
        None, "Global batch that lr belongs to; the rate is scaled to the real one. Default: lr as it stands.", ge=1
    )
    lr_scale: Literal["linear", "sqrt", "none"] = key("linear", "Rule of that scaling.")
    min_lr: float = key(0.0, "Floor of the learning rate.", ge=0)
    warmup_epochs: float = key(0, "Epochs of linear warm-up; 0.5 is half an epoch.", ge=0)
    warmup_factor: float = key(0.0, "The warm-up starts at lr x warmup_factor.", ge=0)
    warmup_lr: float | None = key(None, "The warm-up starts at this rate instead.", ge=0)
    warmup_prefix: bool = key(
        True, "The decay starts after the warm-up; False: the warm-up hides its beginning (timm)."
    )
    decay_epochs: int | None = key(
        None, "Epochs of the decay; the rest stays at the floor. Default: all that is left.", ge=1
    )
    cooldown_epochs: int = key(0, "The last epochs stay at the floor (counted in epoch_size).", ge=0)
    decay_rate: float = key(0.9, "Factor of step, multi-step and exponential decay; power of the polynomial.", gt=0)
    multi_step_decay_milestones: tuple[int, ...] = key((30, 60, 90), "Epochs of multi_step_decay's steps.")
    num_cycles: int = key(1, "Number of cosine cycles, each decay_epochs long.", ge=1)
    cycle_decay: float = key(1.0, "Factor of the peak from one cosine cycle to the next.", gt=0, le=1)
    lr_epoch_stair: bool = key(False, "Change the rate once an epoch instead of at every step.")


class Optimizer(Section):
    opt: Name = key("adamw", "Optimizer.", registry="optimizers")
    weight_decay: float = key(0.05, "Weight decay.", ge=0)
    weight_decay_filter: Literal["disable", "auto", "norm_and_bias"] = key(
        "auto", "Parameters spared from decay. auto: biases and all of one dimension; disable: none spared."
    )
    momentum: float = key(0.9, "Momentum of sgd, momentum, nesterov, rmsprop, lars, muon.", ge=0, lt=1)
    use_nesterov: bool = key(False, "Nesterov momentum of sgd, momentum, lars.")
    lars_trust: float = key(
        0.001, "LARS: trust coefficient, the change of a tensor at lr 1 relative to its norm.", gt=0
    )
    lars_exclude: Literal["no_decay", "vectors"] = key(
        "no_decay",
        "LARS: neither scaled nor decayed. no_decay: parameters without weight decay; vectors: all of one dimension.",
    )
    lars_clip_lr: bool = key(False, "LARS: limit the rate of a tensor to lr (LARC).")
    betas: tuple[Probability, Probability] = key(
        (0.9, 0.999), "Decay rates of the moments of adam, adamw, nadam, lamb, and of what muon leaves to adamw."
    )
    layer_decay: float | None = key(
        None, "The learning rate of a layer is this times that of the layer above it; null: one rate.", gt=0, le=1
    )
    freeze: Literal["backbone", "all_but_attention"] | tuple[Name, ...] | None = key(
        None, "What does not train: all but the classifier, all but attention, or a list of regexes of parameter names."
    )
    eps: float | None = key(None, "Term added to the denominator; the default is the optimizer's.", gt=0)
    clip_grad: bool = key(False, "Clip the norm of all gradients together.")
    clip_value: float = key(15.0, "Norm above which gradients are scaled down.", gt=0)
    gradient_accumulation_steps: int = key(1, "Micro-steps per step.", ge=1, free=True)
    global_batch_size: int | None = key(
        None, "Images per step over all processes; accumulation follows from it.", ge=1, free=True
    )
    ema: bool = key(False, "Keep an exponential moving average of weights and buffers.")
    ema_decay: float = key(0.9999, "Decay of the average per step.", ge=0, lt=1)
    ema_ramp_steps: int = key(2000, "The decay grows as 1 - exp(-step / this); 0: constant from the start.", ge=0)


class Checkpoint(Section):
    run_dir: Path | None = key(None, "Folder of the run. Default: runs/<recipe>-<time>-<hex>.", free=True)
    resume: str | None = key(
        None, "Continue a run: its folder, or auto for the newest checkpoint in run_dir.", free=True
    )
    ckpt_save_interval: int = key(1, "Epochs between two checkpoints; the last epoch is always saved.", ge=1, free=True)
    ckpt_save_steps: int | None = key(None, "Also save every so many steps.", ge=1, free=True)
    ckpt_save_policy: Literal["latest_k", "top_k"] | None = key(
        "latest_k", "Which checkpoints are kept beside the best and the last; null: all.", free=True
    )
    keep_checkpoint_max: int = key(10, "How many checkpoints the policy keeps.", ge=1, free=True)


SECTIONS: dict[str, type[Section]] = {
    "system": System,
    "dataset": Dataset,
    "augmentation": Augmentation,
    "model": Model,
    "loss": Loss,
    "scheduler": Scheduler,
    "optimizer": Optimizer,
    "checkpoint": Checkpoint,
}

#: flat key -> name of its section
SECTION_OF: dict[str, str] = {name: section for section, fields in SECTIONS.items() for name in fields.model_fields}


def extra(name: str) -> dict[str, Any]:
    """What `key` noted of the key `name`: {"free": bool, "registry": str | None, "own": bool}."""
    noted = SECTIONS[SECTION_OF[name]].model_fields[name].json_schema_extra
    assert isinstance(noted, dict)
    return noted


def default(name: str) -> Any:
    """The schema's default of the key `name`."""
    return SECTIONS[SECTION_OF[name]].model_fields[name].default


#: the keys that only some models have
OWN_KEYS: tuple[str, ...] = tuple(name for name in SECTION_OF if extra(name)["own"])
