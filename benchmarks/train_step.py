"""How long a training step takes: this project's model against timm's, same weights, same process, one after the other.

    python benchmarks/train_step.py --model fastvit_t8 --sizes 64 256
    python benchmarks/train_step.py --model vit_s_patch16 --sizes 224
    python benchmarks/train_step.py --model vit_s_patch16 --sizes 224 --against ours --options patch_drop_rate=0.5

A step is forward pass, cross-entropy, backward pass and AdamW, for the same random batch. The two models take turns,
so that whatever else the machine does hits both; the median of the rounds counts. `--against ours` compares with this
project's model without the `--options`.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import nn

from vitcli.layers.cpu import use_cpu_kernels
from vitcli.layers.cpu.memory import keep_freed_memory
from vitcli.models.registry import create_model

BATCH_SIZES = {64: 64, 256: 8}  # images by side in px
TIMM_SIZES = {"ti": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large", "h": "huge"}


def main() -> None:
    options = parse()
    allocator = "freed memory kept" if options.keep_memory and keep_freed_memory() else "glibc's default"
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, timm {timm.__version__}")
    print(f"{options.model}, {'bfloat16 autocast' if options.bf16 else 'float32'}, allocator: {allocator}")
    print(f"both: AdamW(fused={options.fused}), compile={options.compile}; median (best) of {options.rounds} rounds\n")
    other = "timm ms" if options.against == "timm" else "as it is ms"
    print(f"{'size_px':>7} {'batch':>5} {other:>16} {'ours ms':>16} {'ours img/s':>10} {'speed-up':>8}")
    for size_px in options.sizes:
        batch_size = options.batch_size or BATCH_SIZES.get(size_px, 16)
        theirs, ours = measure(options, size_px, batch_size)
        row = f"{size_px:7} {batch_size:5} {in_ms(theirs):>16} {in_ms(ours):>16}"
        median = statistics.median(ours)
        print(f"{row} {batch_size / median:10.1f} {statistics.median(theirs) / median:8.2f}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fastvit_t8")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256], metavar="PX")
    parser.add_argument("--batch-size", type=int, help="default: 64 images of 64 px, 8 of 256 px, else 16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", choices=["timm", "ours"], default="timm")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=NUMBER", help="of our model only")
    parser.add_argument("--compile", action="store_true", help="torch.compile, for both")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--fused", action="store_true", help="AdamW's fused implementation, for both")
    parser.add_argument("--keep-memory", action="store_true", help="let glibc keep freed memory, for both")
    return parser.parse_args()


def measure(options: argparse.Namespace, size_px: int, batch_size: int) -> tuple[list[float], list[float]]:
    """Seconds of each round for the other model and ours."""
    torch.manual_seed(0)
    theirs, ours = models(options, size_px)
    ours.load_state_dict(theirs.state_dict())
    images, labels = torch.randn(batch_size, 3, size_px, size_px), torch.randint(1000, (batch_size,))
    steps = [
        training_step(theirs, images, labels, options),
        training_step(ours, images, labels, options),
    ]
    for step in steps:
        for _ in range(2):  # compilation, allocation, caches
            step()
    rounds = [[seconds(step) for step in steps] for _ in range(options.rounds)]
    return [times[0] for times in rounds], [times[1] for times in rounds]


def models(options: argparse.Namespace, size_px: int) -> tuple[nn.Module, nn.Module]:
    """The other model and ours, which is prepared for the CPU as in a run."""
    given = {name: float(number) for name, number in (option.split("=") for option in options.options)}
    ours = use_cpu_kernels(create_model(options.model, img_size=size_px, **given))
    if options.against == "ours":
        return use_cpu_kernels(create_model(options.model, img_size=size_px)), ours
    if not options.model.startswith("vit_"):
        return timm.create_model(options.model), ours
    _, size, patch = options.model.split("_")
    return timm.create_model(f"vit_{TIMM_SIZES[size]}_{patch}_224", img_size=size_px), ours


def training_step(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, options: argparse.Namespace
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3, fused=options.fused or None)
    forward = torch.compile(model, fullgraph=True) if options.compile else model
    precision = torch.autocast("cpu", torch.bfloat16) if options.bf16 else nullcontext()

    def step() -> None:
        optimizer.zero_grad()
        with precision:
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def in_ms(times: list[float]) -> str:
    return f"{1e3 * statistics.median(times):.0f} ({1e3 * min(times):.0f})"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
