"""What a training step of a plain ViT costs with its own blocks and with others: time, and the most memory it held.

    python benchmarks/transformers.py --model vit_m_patch32 --img_size 1024 --batch_size 4 plain linformer

Each kind runs in a process of its own, so that its peak of memory is its own; the processes take turns, `--rounds`
times. A step is forward pass, cross-entropy, backward pass and AdamW on the same random images, float32. The time is
that of the CPU, summed over the threads, which other jobs on the machine disturb little.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from vitcli.models.registry import create_model


def main() -> None:
    options = parse()
    if options.one:
        print(*measure(options.kinds[0], options))
        return
    print(f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{options.model}, {options.batch_size} images of {options.img_size} px, float32")
    print(f"{options.rounds} processes of {options.steps} steps for each kind\n")
    runs = {kind: [] for kind in options.kinds}
    for _ in range(options.rounds):
        for kind, results in runs.items():
            command = [sys.executable, *sys.argv[:1], *sys.argv[1 : -len(options.kinds)], "--one", kind]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append([float(word) for word in done.stdout.split()])
    print(f"{'blocks':<12} {'CPU ms a step, median (best)':>28} {'peak MiB':>10} {'parameters':>12}")
    for kind, results in runs.items():
        medians, bests, peaks, parameters = zip(*results, strict=True)
        times = f"{1e3 * statistics.median(medians):.0f} ({1e3 * min(bests):.0f})"
        print(f"{kind:<12} {times:>28} {max(peaks):>10,.0f} {parameters[0]:>12,.0f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_m_patch32")
    parser.add_argument("--img_size", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("kinds", nargs="+", metavar="KIND", help="plain, linformer, nystrom, performer")
    return parser.parse_args()


def measure(kind: str, options: argparse.Namespace) -> tuple[float, float, float, int]:
    """(median CPU seconds of a step, best, MiB that the process held at most beyond its start, parameters)."""
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    transformer = {} if kind == "plain" else {"transformer": kind}
    model = create_model(options.model, img_size=options.img_size, num_classes=100, **transformer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(options.batch_size, 3, options.img_size, options.img_size)
    labels = torch.randint(100, (options.batch_size,))
    times = []
    for _ in range(options.steps + 1):
        start = time.process_time()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        times.append(time.process_time() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return statistics.median(times[1:]), min(times[1:]), peak, sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    main()
