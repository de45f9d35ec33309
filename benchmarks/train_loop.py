"""Images per second of a whole training loop, data included: `vitcli train` and timm's model, loader and loss.

    python benchmarks/train_loop.py --data-dir CIFAR10

All train FastViT-T8 on the same folder with the settings of recipes/cifar10_fastvit_t8.yaml, one loader process each,
taking turns in the same process; the median of the rounds counts, without the first steps, in which workers start.
vitcli reads the folder, keeps it in memory (cache: ram), or keeps and crops it on the device (cache: device).
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import timm
import timm.data
import timm.loss
import torch

from vitcli import load_recipe, train
from vitcli.recipe.load import Recipe

WARM_UP_STEPS = 10
CACHES = ("none", "ram", "device")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10 as an image folder")
    parser.add_argument("--steps", type=int, default=60, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    recipe = load_recipe(
        "cifar10_fastvit_t8", data_dir=options.data_dir, val_split="val", num_parallel_workers=1, device="cpu"
    )
    print(f"torch {torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads")
    rates: dict[str, list[float]] = {"timm": [], **{cache: [] for cache in CACHES}}
    waits: dict[str, list[float]] = {cache: [] for cache in CACHES}
    for _ in range(options.rounds):
        rates["timm"].append(timm_rate(recipe, options.steps))
        print(f"timm {rates['timm'][-1]:.0f}", end="", flush=True)
        for cache in CACHES:
            rate, wait = vitcli_rate(recipe.changed(cache=cache), options.steps)
            rates[cache].append(rate)
            waits[cache].append(wait)
            print(f", {cache} {rate:.0f} (data wait {wait:.1%})", end="", flush=True)
        print()
    of_timm = statistics.median(rates["timm"])
    for name, values in rates.items():
        rate = statistics.median(values)
        wait = f", data wait {statistics.median(waits[name]):.1%}" if name in waits else ""
        label = name if name == "timm" else f"vitcli, cache: {name}"
        print(f"{label:>22}: {rate:6.0f} img/s, {rate / of_timm:.2f} of timm{wait}")


def timm_rate(recipe: Recipe, steps: int) -> float:
    """The loop of timm's train.py: create_dataset, create_loader, AdamW; on a GPU its prefetcher, and bf16."""
    aug, batch_size, device = recipe.augmentation, recipe.dataset.batch_size, torch.device(recipe.system.device)
    on_gpu = device.type == "cuda"
    dataset = timm.data.create_dataset("", root=str(recipe.dataset.data_dir), split="train", is_training=True)
    loader = timm.data.create_loader(
        dataset, input_size=(3, aug.image_resize, aug.image_resize), batch_size=batch_size, is_training=True,
        use_prefetcher=on_gpu, pin_memory=on_gpu, device=device, scale=aug.scale, ratio=aug.ratio, hflip=aug.hflip,
        color_jitter=None, interpolation=aug.interpolation, mean=aug.mean, std=aug.std,
        num_workers=recipe.dataset.num_parallel_workers, persistent_workers=False,
    )  # fmt: skip
    model = timm.create_model("fastvit_t8", num_classes=10).to(device).train()
    loss_function = timm.loss.LabelSmoothingCrossEntropy(recipe.loss.label_smoothing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=on_gpu or None)
    start = 0.0
    for step, (images, labels) in enumerate(loader):
        if step == WARM_UP_STEPS:
            start = time.perf_counter()
        if step == steps + WARM_UP_STEPS:
            break
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = loss_function(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # timm's train.py keeps a running mean of it
    return steps * batch_size / (time.perf_counter() - start)


def vitcli_rate(recipe: Recipe, steps: int) -> tuple[float, float]:
    """`vitcli train`, as the log lines measure it: images per second, and the share of the time without data."""
    batch_size = recipe.dataset.batch_size
    with tempfile.TemporaryDirectory() as folder:
        short = recipe.changed(
            run_dir=f"{folder}/run", num_samples=(steps + WARM_UP_STEPS) * batch_size, epoch_size=1,
            log_interval=WARM_UP_STEPS, val_while_train=False,
        )  # fmt: skip
        with redirect_stdout(io.StringIO()):
            train(short)
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines[1:] if line["kind"] == "train"]
    seconds = [WARM_UP_STEPS * batch_size / line["images_per_second"] for line in lines]
    waiting = sum(time * line["data_wait_ratio"] for time, line in zip(seconds, lines, strict=True))
    return steps * batch_size / sum(seconds), waiting / sum(seconds)


if __name__ == "__main__":
    main()
