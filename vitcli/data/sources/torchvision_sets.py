"""The small data sets that torchvision can download: CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from vitcli.data.source import ArrayImages
from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

#: name in a recipe -> torchvision's class, and the folder below data_dir that holds its files
_TORCHVISION = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
}


def open_torchvision(section: Dataset, split: str, needs_labels: bool = True) -> ArrayImages:
    """cifar10, cifar100, mnist or fashion_mnist in torchvision's layout; the validation split is its test split.

    Raises:
        UsageError: no data_dir.
        DataError: the files are not there and `dataset_download` is off.
    """
    from torchvision import datasets  # only here: the rest of vitcli.data works without torchvision

    kind, folder = _TORCHVISION[section.dataset]
    if section.data_dir is None:
        raise UsageError(
            f"the data set {section.dataset!r} needs a folder",
            help="give --data_dir: the folder that holds the data, or that it is downloaded to",
        )
    try:
        with _one_at_a_time(section.data_dir) if section.dataset_download else nullcontext():
            stored = getattr(datasets, kind)(
                section.data_dir, train=split == "train", download=section.dataset_download
            )
    except (RuntimeError, OSError, ValueError) as error:
        help = f"put its files into {section.data_dir / folder}/, or download them there: --dataset_download True"
        reason = f"cannot read {section.dataset} in {section.data_dir}: {error}".splitlines()[0]
        raise DataError(reason, help=help) from None
    return ArrayImages(
        np.asarray(stored.data), np.asarray(stored.targets), list(stored.classes), f"{section.dataset}/{split}"
    )


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """A lock among the processes of this machine, so that only the first of several ranks downloads."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".download.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
