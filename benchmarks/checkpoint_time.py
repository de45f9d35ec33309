"""Seconds that training stands still for a checkpoint, written in the background and at once.

    python benchmarks/checkpoint_time.py --model fastvit_t8 vit_b_patch16

For each model: a network with an average and the moments of AdamW, after two steps, is saved several times; medians. A
save in the background begins when the one before is written, as at long intervals. `written` is the time until the
checkpoint is on the disk, with its manifest. The last figures are the time of a training step of --batch-size images,
and the share of training that saves take at an interval of 500 steps.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from vitcli import load_recipe
from vitcli.data.datasets import build_splits
from vitcli.distributed import World
from vitcli.engine.build import build_training
from vitcli.engine.saving import save, settle
from vitcli.engine.step import train_step
from vitcli.engine.training import Training
from vitcli.log import Reporter

INTERVAL = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["fastvit_t8"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dir", type=Path, help="where to write; the default is the folder for temporary files")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in options.model:
        for ckpt_async in (True, False):
            measure(options, name, ckpt_async)


def measure(options: argparse.Namespace, name: str, ckpt_async: bool) -> None:
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        training = build(options, name, ckpt_async, Path(folder))
        batches = iter(training.batches(start_step=0))
        step_seconds = timed(lambda: train_step(training, batches))
        blocked, written = [], []
        for _ in range(options.rounds + 1):
            training.saved_step = None  # as after a step: nothing can be linked
            start = time.perf_counter()
            save(training)
            blocked.append(time.perf_counter() - start)
            settle(training)
            written.append(time.perf_counter() - start)
        size = sum(file.stat().st_size for file in training.run_dir.rglob("*.safetensors"))
        shutil.rmtree(training.run_dir)
    stands_still = statistics.median(blocked[1:])  # the first makes the buffers
    how = "in the background" if ckpt_async else "at once"
    print(
        f"{name}, {size / 2**20:,.0f} MiB, {how}: blocked {stands_still:.3f} s (the first time {blocked[0]:.3f} s), "
        f"written {statistics.median(written[1:]):.2f} s, step {step_seconds:.2f} s, "
        f"share at every {INTERVAL} steps {stands_still / (INTERVAL * step_seconds + stands_still):.3%}"
    )


def build(options: argparse.Namespace, name: str, ckpt_async: bool, folder: Path) -> Training:
    recipe = load_recipe(
        None, dataset="synthetic", num_samples=4 * options.batch_size, batch_size=options.batch_size, model=name,
        image_resize=options.image_size, opt="adamw", ema=True, num_parallel_workers=0, ckpt_async=ckpt_async,
        device=options.device,
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
    world = World(0, 1, 0, 1, torch.device(device))
    (folder / "run" / "checkpoints").mkdir(parents=True)
    reporter = Reporter(enabled=False)
    return build_training(recipe, world, folder / "run", build_splits(recipe.dataset), reporter, fresh=True)


def timed(step) -> float:
    """Seconds of the second step: the first makes the optimizer's moments."""
    step()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
