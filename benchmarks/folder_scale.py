"""How a folder of very many images starts: time to list it, to fingerprint it, and to do so when a run is resumed.

    python benchmarks/folder_scale.py 1281167 --folder /tmp/many

The images are small files (one block of the disk each) in 1,000 class folders, made in `--folder` unless it has them.
With `--drop-caches` (as root, on Linux) the system forgets the file names before each measurement, as after a restart.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import simplejpeg

from vitcli.data.datasets import build_split
from vitcli.data.listings import listings_in
from vitcli.data.source import Source
from vitcli.recipe.schema import Dataset

NUM_CLASSES = 1000
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_images", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--drop-caches", action="store_true")
    options = parser.parse_args()
    make(options.folder, options.num_images)
    section = Dataset(data_dir=options.folder)

    def timed(name: str, work: Callable[[], T]) -> T:
        if options.drop_caches:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("2")
        start = time.perf_counter()
        result = work()
        print(f"{name:>34}: {time.perf_counter() - start:6.2f} s", flush=True)
        return result

    def opened(listing: Path) -> Source:
        with listings_in(listing):
            return build_split(section, "train")

    with tempfile.TemporaryDirectory() as run:
        images = timed("listed", lambda: opened(Path(run, "listing")))
        timed("fingerprint", images.fingerprint)
        images = timed("opened by a listing in the run", lambda: opened(Path(run, "listing")))
        timed("fingerprint again", images.fingerprint)


def make(folder: Path, num_images: int) -> None:
    """train/n00000000/0.JPEG, …: the same small photograph under many names."""
    if (folder / "train").exists():
        return
    file = simplejpeg.encode_jpeg(np.full((32, 32, 3), 90, np.uint8))
    for label in range(NUM_CLASSES):
        of_class = folder / "train" / f"n{label:08d}"
        of_class.mkdir(parents=True)
        for number in range(label, num_images, NUM_CLASSES):
            (of_class / f"n{label:08d}_{number}.JPEG").write_bytes(file)


if __name__ == "__main__":
    main()
