"""`vitcli bench data`: how fast training images are made, in one thread and by workers, compared with timm's way."""

import io
import os
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich import box
from rich.table import Table

import vitcli
from vitcli.data.datasets import build_split
from vitcli.data.loader import build_train_loader
from vitcli.data.sampler import BatchPlan
from vitcli.data.source import Source
from vitcli.data.sources.packed import INDEX
from vitcli.data.streams import stream
from vitcli.data.transforms import to_uint8_tensor
from vitcli.data.views import build_views
from vitcli.disk import check_writable
from vitcli.engine.run_dir import write_result
from vitcli.errors import UsageError
from vitcli.layers.cpu.memory import keep_freed_memory
from vitcli.log import SafeConsole, phase
from vitcli.networks.provenance import machine, versions
from vitcli.recipe.load import Recipe

#: images of a batch when workers are measured
BATCH = 32
DECODING, TIMM = "decoding alone, by Pillow", "timm: dataset and transform"

#: number of an image, number of the round -> anything; makes the image once
Make = Callable[[int, int], Any]


@dataclass(frozen=True)
class DataRow:
    """One way to make training images."""

    name: str
    workers: int  #: 0: in the thread that asks
    images_per_second: float  #: median of the rounds
    ratio: float | None  #: times as fast as timm, or as one worker; median of the rounds
    low: float | None = None  #: smallest and largest of these ratios
    high: float | None = None


def bench_data(
    data_dirs: Sequence[Path],
    recipe: Recipe,
    *,
    num_images: int = 256,
    rounds: int = 5,
    workers: Sequence[int] = (),
    json_file: Path | None = None,
) -> list[DataRow]:
    """Measure the views of `recipe` on the training images in each of `data_dirs`, print the table, return its rows.

    Within a round, every way makes every image once. They take turns image by image, in an order drawn anew for each:
    whoever comes second finds the file and the memory warm. timm reads the images of the first folder.

    Raises:
        DataError: a folder cannot be opened, or an image cannot be read.
    """
    check_writable(json_file)
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a worker
    sources = {str(path): _source(path, recipe).subset(num_images) for path in data_dirs}
    makes: dict[str, Make] = {f"vitcli: {name}": _ours(source, recipe) for name, source in sources.items()}
    first = next(iter(sources.values()))
    if first.file(0) is not None:
        makes = {DECODING: partial(_decoded, first)} | _timms(first, recipe) | makes
    with phase("measuring one thread", 1 + rounds) as advance:
        rows = _in_one_thread(makes, min(map(len, sources.values())), rounds, advance)
    for name, source in sources.items():
        with phase("measuring the loader"):
            rows += _by_workers(name, source, recipe, workers, rounds)
    packages = ["torch", "pillow", "simplejpeg", "numpy", *(["timm"] if TIMM in makes else [])]
    facts = {
        "machine": f"{machine()}, {platform.system()} {platform.release()}",
        "versions": {"vitcli": vitcli.__version__, "Python": platform.python_version()} | versions(*packages),
        "command": shlex.join(["vitcli", *sys.argv[1:]]),
    }
    _show(rows, facts, f"{rounds} rounds of {len(first)} images")
    if json_file:
        write_result(json_file, facts | {"rounds": rounds, "rows": [row.__dict__ for row in rows]})
    return rows


def _source(path: Path, recipe: Recipe) -> Source:
    is_packed = (path / recipe.dataset.train_split / INDEX).is_file()
    named = recipe.changed(data_dir=path, **({"dataset": "packed"} if is_packed else {}))
    return build_split(named.dataset, "train", needs_labels=False, multi_label=None)


def _ours(source: Source, recipe: Recipe) -> Make:
    (view,) = build_views(recipe.augmentation, 1, in_channels=recipe.model.in_channels)
    return lambda index, number: to_uint8_tensor(view(source.open(index), stream("bench", number, index)))


def _decoded(source: Source, index: int, number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source.file(index) or b"")).convert("RGB"))


def _timms(source: Source, recipe: Recipe) -> dict[str, Make]:
    """The transform of timm's create_loader with its prefetcher, which erases on the device as vitcli does."""
    try:
        from timm.data.transforms_factory import create_transform
    except ImportError:
        return {}
    aug = recipe.augmentation
    transform = create_transform(
        aug.height_and_width, is_training=True, use_prefetcher=True, scale=aug.scale, ratio=aug.ratio,
        hflip=aug.hflip, vflip=aug.vflip, color_jitter=aug.color_jitter or 0.0, auto_augment=aug.auto_augment,
        interpolation=aug.interpolation, mean=aug.mean, std=aug.std,
    )  # fmt: skip

    def make(index: int, number: int) -> Any:
        random.seed(number * len(source) + index)
        image = Image.open(io.BytesIO(source.file(index) or b"")).convert("RGB")
        try:
            return transform(image)  # pyright: ignore[reportCallIssue]
        except ValueError as error:
            message = f"timm cannot augment {source.name(index)!r}: {error}"
            raise UsageError(message, help="choose another auto_augment, such as rand-m9-inc1") from None

    return {TIMM: make}


def _in_one_thread(
    makes: dict[str, Make], num_images: int, rounds: int, advance: Callable[[int], None]
) -> list[DataRow]:
    rng, rates = random.Random(0), {name: [] for name in makes}
    for number in range(-1, rounds):  # the first round is not counted
        advance(1)
        seconds = dict.fromkeys(makes, 0.0)
        for index in rng.sample(range(num_images), num_images):
            for name in rng.sample(list(makes), len(makes)):
                start = time.perf_counter()
                makes[name](index, number)
                seconds[name] += time.perf_counter() - start
        for name, total in seconds.items():
            rates[name] += [num_images / total] if number >= 0 else []
    return [_row(name, 0, own, rates.get(TIMM)) for name, own in rates.items()]


def _by_workers(name: str, source: Source, recipe: Recipe, workers: Sequence[int], rounds: int) -> list[DataRow]:
    """Batches of the loader, with each number of workers in turn."""
    views = build_views(recipe.augmentation, 1, in_channels=recipe.model.in_channels)
    plan = BatchPlan(len(source), min(BATCH, len(source)))
    steps = max(8, 512 // plan.batch_size)
    rates: dict[int, list[float]] = {number: [] for number in workers}
    for _ in range(rounds):
        for number in workers:
            batches = iter(
                build_train_loader(
                    source, views, plan, seed=0, rank=0, start_step=0, total_steps=3 * steps, num_workers=number
                )
            )
            for _ in range(steps):  # workers start, and fill what is read ahead
                next(batches)
            start = time.perf_counter()
            seen = sum(len(batch) for batch in batches)
            rates[number].append(seen / (time.perf_counter() - start))
    base = rates.get(1)
    return [_row(f"vitcli's loader: {name}", number, rates[number], base) for number in workers]


def _row(name: str, workers: int, rates: list[float], base: list[float] | None) -> DataRow:
    if base is None:
        return DataRow(name, workers, statistics.median(rates), None)
    ratios = [ours / theirs for ours, theirs in zip(rates, base, strict=True)]
    return DataRow(name, workers, statistics.median(rates), statistics.median(ratios), min(ratios), max(ratios))


def _show(rows: Sequence[DataRow], facts: dict[str, Any], what: str) -> None:
    console = SafeConsole(highlight=False, emoji=False, markup=False, soft_wrap=True, width=200)
    table = Table(box=box.MARKDOWN)
    table.add_column("training images")
    for name in ("workers", "img/s", "ratio", "range"):
        table.add_column(name, justify="right")
    for row in rows:
        ratio = ("–", "–") if row.ratio is None else (f"{row.ratio:.2f}", f"{row.low:.2f} .. {row.high:.2f}")
        table.add_row(row.name, str(row.workers or "–"), f"{row.images_per_second:,.0f}", *ratio)
    console.print(table)
    installed = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    compared = "timm" if any(row.name == TIMM for row in rows) else "nothing: timm is not installed, or has no files"
    console.print(
        f"{facts['machine']}, {os.cpu_count()} cores. {installed}.\n{what}, one thread, by turns on each image in "
        f"random order. ratio: times as fast as {compared}; of the loader, as one worker.\n{facts['command']}"
    )
