"""What the phases of gpu.py measure with: networks, training steps, short runs, and time."""

import copy
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

Step = Callable[[], None]

#: our name, timm's, px
NETWORKS = [
    ("fastvit_t8", "fastvit_t8", 256),
    ("fastvit_sa12", "fastvit_sa12", 256),
    ("vit_s_patch16", "vit_small_patch16_224", 224),
    ("vit_s_patch32", "vit_small_patch32_224", 224),
]


@dataclass(frozen=True)
class Scale:
    """How much is measured: all of it on a GPU, as little as possible on a CPU, to try the script itself."""

    device: torch.device
    batch: int = 256
    rounds: int = 5
    steps: int = 10  #: of a round
    px: int | None = None  #: instead of each network's own
    networks: int = len(NETWORKS)


def gpu_kernels() -> Callable[[nn.Module], nn.Module] | None:
    """Replaces layers of a network by Triton kernels, in place; None: this version has none, or Triton is missing."""
    try:
        from vitcli.layers.gpu import has_triton, use_gpu_kernels
    except ImportError:
        return None
    return use_gpu_kernels if has_triton() else None


def same_networks(ours: str, theirs: str, px: int) -> tuple[nn.Module, nn.Module]:
    """timm's network and ours, with the same weights."""
    import timm

    from vitcli.models.registry import create_model

    size = {"img_size": px} if ours.startswith("vit_") else {}
    timms, own = timm.create_model(theirs, **size), create_model(ours, **size)
    own.load_state_dict(timms.state_dict())
    return timms, own


def as_pixels(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=torch.channels_last)


def by_turns(candidates: dict[str, nn.Module], scale: Scale, px: int) -> dict[str, float]:
    """Median images per second of each network's training step."""
    steps = {name: training_step(network, scale, scale.px or px) for name, network in candidates.items()}
    for take_step in steps.values():
        for _ in range(min(3, scale.steps)):
            take_step()
    rounds = [{name: timed(take_step, scale) for name, take_step in steps.items()} for _ in range(scale.rounds)]
    return {name: round(scale.batch / statistics.median(r[name] for r in rounds), 1) for name in steps}


def training_step(network: nn.Module, scale: Scale, px: int) -> Step:
    """Forward, loss, backward and fused AdamW, in bf16 on a GPU, in the memory layout of the network."""
    network = network.to(scale.device).train()
    images = torch.randn(scale.batch, 3, px, px, device=scale.device)
    if any(p.ndim == 4 and not p.is_contiguous() for p in network.parameters()):
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (scale.batch,), device=scale.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

    def take_step() -> None:
        with torch.autocast(scale.device.type, torch.bfloat16, enabled=scale.device.type == "cuda"):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return take_step


def timed(run: Callable[[], object], scale: Scale) -> float:
    """Seconds of one call, the mean of a round."""
    run()
    wait(scale.device)
    start = time.perf_counter()
    for _ in range(scale.steps):
        run()
    wait(scale.device)
    return (time.perf_counter() - start) / scale.steps


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def own_optimizer(opt: str, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    from vitcli.optim.optimizers import build_optimizer
    from vitcli.optim.param_groups import param_groups
    from vitcli.recipe.schema import Optimizer

    groups = param_groups(network, weight_decay=0.05, weight_decay_filter="auto")
    return build_optimizer(Optimizer(opt=opt), groups, device, network)


def count_reads(run: Callable[[], object], device: torch.device) -> int:
    """How many warnings `torch.cuda.set_sync_debug_mode` gives."""
    if device.type != "cuda":
        run()
        return 0
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in found)


def picture_folder(folder: Path, num: int, px: int) -> None:
    """`num` JPEG files of two classes in `folder`/train, of px x px; 64 pictures, whose files have many names."""
    generator = torch.Generator().manual_seed(0)
    for number in range(num):
        file = folder / "train" / "ab"[number % 2] / f"{number}.jpg"
        if number < 64:
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(coarse.numpy()).resize((px, px), Image.Resampling.BICUBIC).save(file, quality=90)
        else:
            os.link(folder / "train" / "ab"[number % 2] / f"{number % 64}.jpg", file)


def short_run(folder: Path, keys: dict[str, Any]) -> None:
    """`vitcli train` on generated images, with a checkpoint each epoch."""
    from vitcli import load_recipe, train

    base = {
        "dataset": "synthetic", "num_samples": 256, "image_resize": 32, "batch_size": 32, "epoch_size": 2,
        "num_parallel_workers": 0, "model": "fastvit_t8", "val_while_train": False, "sinks": [],
    }  # fmt: skip
    train(load_recipe(None, **(base | keys), run_dir=folder))


def resume_run(folder: Path) -> None:
    from vitcli import load_recipe, train

    train(load_recipe(folder / "recipe.yaml", resume=str(folder)))


def weights(folder: Path) -> bytes:
    """Of the last checkpoint."""
    newest = max((folder / "checkpoints").glob("step-*"), key=lambda path: path.name)
    return (newest / "model.safetensors").read_bytes()
