"""Where and how to compute, and how often to report."""

from __future__ import annotations

from typing import Literal

from vitcli.recipe.schema.key import Section, key


class System(Section):
    distribute: bool | Literal["auto"] = key(
        "auto", "Train with all processes that torchrun started. auto: if there are several.", free=True
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = key(
        "auto", "Where to compute. auto: a GPU if there is one.", free=True
    )
    seed: int = key(42, "Seed of everything random.", ge=0, lt=2**31)
    amp: Literal["off", "auto", "bf16", "fp16"] = key(
        "off",
        "Data type of mixed precision. auto: bf16 on a GPU that supports it, fp16 on other GPUs, off on a CPU.",
    )
    channels_last: bool = key(False, "Memory layout NHWC. Only for GPUs: PyTorch crashes with it on CPUs.")
    compile: bool = key(False, "Compile model and loss with torch.compile: slower start, faster steps.", free=True)
    deterministic: bool = key(
        False, "Use only deterministic kernels on GPUs. Training on a CPU is always deterministic.", free=True
    )
    val_while_train: bool = key(True, "Evaluate on the validation split during training.", free=True)
    val_interval: int = key(1, "Epochs between two evaluations. The last epoch is always evaluated.", ge=1, free=True)
    log_interval: int = key(100, "Steps between two log lines.", ge=1, free=True)
