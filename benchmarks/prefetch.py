"""How far ahead workers must read so that a device never waits: time lost to data, by the depth of prefetching.

    python benchmarks/prefetch.py IMAGES --workers 2

IMAGES is a folder of class folders. The training loader makes batches of ImageNet's crops; the device is a pause as
long as the workers take for a batch on average, times `--slack`. Depths take turns, in an order drawn anew for each
round. What is lost is the time until `next` has a batch, relative to the pauses; the first batches do not count.
"""

import argparse
import random
import statistics
import time
from pathlib import Path

import torch

from vitcli import load_recipe
from vitcli.data import loader
from vitcli.data.datasets import build_split
from vitcli.data.loader import build_train_loader
from vitcli.data.sampler import BatchPlan
from vitcli.data.views import build_views
from vitcli.networks.provenance import machine, versions

WARM_UP = 8  #: batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=40, help="of a round, besides the first")
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--slack", type=float, default=1.1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{machine()}; torch {versions('torch')['torch']}; {options.workers} workers, batches of {options.batch_size}"
    )
    pause = options.slack * statistics.median(run(options, 4, 0)[1] for _ in range(3))
    print(f"a pause has {1000 * pause:.0f} ms")
    lost: dict[int, list[float]] = {depth: [] for depth in options.depths}
    for _ in range(options.rounds):
        for depth in random.sample(options.depths, len(options.depths)):
            lost[depth].append(run(options, depth, pause)[0] / pause)
    for depth, shares in lost.items():
        low, high = min(shares), max(shares)
        print(f"{depth:3} ahead: {statistics.median(shares):6.1%} lost ({low:.1%} to {high:.1%})", flush=True)


def run(options: argparse.Namespace, depth: int, pause: float) -> tuple[float, float]:
    """Seconds of waiting for a batch, and of a batch with its pause, on average."""
    loader._PIECES_AHEAD = depth
    recipe = load_recipe(
        None, data_dir=options.images.parent, train_split=options.images.name, batch_size=options.batch_size
    )
    source = build_split(recipe.dataset, "train", needs_labels=False, multi_label=None)
    views = build_views(recipe.augmentation, 1, in_channels=3)
    plan = BatchPlan(len(source), batch_size=options.batch_size, seed=0)
    total = options.batches + WARM_UP
    batches = iter(
        build_train_loader(
            source, views, plan, seed=0, rank=0, start_step=0, total_steps=total, num_workers=options.workers
        )
    )
    waiting, start = 0.0, 0.0
    for number in range(total):
        asked = time.perf_counter()
        if number == WARM_UP:
            waiting, start = 0.0, asked
        next(batches)
        waiting += time.perf_counter() - asked
        time.sleep(pause)
    return waiting / options.batches, (time.perf_counter() - start) / options.batches


if __name__ == "__main__":
    main()
