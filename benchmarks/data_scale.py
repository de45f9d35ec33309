"""How a very large packed data set starts: time to open it and to the first batch, and the memory of each worker.

    python benchmarks/data_scale.py 1281167 13151276

Each set has an index of that many entries with names and classes, but all of them are the same small photograph, so the
figures are those of the index, the order of the samples and the loader, not of reading or decoding. The order is also
sorted at once, as it is for up to 2^20 samples, for comparison.
"""

import argparse
import json
import os
import resource
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from safetensors.numpy import save_file

from vitcli.data.datasets import build_split
from vitcli.data.loader import build_train_loader
from vitcli.data.sampler import BatchPlan
from vitcli.data.sources.packed import ENTRY, IMAGES, INDEX, VERSION
from vitcli.data.streams import raw_numbers
from vitcli.data.views import build_views
from vitcli.recipe.schema import Augmentation, Dataset

WORKERS, BATCH = 2, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_images", type=int, nargs="+")
    for num_images in parser.parse_args().num_images:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "train", num_images)
            in_child(lambda folder=folder: start(Path(folder)))
        in_child(lambda num_images=num_images: sort(num_images))


def write(folder: Path, num_images: int, num_classes: int = 1000) -> None:
    """Packed data of one photograph under many names."""
    folder.mkdir()
    file = simplejpeg.encode_jpeg(np.full((64, 64, 3), 90, np.uint8))
    (folder / IMAGES).write_bytes(file)
    entries = np.zeros(num_images, dtype=ENTRY)
    entries["length"], entries["crc32"] = len(file), zlib.crc32(file)
    targets = np.arange(num_images) * num_classes // num_images
    names = "".join(f"n{target:08d}/n{target:08d}_{number:08d}.JPEG" for number, target in enumerate(targets.tolist()))
    arrays = {
        "entries": entries.view(np.uint8),
        "names": np.frombuffer(names.encode(), dtype=np.uint8),
        "name_ends": (np.arange(num_images) + 1) * (len(names) // num_images),
        "targets": targets,
    }
    facts = {
        "version": VERSION,
        "data": "simulated",
        "class_names": [f"n{number:08d}" for number in range(num_classes)],
    }
    save_file(arrays, folder / INDEX, {"packed": json.dumps(facts)})


def start(data_dir: Path) -> None:
    begin = time.perf_counter()
    images = build_split(Dataset(dataset="packed", data_dir=data_dir), "train")
    opened = time.perf_counter()
    images.fingerprint()
    known = time.perf_counter()
    views = build_views(Augmentation(image_resize=32), 1)
    plan = BatchPlan(len(images), BATCH, seed=1)
    batches = iter(
        build_train_loader(images, views, plan, seed=1, rank=0, start_step=0, total_steps=200, num_workers=WORKERS)
    )
    next(batches)
    first = time.perf_counter()
    for _ in range(100):
        next(batches)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    own = [private_mib(int(child)) for child in children]
    print(
        f"{len(images):>12,} images: opened in {opened - begin:.2f} s, fingerprint {known - opened:.2f} s, "
        f"first batch of {BATCH} after {first - known:.2f} s more; memory of a worker's own {max(own):.0f} MiB",
        flush=True,
    )


def sort(num_images: int) -> None:
    begin, before = time.perf_counter(), peak_mib()
    np.argsort(raw_numbers(num_images, "order", 1, 0), kind="stable")
    seconds = time.perf_counter() - begin
    print(f"{'':>12}  sorting its order: {seconds:.2f} s and {peak_mib() - before:.0f} MiB in every worker", flush=True)


def private_mib(process: int) -> float:
    """Memory that a process shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_child(work: Callable[[], None]) -> None:
    """Run `work` in a process of its own, so that nothing is left of it."""
    torch.set_num_threads(1)
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0


if __name__ == "__main__":
    main()
