"""Where and how to compute, how often to report, and what the folder of the run keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitcli.recipe.schema.key import Finding, Name, Section, key

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


#: optimizers that move each number by itself; others look at the norm, the matrix or the blocks of a whole tensor
OF_SINGLE_NUMBERS = ("adamw", "adam", "nadam", "sgd", "momentum", "nesterov", "rmsprop", "adagrad")


class System(Section):
    distribute: bool | Literal["auto"] = key(
        "auto", "Train with all processes that torchrun started. auto: if there are several.", free=True
    )
    parallel: Literal["ddp", "fsdp"] = key(
        "ddp",
        "How several processes share the training. ddp: each has the whole model; fsdp: each keeps a part of every "
        "parameter, gradient and moment, for models that need more memory than a GPU has.",
        free=True,
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = key(
        "auto", "Where to compute. auto: a GPU if there is one.", free=True
    )
    seed: int = key(42, "Seed of everything random.", ge=0, lt=2**31)
    amp: Literal["off", "auto", "bf16", "fp16", "fp8"] = key(
        "off",
        "Data type of mixed precision. auto: bf16 on a GPU that supports it, fp16 on other GPUs, off on a CPU. "
        "fp8: bf16, but linear layers of blocks multiply 8-bit numbers in training; for GPUs such as L40 and H100.",
    )
    channels_last: bool = key(False, "Memory layout NHWC. Only for GPUs: PyTorch crashes with it on CPUs.")
    compile: bool = key(
        False, "Compile the network with torch.compile, equal blocks once: slower start, faster steps.", free=True
    )
    compile_seconds: float = key(
        300.0, "Time for compiling, about. Parts that are left over run as they are written.", gt=0, free=True
    )
    fast_kernels: bool = key(
        True,
        "On a GPU, time vitcli's Triton kernels for FastViT and PyTorch's at the start, and use the faster ones. Not "
        "with compile or fsdp.",
        free=True,
    )
    deterministic: bool = key(
        False, "Use only deterministic kernels on GPUs. Training on a CPU is always deterministic.", free=True
    )
    val_while_train: bool = key(
        True,
        "Evaluate on the validation split during training. False: only at the end, and the split may be missing.",
        free=True,
    )
    val_interval: int = key(1, "Epochs between two evaluations. The last epoch is always evaluated.", ge=1, free=True)
    dry_run: bool = key(
        False, "Check recipe, data and machine, time some steps, print what a training would do, and stop.", free=True
    )
    log_interval: int = key(100, "Steps between two log lines.", ge=1, free=True)
    sinks: tuple[Name, ...] = key(
        ("tensorboard",),
        "Where numbers and pictures go besides the run's folder: tensorboard, wandb, mlflow, trackio.",
        free=True,
        registry="sinks",
    )

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        opt = recipe.optimizer.opt
        if self.parallel == "fsdp" and opt not in OF_SINGLE_NUMBERS:
            message = f"`opt: {opt}` needs each tensor whole, and `parallel: fsdp` leaves every rank a part of it"
            yield "parallel", message, "use parallel: ddp, or opt: adamw"
        if self.parallel == "fsdp" and recipe.model.quantize != "none":
            yield "parallel", "`parallel: fsdp` does not simulate int8", "use parallel: ddp, or quantize: none"
        if self.parallel == "fsdp" and self.amp == "fp8":
            yield "parallel", "`parallel: fsdp` does not support `amp: fp8`", "use parallel: ddp, or amp: bf16"


class Checkpoint(Section):
    run_dir: Path | None = key(None, "Folder of the run. Default: runs/<recipe>-<time>-<hex>.", free=True)
    resume: str | None = key(
        None, "Continue a run: its folder, or auto for the newest checkpoint in run_dir.", free=True
    )
    ckpt_save_interval: int = key(1, "Epochs between two checkpoints. The last epoch is always saved.", ge=1, free=True)
    ckpt_save_steps: int | None = key(None, "Steps between additional checkpoints. Default: none.", ge=1, free=True)
    ckpt_save_policy: Literal["latest_k", "top_k"] | None = key(
        "latest_k", "Which checkpoints to keep besides the best and the last. null: all.", free=True
    )
    keep_checkpoint_max: int = key(10, "Number of checkpoints that ckpt_save_policy keeps.", ge=1, free=True)
    ckpt_async: bool = key(
        True,
        "Write checkpoints in the background, while training goes on. It takes as much memory of the host as a "
        "checkpoint has bytes.",
        free=True,
    )
    on_save_error: Literal["stop", "warn"] = key(
        "stop",
        "When the disk refuses a checkpoint. stop: end the run with exit code 74. warn: train on, and try again at the "
        "next interval; the last checkpoint must succeed.",
        free=True,
    )

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        if self.ckpt_save_policy == "top_k" and not recipe.system.val_while_train:
            help = "set `val_while_train: true`, or `ckpt_save_policy: latest_k`"
            yield "ckpt_save_policy", "top_k ranks checkpoints by a metric, but nothing is evaluated", help
        if self.resume and recipe.system.dry_run:
            yield "dry_run", "`dry_run` describes a new run, and `resume` is given", "remove one of the two"
        if self.resume == "auto" and self.run_dir is None:
            yield "resume", "`resume: auto` searches run_dir, which is not given", "add --run_dir DIR, or --resume RUN"
