"""Which images are read, in which batches, and what happens to those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitcli.recipe.schema.key import Finding, Name, Probability, Section, key

if TYPE_CHECKING:
    from vitcli.recipe.load import Recipe


class Dataset(Section):
    dataset: Name = key("imagefolder", "Source of the images.", registry="sources")
    data_dir: Path | None = key(
        None, "Folder of the data. An image folder has one folder per class in train and in val.", free=True
    )
    train_split: Name = key("train", "Folder or name of the training split.")
    val_split: Name = key("val", "Folder or name of the validation split. A folder named validation is found too.")
    val_labels: Path | None = key(
        None,
        "Text file with the class of each image of a validation folder without class folders, as for ImageNet: a line "
        "has the file and the name or number of its class.",
        free=True,
    )
    class_names: Path | None = key(
        None,
        "Text file with one class per line; line n is output n. Default: the classes of the weights, else the class "
        "folders of the training split.",
    )
    class_order: Literal["sorted", "natural"] = key(
        "sorted", "Order of the class folders. sorted: by characters, 10 before 2; natural: 2 before 10."
    )
    dataset_download: bool = key(
        False, "Download the data set into data_dir (torchvision's data sets only).", free=True
    )
    num_samples: int | None = key(None, "Use only this many images of the training split.", ge=1)
    num_samples_per_class: int | None = key(
        None, "Use only this many training images of each class; the seed chooses them.", ge=1
    )
    num_samples_ratio: float | None = key(
        None,
        "Use only this share of the training images of each class, at least one; the seed chooses them.",
        gt=0,
        le=1,
    )
    batch_size: int = key(128, "Images per process and micro-step.", ge=1, free=True)
    val_batch_size: int | None = key(None, "Images per process in evaluation. Default: batch_size.", ge=1, free=True)
    shuffle: bool = key(True, "Shuffle the training split in each epoch.")
    drop_remainder: bool = key(True, "Drop the last, incomplete global batch of an epoch.")
    num_parallel_workers: int | None = key(
        None, "Decoding processes per training process. Default: depends on the number of cores.", ge=0, free=True
    )
    on_bad_image: Literal["fail", "skip"] = key(
        "fail", "Unreadable training images. fail: stop the run; skip: replace and count them."
    )
    max_bad_ratio: Probability = key(
        0.001, "Stop the run if a larger share of the images is unreadable (on_bad_image skip).", free=True
    )
    max_image_pixels: int = key(
        67_108_864,
        "An image with more pixels counts as unreadable. A pixel needs 4 to 8 bytes while it is decoded, in each process.",
        ge=1,
        le=178_956_970,
        free=True,
    )

    def notes(self, recipe: Recipe) -> Iterator[str]:
        if self.val_split == self.train_split:
            yield "`val_split` is the training split: the accuracy on it says nothing about other images"

    def problems(self, recipe: Recipe) -> Iterator[Finding]:
        names = ("num_samples", "num_samples_per_class", "num_samples_ratio")
        given = [name for name in names if getattr(self, name) is not None]
        for name in given[1:]:
            yield name, f"`{name}` and `{given[0]}` both choose a part of the training split", "give one of them"
