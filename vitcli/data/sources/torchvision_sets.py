"""The small data sets that torchvision can download: CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from vitcli.data.idx_files import read_idx_split
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

    The four files of mnist or fashion_mnist may also be in data_dir itself, compressed with gzip or not.

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
    if not section.dataset_download and (arrays := _idx_arrays(section.data_dir, folder, split)):
        images, labels = arrays
        classes = list(getattr(datasets, kind).classes)
        if int(labels.max()) >= len(classes):
            raise DataError(f"{section.dataset} has {len(classes)} classes, and there is a label {labels.max()}")
        return ArrayImages(images, labels, classes, f"{section.dataset}/{split}")
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


def _idx_arrays(data_dir: Path, folder: str, split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images and labels of MNIST's own files: in `data_dir`, or where torchvision puts them."""
    if not folder.endswith("raw"):
        return None
    found = (read_idx_split(place, split) for place in (data_dir / folder, data_dir))
    return next((arrays for arrays in found if arrays), None)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """A lock among the processes of this machine, so that only the first of several ranks downloads."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".download.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
