"""Optimizers with low-bit moments compared with float32: memory and time of a step, and accuracy over several seeds.

    python benchmarks/low_bit.py state [--device cuda]        ViT-S/16 and ViT-B/16, the optimizer alone
    python benchmarks/low_bit.py seeds CIFAR10 RUNS           trains what is missing in RUNS, then prints the table

CIFAR10 is an image folder with train/ and val/. The runs of one seed have the same first weights and the same images in
the same order, so the difference to adamw is taken seed by seed. All runs use one thread.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from vitcli.layers.cpu.memory import keep_freed_memory
from vitcli.models.registry import create_model
from vitcli.optim.optimizers import build_optimizer
from vitcli.optim.param_groups import param_groups
from vitcli.recipe.schema import Optimizer as Section

NAMES = ("adamw", "adamw_bf16", "adamw_fp8", "adamw_8bit", "adamw_4bit")
#: 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

#: F-ViT, 1.34 M parameters, on 10,000 images of 32 px for 4 epochs
SEEDS_RECIPE = (
    "-c", "cifar10_fvit", "--num_samples_per_class", "1000", "--epoch_size", "4", "--warmup_epochs", "1",
    "--lr_epoch_stair", "False", "--batch_size", "128", "--weight_decay", "0.05", "--val_interval", "4",
    "--val_batch_size", "500", "--num_parallel_workers", "0", "--device", "cpu", "--keep_checkpoint_max", "1",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    state = kinds.add_parser("state", help="memory of the state, and time of the optimizer's step alone")
    state.set_defaults(run=measure_state)
    state.add_argument("--device", default="cpu")
    state.add_argument("--models", nargs="+", default=["vit_s_patch16", "vit_b_patch16"])
    state.add_argument("--rounds", type=int, default=5)
    seeds = kinds.add_parser("seeds", help="top-1 on CIFAR-10")
    seeds.set_defaults(run=measure_seeds)
    seeds.add_argument("data_dir", type=Path)
    seeds.add_argument("runs", type=Path)
    seeds.add_argument("--seeds", type=int, default=5)
    seeds.add_argument("--names", nargs="+", default=[name for name in NAMES if name != "adamw_fp8"], choices=NAMES)
    options = parser.parse_args()
    options.run(options)


def measure_state(options: argparse.Namespace) -> None:
    """The optimizers take turns in each round; the ratio is that of the medians."""
    device = torch.device(options.device)
    if device.type == "cpu":
        keep_freed_memory()  # as in a run
    print(f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    for model in options.models:
        network = create_model(model, num_classes=1000).to(device)
        for p in network.parameters():
            p.grad = 1e-3 * torch.randn_like(p)
        steps = {name: optimizer_step(name, network) for name in NAMES}
        sizes = {name: size for name, (_, size) in steps.items()}
        times: dict[str, list[float]] = {name: [] for name in NAMES}
        for _ in range(options.rounds):
            for name, (step, _) in steps.items():
                times[name].append(seconds(step, device))
        print(f"\n{model:<14} {'state MB':>9} {'ratio':>6} {'step ms':>9} {'ratio':>6}", flush=True)
        for name in NAMES:
            median = statistics.median(times[name])
            size, slower = sizes[name] / sizes["adamw"], median / statistics.median(times["adamw"])
            print(f"{name:<14} {sizes[name] / 1e6:9.1f} {size:6.2f} {1e3 * median:9.1f} {slower:6.2f}", flush=True)


def optimizer_step(name: str, network: nn.Module) -> tuple[Callable[[], None], int]:
    """A function that makes one step with the gradients that are there, and the bytes of the state after the first."""
    groups = param_groups(network, weight_decay=0.05, weight_decay_filter="auto")
    optimizer = build_optimizer(Section(opt=name), groups, next(network.parameters()).device, network)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    optimizer.step()
    tensors = [value for fields in optimizer.state.values() for value in fields.values()]
    return optimizer.step, sum(value.nbytes for value in tensors)


def seconds(step: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_seeds(options: argparse.Namespace) -> None:
    found: dict[str, dict[int, float]] = {name: {} for name in options.names}
    for seed in range(options.seeds):
        for name in options.names:
            found[name][seed] = trained_top1(name, seed, options)
            print(f"seed {seed}  {name:<11} top1 {found[name][seed]:.2f}", flush=True)
        print_table(found)


def trained_top1(name: str, seed: int, options: argparse.Namespace) -> float:
    """The top-1 of the run's last epoch; it is trained, or continued, unless it has ended."""
    run = options.runs / f"{name}-{seed}"
    if (top1 := last_top1(run)) is None:
        words = [*SEEDS_RECIPE, "--opt", name, "--seed", str(seed), "--data_dir", str(options.data_dir)]
        subprocess.run(
            [sys.executable, "-m", "vitcli", "train", *words, "--run_dir", str(run), "--resume", "auto"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        top1 = last_top1(run)
    assert top1 is not None, f"{run} has no result"
    return top1


def last_top1(run: Path) -> float | None:
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return next((line["top1"] for line in reversed(lines) if "top1" in line), None)


def print_table(found: dict[str, dict[int, float]]) -> None:
    """Means with 95 % intervals: of the numbers, and of their differences to adamw with the same seed."""
    print(f"\n{'':<12} {'seeds':>5} {'top1':>16} {'minus adamw':>16}")
    for name, top1 in found.items():
        differences = [top1[seed] - found["adamw"][seed] for seed in top1] if "adamw" in found else []
        print(f"{name:<12} {len(top1):5} {interval(list(top1.values())):>16} {interval(differences):>16}")
    print(flush=True)


def interval(numbers: list[float]) -> str:
    """mean ± half the 95 % interval of the mean"""
    if len(numbers) < 2:
        return f"{numbers[0]:.2f}" if numbers else "-"
    half = STUDENT[len(numbers) - 2] * statistics.stdev(numbers) / len(numbers) ** 0.5
    return f"{statistics.mean(numbers):.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
