"""Threads next to processes for making batches, by turns, and the time to the first batch.

    python benchmarks/loader_workers.py --data-dir PHOTOS --workers 2

PHOTOS is an image folder with class folders. Threads share the batch maker of the loader, each making a whole batch;
processes are vitcli's loader. Both make the same batches.
"""

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from vitcli.data.batch_makers import TrainBatches
from vitcli.data.datasets import build_pool
from vitcli.data.loader import build_train_loader
from vitcli.data.sampler import BatchPlan
from vitcli.data.views import build_views
from vitcli.recipe.schema import Augmentation, Dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = build_pool(Dataset(data_dir=options.data_dir), needs_labels=False)
    for policy in (None, "rand-m9-inc1"):
        views = build_views(Augmentation(auto_augment=policy), 1)
        plan = BatchPlan(len(images), options.batch_size)
        maker = TrainBatches(images, views, plan, 0, 0, "fail")

        def by_threads(number: int, maker: TrainBatches = maker) -> float:
            start = time.perf_counter()
            with ThreadPoolExecutor(number) as pool:
                list(pool.map(lambda position: maker.make(position, 0, 1), range(options.batches)))
            return time.perf_counter() - start

        def by_processes(number: int, views=views, plan=plan) -> tuple[float, float]:
            """Seconds to the first batch, and from there to the last, in which the others were made."""
            loader = build_train_loader(
                images, views, plan, seed=0, rank=0, start_step=0, total_steps=options.batches, num_workers=number
            )
            start = time.perf_counter()
            ends = [time.perf_counter() for _ in loader]
            return ends[0] - start, ends[-1] - start

        rates: dict[str, list[float]] = {}
        firsts: dict[int, list[float]] = {}
        of_all = options.batches * options.batch_size
        for _ in range(options.rounds):
            for number in (1, options.workers):
                rates.setdefault(f"{number} threads", []).append(of_all / by_threads(number))
                first, last = by_processes(number)
                rates.setdefault(f"{number} processes", []).append(of_all / last)
                firsts.setdefault(number, []).append(first)
        print(f"auto_augment {policy}, batches of {options.batch_size}")
        for name, values in rates.items():
            print(f"  {name:>12}: {statistics.median(values):5.0f} img/s ({min(values):.0f} .. {max(values):.0f})")
        for number, values in firsts.items():
            print(f"  first batch with {number} processes after {statistics.median(values):.2f} s")


if __name__ == "__main__":
    main()
