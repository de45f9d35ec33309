"""Data sets that need no folder of images: handwritten digits (in this package), synthetic ones, and torchvision's."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from vitcli.data.source import ArrayImages, Source
from vitcli.data.streams import stream_seed
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset


def open_digits(section: Dataset, split: str) -> ArrayImages:
    """1,797 handwritten digits of 8x8 pixels; every fifth image of each class is held out for validation."""
    with (files("vitcli.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        pixels, labels = stored["pixels"], stored["labels"].astype(np.int64)
    rank_in_class = np.array([(labels[:index] == label).sum() for index, label in enumerate(labels)])
    rows = np.flatnonzero((rank_in_class % 5 == 4) == (split == "val"))
    return ArrayImages(pixels[rows], labels[rows], [str(digit) for digit in range(10)], f"digits/{split}")


def open_synthetic(section: Dataset, split: str) -> "SyntheticImages":
    """1,024 training and 256 validation images that cost nothing to read and that a model can learn."""
    return SyntheticImages(split)


class SyntheticImages(Source):
    """Noise of 64x64 pixels over the color of one of 10 classes; image `i` depends on `split` and `i` only."""

    num_images: ClassVar = {"train": 1024, "val": 256}
    colors: ClassVar = np.random.Philox(key=stream_seed("synthetic colors")).random_raw(30).reshape(10, 3) % 256

    def __init__(self, split: str) -> None:
        self.split = split
        self.rows = np.arange(self.num_images[split])
        super().__init__(self.rows % 10, [f"color{index}" for index in range(10)])

    def load(self, index: int) -> Image.Image:
        row = int(self.rows[index])
        raw = np.random.Philox(key=stream_seed(f"synthetic {self.split}", row)).random_raw(64 * 64 * 3 // 8)
        noise = raw.view(np.uint8).reshape(64, 64, 3) // 2  # 0..127
        return Image.fromarray(noise + (self.colors[self.targets[index]] // 2).astype(np.uint8))

    def name(self, index: int) -> str:
        return f"synthetic/{self.split}[{self.rows[index]}]"

    def _select(self, rows: np.ndarray) -> None:
        self.rows = self.rows[rows]

    def _digests(self) -> dict[str, str]:
        return {"sha256": f"synthetic/{self.split}/{len(self)}"}


#: name in a recipe -> torchvision's class, and where below data_dir its files belong
_TORCHVISION = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
}


def open_torchvision(section: Dataset, split: str) -> ArrayImages:
    """cifar10, cifar100, mnist or fashion_mnist, laid out as torchvision does it; its test split is "val".

    Raises UsageError without data_dir, DataError when the files are not there and `dataset_download` is off.
    """
    from torchvision import datasets  # only here: the rest of vitcli.data does without torchvision

    kind, folder = _TORCHVISION[section.dataset]
    if section.data_dir is None:
        raise UsageError(
            f"the data set {section.dataset!r} needs a folder",
            help="give --data_dir, the folder it is in or is to be downloaded to",
        )
    try:
        with _alone(section.data_dir) if section.dataset_download else nullcontext():
            stored = getattr(datasets, kind)(
                section.data_dir, train=split == "train", download=section.dataset_download
            )
    except (RuntimeError, OSError, ValueError) as error:
        cure = f"put its files into {section.data_dir / folder}/, or download them there: --dataset_download True"
        raise DataError(
            f"cannot read {section.dataset} in {section.data_dir}: {error}".splitlines()[0], help=cure
        ) from None
    return ArrayImages(
        np.asarray(stored.data), np.asarray(stored.targets), list(stored.classes), f"{section.dataset}/{split}"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this machine after the other, so that only the first of several ranks downloads."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".download.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
